"""A run killed at any instant resumes with nothing lost and nothing counted twice."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HOST = Path(__file__).parent / "killing.py"
SAMPLES, BATCH = 12, 2


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    command = [sys.executable, str(HOST), str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_runs_really_were_killed(records):
    killed = [r for r in records if r["killed"] == -signal.SIGKILL]
    assert len(killed) >= 20
    assert all(r["killed"] == -signal.SIGKILL for r in records if not r["name"].startswith("moment"))
    assert {len(set(r["first"])) for r in killed} >= {0, 2, 4, 6, 8, 10, 12}, "at every stage of the run"


def test_every_one_resumes_to_the_same_bytes(records):
    assert [r["name"] for r in records if r["resumed"] or not r["same"]] == []


def test_nothing_stored_is_measured_again(records):
    for r in records:
        assert not set(r["second"]) & set(r["stored"][0]), r["name"]
        assert len(r["second"]) == SAMPLES - len(r["stored"][0]), r["name"]


def test_only_the_batch_in_flight_is_lost(records):
    for r in records:
        counts = Counter(r["first"] + r["second"])
        assert len(counts) == SAMPLES
        assert sum(n - 1 for n in counts.values()) <= BATCH, r["name"]


def test_no_query_is_counted_twice(records):
    assert {tuple(r["asked"]) for r in records} == {(SAMPLES, SAMPLES, 2 * SAMPLES)}, "logged, loss, pia"


def test_no_litter_stays(records):
    assert [(r["name"], r["left"], r["shards"]) for r in records if r["left"] or r["shards"] != 1] == []
