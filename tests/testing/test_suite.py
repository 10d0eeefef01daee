"""How checks become tests: ids, messages, exemptions, and what is no plugin."""

import pytest
from broken import the
from test_attack_checks import Sound

from mia_bench.errors import UsageError
from mia_bench.testing import checks, conformance

pytest_plugins = ["pytester"]

TESTS = """
from mia_bench import Access, Attack, Meta
from mia_bench.testing import conformance

class Mine(Attack):
    '''Nothing much.'''

    meta = Meta(name="mine", summary="nothing", paper="{paper}", access=Access.LOSS)

    def queries(self):
        return 1

    def measure(self, batch, target):
        raise RuntimeError("not yet")

    def score(self, measured, calibration):
        return measured["x"]

test_conformance = conformance(Mine, exempt={{"orientation": "finds nothing here"}})
"""


def collected(pytester, paper="none", *options):
    pytester.makepyfile(test_mine=TESTS.format(paper=paper))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", *options)


def test_one_line_is_one_test_for_each_check(pytester):
    listed = collected(pytester, "none", "--collect-only")
    names = [check.name for check in checks(Sound)]
    listed.stdout.fnmatch_lines([f"test_mine.py::test_conformance[[]mine-{name}[]]" for name in names])


def test_a_failure_is_its_message_and_an_exemption_a_skip(pytester):
    done = collected(pytester, "a paper", "-rs", "-k", "metadata or parameters or orientation or finite")
    done.assert_outcomes(passed=1, failed=2, skipped=1)
    done.stdout.fnmatch_lines_random(
        [
            "attack mine fails the check 'metadata'",
            "  expected: A summary of one line*",
            "  found: the paper 'a paper'",
            "  fix: write arXiv:YYMM.NNNNN*",
            "  found: measure failed: RuntimeError: not yet at *test_mine.py:*",
            "*declared exempt: finds nothing here*",
        ]
    )
    done.stdout.no_fnmatch_line("*During handling*")
    assert str(done.stdout).count("found: the paper") == 1, "said once, without a traceback"


def test_exemptions_name_a_check_and_a_reason():
    with pytest.raises(UsageError, match="no such check") as caught:
        checks(Sound, exempt={"orientaton": "why"})
    assert "orientation" in caught.value.fix
    with pytest.raises(UsageError, match="no reason"):
        conformance(Sound, exempt={"orientation": " "})


@pytest.mark.parametrize("thing", [int, "loss", Sound()])
def test_what_is_no_plugin(thing):
    with pytest.raises(UsageError, match="not a class of an attack"):
        conformance(thing)


def test_what_checks_share_is_done_once(monkeypatch):
    from mia_bench.testing import attacks

    runs, tried = [], attacks.tried
    monkeypatch.setattr(attacks, "tried", lambda *a, **k: runs.append(k) or tried(*a, **k))
    some = {check.name: check for check in checks(Sound)}
    for name in ("finite", "determinism", "batches"):
        some[name].run()
    assert len(runs) == 3, "one run for all to be compared with, one for each of two checks"


def test_the_global_generators_are_as_they_were():
    import random

    import numpy as np
    import torch

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    wanted = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    the("determinism", Sound).run()
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == wanted
