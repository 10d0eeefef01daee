"""What people read: the table, its notes, the details, the progress."""

import sys

import numpy as np
import pytest
import tiny

from mia_bench.errors import ExitStatus
from mia_bench.report.progress import reporter
from mia_bench.report.table import exit_status, notes, percent, show_details, show_results, tail
from mia_bench.report.text import json_text, pairs, printable, seconds_text, table
from mia_bench_plugins.controls import blind


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0005, "0.5 ms"), (0.85, "850 ms"), (12.04, "12 s"), (185, "3 min 05 s"), (7810, "2 h 10 min")],
)
def test_durations(seconds, text):
    assert seconds_text(seconds) == text


def test_only_printable_text_is_printed():
    assert printable("a\x1b[31mb\x07\x9b\u202ec\u2066") == "a�[31mb���c�"
    assert printable("naïve 猫 🙂\tx") == "naïve 猫 🙂\tx"
    assert "\x1b" not in table([["\x1b[1m"]], ["x"]) + pairs({"x": "\x1b[1m"})


def test_json_is_strict():
    with pytest.raises(ValueError):
        json_text({"x": float("nan")})


def separated(members):
    """An attack that tells the first members from the rest."""

    def score(self, measured, calibration):
        known = set(members)
        noise = np.random.default_rng(0).normal(size=len(measured.ids))
        return np.array([3.0 * (i in known) for i in measured.ids]) + noise

    return tiny.plugin([tiny.attack("good", score=score), tiny.attack("bad", score=lambda s, m, c: 1 / 0)])


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    samples = tiny.icons(120, 120, unknown=3)
    made = tiny.registry(separated([s.id for s in samples if s.member]), samples=samples)
    return tiny.go(tmp_path_factory.mktemp("run"), made, attacks="good,bad,clid,logged", batch=64, rows=32)


def test_rows_are_ordered_by_auc_and_failures_come_last(result, capsys):
    show_results([result], as_json=False, folder="here")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "given on tiny: 120 members, 120 non-members, 3 of unknown membership; seed 0, float32"
    first, last = lines[4], lines[7]
    assert first.startswith("good") and last.startswith("bad") and "failed" in last
    assert lines[-1] == "run folder: here"


def test_notes_say_what_a_reader_must_know(result):
    said = "\n".join(notes(result))
    for part in (
        "chosen on the audit set itself: optimistic",
        "! few false positives",
        "transductive:",
        "no threshold, scaler or weight could be calibrated: the dataset has no labelled calibration set",
        "queries asked",
        "failed bad: score failed: ZeroDivisionError: division by zero",
    ):
        assert part in said
    assert "left out" not in said


def test_a_rate_that_few_errors_decide_is_flagged(result):
    good = tiny.row(result, "good").evaluation
    assert tail(good.tpr_at_1).endswith(" at 0.83 !")
    assert percent(good.tpr_at_01) == "–"


def test_details_show_every_metric_with_its_standing(result, capsys):
    show_details(result)
    text = capsys.readouterr().out
    for part in ("flagged", "undefined", "delong-logit", "tnr_at_01", "no labelled calibration set"):
        assert part in text


def test_exit_status_is_that_of_the_worst(result):
    ok = result.model_copy(update={"rows": tuple(r for r in result.rows if r.status == "ok")})
    assert exit_status(result) == ExitStatus.BROKEN_PLUGIN
    assert exit_status(ok) == ExitStatus.OK
    assert exit_status(ok.model_copy(update={"rows": ()})) == ExitStatus.NOTHING


def test_the_row_without_a_blind_baseline_says_so(result, capsys):
    show_results([result], as_json=False)
    said = capsys.readouterr().out
    assert "  no blind baseline" in next(line for line in said.splitlines() if line.startswith("good"))
    assert "no blind baseline: no blind baseline was run" in said


def test_a_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    made = tiny.registry()
    for _ in range(2):  # the second has nothing to measure
        with reporter(made) as progress:
            tiny.go(tmp_path, made)
    assert progress.folder == str(tmp_path)
    err = capsys.readouterr().err
    assert "measuring" in err and "12/12" in err


def test_progress_outlives_a_reader_that_went_away(tmp_path, monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

        flush = isatty = lambda self: False

    made = tiny.registry()
    monkeypatch.setattr(sys, "stderr", Gone())
    with reporter(made):
        assert [r.status for r in tiny.go(tmp_path, made).rows] == ["ok", "ok"]


def test_attacks_that_cannot_be_told_from_the_best_are_marked(tmp_path, capsys):
    members = {s.id for s in tiny.Icons().samples() if s.member}

    def told(seed, shift):
        def score(self, measured, calibration):
            noise = np.random.default_rng(seed).normal(size=len(measured.ids))
            return shift * np.array([i in members for i in measured.ids]) + noise

        return score

    attacks = [tiny.attack(name, score=told(*how)) for name, how in {"a": (1, 2), "b": (2, 2), "c": (3, 0)}.items()]
    made = tiny.registry(blind, tiny.plugin(attacks))
    sizes = {"dataset": "icons", "limit": 40, "batch": 64, "rows": 32}
    result = tiny.go(tmp_path, made, attacks="a,b,c", **sizes)
    best, other = sorted(("a", "b"), key=lambda label: -tiny.row(result, label).evaluation.auc.value)
    show_results([result], as_json=False)
    said = capsys.readouterr().out
    line = {label: next(x for x in said.splitlines() if x.startswith(f"{label} ")) for label in "abc"}
    assert line[other].endswith("≈ best") and "≈ best" not in line[best] + line["c"]
    assert f"the largest, that of {best}" in said
    assert "clears blind" in line[best] and "at chance" in line["c"]
    alone = tiny.go(tmp_path / "alone", made, attacks="c", **sizes)
    show_results([alone], as_json=False)
    assert "≈ best" not in capsys.readouterr().out
