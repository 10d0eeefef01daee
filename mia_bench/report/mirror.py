"""The table of a mirror test."""

from __future__ import annotations

from collections.abc import Sequence

from mia_bench.engine.mirror import ALPHA, MirrorRow
from mia_bench.report.text import json_text, table

HEADERS = ["attack", "N", "AUC", "mirror's AUC", "deviation [95 % interval]", "p (Holm)", ""]
NOTES = f"""\
deviation: AUC + AUC_mirror - 1 with the target's members as positives in both; 0 for an attack that reads the model
alone, above 0 where images of the target's side look like members to the attack on either model
interval and p: paired bootstrap over images; p adjusted over the attacks; a deviation counts at p < {ALPHA}"""


def show_mirror(rows: Sequence[MirrorRow], as_json: bool) -> None:
    """Print the test of every attack as a table, or as JSON."""
    if as_json:
        print(json_text([row.to_json() for row in rows]))
        return
    print(table([_cells(row) for row in rows], HEADERS, right=(1, 2, 3, 5)))
    print("\n" + NOTES)


def _cells(row: MirrorRow) -> list[object]:
    test = row.test
    deviation = f"{test.deviation:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
    verdict = "" if row.passes else "the split shows"
    return [row.label, row.n, f"{test.auc:.3f}", f"{test.auc_mirror:.3f}", deviation, f"{row.adjusted:.3f}", verdict]
