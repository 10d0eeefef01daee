"""The table of a run in other forms: the same numbers, and text that stays text."""

import csv
import io

import pytest
import tiny

from mia_bench.report.formats import as_csv, as_markdown
from mia_bench.report.table import METRICS, cells


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    def fails(self, measured, calibration):
        raise ValueError("a | b\n=1+1 <b>\x1b[31m")

    made = tiny.registry(tiny.plugin([tiny.attack("bad", score=fails)]), samples=tiny.icons(8, 8, unknown=2))
    return tiny.go(tmp_path_factory.mktemp("run"), made, attacks="loss,pia,bad")


def test_csv_has_a_line_for_each_row_and_every_number(result):
    lines = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert {line["attack"] for line in lines} == {"loss", "pia", "bad"}
    for line in lines:
        row = tiny.row(result, line["attack"])
        assert line["status"] == row.status and int(line["n"]) == row.n
        for name in METRICS:
            metric = getattr(row.evaluation, name) if row.evaluation else None
            expected = (
                ["" if x is None else str(x) for x in (metric.value, metric.low, metric.high)] if metric else [""] * 3
            )
            assert [line[name], line[f"{name}_low"], line[f"{name}_high"]] == expected
        verdict = row.verdicts.get("auc")
        assert line["auc_verdict"] == (verdict.verdict if verdict else "")
        assert line["auc_behind_other"] == (row.behind["auc"].against if "auc" in row.behind else "")
    bad = next(line for line in lines if line["attack"] == "bad")
    assert "\x1b" not in bad["reason"] and "\n" not in bad["reason"] and "a | b =1+1 <b>" in bad["reason"]


def test_no_text_is_a_formula_in_a_spreadsheet(result):
    row = tiny.row(result, "bad").model_copy(update={"reason": "=HYPERLINK(1)"})
    line = next(csv.DictReader(io.StringIO(as_csv(result.model_copy(update={"rows": (row,)})))))
    assert line["reason"] == "'=HYPERLINK(1)"


def test_markdown_is_the_terminals_table(result):
    text = as_markdown(result, "here")
    assert text.startswith("## given on tiny: 8 members, 8 non-members, 2 of unknown membership")
    assert text.count("\n| loss |") == 2, "in the table, and in that of unknown membership"
    shown = [part.strip().replace("\\", "") for part in text[text.index("| loss") :].splitlines()[0].split("|")[1:-1]]
    assert shown == [str(cell) for cell in cells(tiny.row(result, "loss"))]
    assert "\n- TPR@1%FPR in percent" in text
    assert "<b>" not in text.replace("\\<b\\>", "") and "\x1b" not in text
