"""What a comparison looks like."""

import json
import math
from pathlib import Path

import pytest

from mia_bench.engine.compare import ComparedRow, Comparison, Gate, Moved
from mia_bench.metrics.gate import Change, judged_together
from mia_bench.report.compare import show_comparison

HOSTILE = "a|b\x1b[31m<script>"
CHANGES = [
    Change("auc", 0.6, 0.7, 0.02, 80, 80, 50, 50),
    Change("auc", 0.6, 0.6, 0.0, math.inf, math.inf, 50, 50),
    Change("auc", 0.6, 0.62, 0.5, 80, 80, 50, 50, "an unsteady one"),
]


@pytest.fixture
def moved():
    worst = (Moved(HOSTILE, 1.0, 2.0, math.inf),)
    rows = (
        ComparedRow("pia", "scores", "moved", f"1 of 9 scores, worst {HOSTILE!r}", 9, 0.6, 0.7, 1, math.inf, worst),
        ComparedRow("loss", "scores", "same", "9 scores within tolerance", 9, 0.5, 0.5, 0, 0.2),
        ComparedRow("wen", "scores", "not compared", "the current run does not have it"),
        ComparedRow("gsa", "scores", "no scores", "it has none in the current run: out of memory"),
    )
    return Comparison("same scores", Gate(), Path("base"), Path("now"), rows, new=("mc",))


@pytest.fixture
def tested():
    tests = judged_together(CHANGES)
    rows = tuple(
        ComparedRow(label, "auc", "rose" if t.found else "held", "", 100, t.change.before, t.change.after, tested=t)
        for label, t in zip(("clid", "pia", "loss"), tests, strict=True)
    )
    return Comparison("leakage", Gate(margin=0.01), Path("base"), Path("now"), rows)


def test_moved_scores_are_named(moved, capsys):
    show_comparison(moved, "text")
    out = capsys.readouterr().out
    assert "pia: moved; 1 of 9 scores" in out and "1 -> 2 (inf x tolerance)" in out
    assert "gsa: no scores; it has none in the current run: out of memory" in out
    assert "not compared wen: the current run does not have it" in out
    assert "new, not in the baseline: mc" in out
    assert out.rstrip().endswith("2 of 3 regressed; 1 could not be compared")
    assert "\x1b" not in out


def test_tests_show_what_they_could_have_seen(tested, capsys):
    show_comparison(tested, "text")
    lines = capsys.readouterr().out.splitlines()
    by_label = {line.split()[0]: line for line in lines if line[:4] in ("clid", "pia ", "loss")}
    assert "ROSE" in by_label["clid"] and "+0.100 [+0.060, +0.140]" in by_label["clid"]
    assert "same ranks" in by_label["pia"] and "held" in by_label["pia"]
    assert "– !" in by_label["loss"]
    assert any("risen by more than 0.01" in line for line in lines) and "! an unsteady one" in lines
    assert lines[-1] == "1 of 3 regressed"


def test_markdown_and_json_are_inert_and_strict(moved, tested, capsys):
    show_comparison(moved, "md")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "<script>" not in out.replace(r"\<script\>", "")
    assert out.startswith("## now against baseline base") and "| pia | 9 | 0.600 | 0.700 | 1 | inf | MOVED |" in out
    for found in (moved, tested):
        show_comparison(found, "json")
        record = json.loads(capsys.readouterr().out)
        assert record["status"] == 1 and len(record["rows"]) == len(found.rows)
    assert record["rows"][0]["tested"]["detectable"] == tested.rows[0].tested.detectable
    assert record["rows"][0]["tested"]["change"]["spread"] == 0.02


def test_nothing_compared_is_no_success(capsys):
    empty = Comparison("leakage", Gate(), Path("base"), Path("now"), problem="other seed: 0 in the baseline, 1 now")
    show_comparison(empty, "text")
    assert "regressed" not in capsys.readouterr().out
