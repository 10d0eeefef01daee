"""Fixtures shared by all tests: the embedded benchmark, and how a batch is made of it."""

import os
import signal

# Before torch is imported, here and in all processes that tests start: threads of several processes that wait for each
# other on the same cores cost more than they do. Tests of threads ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import tiny

from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.targets.emoji import EmojiRealworld

# A shell starts jobs in the background with Ctrl-C ignored, and so would be everything that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def open_emoji(**options):
    target = EmojiRealworld()
    target.open(**{"rows": 32, **options})
    return target


@pytest.fixture(scope="session")
def emoji():
    """The embedded target: 32 rows, one thread."""
    return open_emoji()


@pytest.fixture(scope="session")
def emoji_samples():
    """Every sample of the embedded dataset, in the order `--limit` takes them."""
    return sorted(FluentEmoji().samples(), key=lambda s: s.order)


@pytest.fixture(scope="session")
def make_emoji():
    return open_emoji


@pytest.fixture(scope="session")
def make_batch():
    return tiny.batch_of
