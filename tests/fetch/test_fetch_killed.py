"""A fetch killed at any instant resumes: the same ledger, the same survivors, and nothing known is asked again."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fetchkilling import ROWS
from urlserver import serving

HOST = Path(__file__).with_name("fetchkilling.py")
SURVIVORS = {"a", "b", "c", "f", "g", "h"}
ERRORS = {"d": "http-404", "e": "html", "k": "noai", "l": "too-small"}
WORKERS = 4


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    with serving() as server:
        command = [sys.executable, str(HOST), str(tmp_path_factory.mktemp("killed")), server.origin]
        environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        for record in records:
            part = f"/s{record['number']}/"
            record["asked"] = [(path.split("/")[2], at) for path, at, _ in server.asked if path.startswith(part)]
    return records


def test_fetches_really_were_killed(records):
    killed = [r for r in records[1:] if r["killed"] == -signal.SIGKILL]
    assert len(killed) >= 14
    assert all(r["killed"] == -signal.SIGKILL for r in records[1:] if not r["name"].startswith("moment"))
    assert {len(r["stored"]) for r in killed} >= {0, 1, 6, 12}, "at every stage"


def test_every_one_ends_with_the_same_ledger_and_the_same_survivors(records):
    whole = records[0]
    assert {i: row[1] for i, row in whole["rows"].items()} == {i: ERRORS.get(i, "") for i, *_ in ROWS}
    assert {i for i, *_ in whole["samples"]} == SURVIVORS, "i and j are one picture in both classes"
    for record in records:
        assert record["resumed"] == 0, record["name"]
        for part in ("rows", "list", "samples"):
            assert record[part] == whole[part], record["name"]


def test_nothing_known_is_asked_again(records):
    for record in records:
        later = {i for i, at in record["asked"] if at > record["resumed_at"]}
        assert not later & set(record["stored"]), record["name"]
        assert later == {i for i, *_ in ROWS} - set(record["stored"]), record["name"]
        assert record["again"] == 0, record["name"]


def test_only_what_was_in_flight_is_asked_twice(records):
    needed = Counter({i: 1 for i, *_ in ROWS} | {"f": 2, "g": 2, "h": 4})
    for record in records:
        extra = Counter(i for i, _ in record["asked"]) - needed
        assert len(extra) <= WORKERS, record["name"]


def test_no_litter_stays(records):
    assert [(r["name"], r["left"]) for r in records if r["left"]] == []
