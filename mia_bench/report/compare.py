"""The table of a comparison with a baseline."""

from __future__ import annotations

from mia_bench.engine.compare import FITTED, RANKS, ComparedRow, Comparison
from mia_bench.metrics.gate import POWER, RELATIVE, RELATIVE_AT_MOST
from mia_bench.report.markdown import markdown, markdown_table
from mia_bench.report.text import json_text, printable, table

SCORES = ("attack", "N", "AUC before", "AUC now", "moved", "furthest / tolerance", "")
TESTS = ("attack", "metric", "N", "before", "now", "change [95 % interval]", "p (Holm)", "detectable", "")
RIGHT = {"same scores": (1, 2, 3, 4, 5), "leakage": (2, 3, 4, 6, 7)}


def show_comparison(found: Comparison, form: str) -> None:
    """Print a comparison as `text`, `md` or `json`."""
    if form == "json":
        print(json_text(found.to_json()))
        return
    cells = _scores if found.question == "same scores" else _tests
    body = [[str(cell) for cell in cells(row)] for row in found.rows]
    headers = SCORES if found.question == "same scores" else TESTS
    notes = _notes(found)
    if form == "md":
        rows = [[markdown(cell) for cell in line] for line in body]
        print(f"## {markdown(_title(found))}\n")
        if rows:
            print(markdown_table(rows, [markdown(h) for h in headers]) + "\n")
        print("\n".join(f"- {markdown(line.strip())}" for line in notes))
        return
    print(printable(_title(found)) + "\n")
    if body:
        print(table(body, headers, right=RIGHT[found.question]) + "\n")
    print("\n".join(printable(line) for line in notes))


def _title(found: Comparison) -> str:
    asked = "one target, so the same scores" if found.question == "same scores" else "another target, so its leakage"
    return f"{found.current} against baseline {found.baseline}: {asked}"


def _scores(row: ComparedRow) -> list[object]:
    numbers: list[object] = [row.n or "", _share(row.before), _share(row.after)]
    moved = [row.moved, f"{row.furthest:.2g}"] if row.n else ["", ""]
    return [row.label, *numbers, *moved, _verdict(row)]


def _tests(row: ComparedRow) -> list[object]:
    line: list[object] = [row.label, row.metric, row.n or ""]
    if not row.tested:
        return [*line, "", "", "", "", "", _verdict(row)]
    change, least = row.tested.change, row.tested.detectable
    low, high = change.interval()
    moved = f"{change.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    detectable = f"{least:.3f}" if least is not None else "same ranks" if change.spread == 0 else "–"
    detectable += " !" if change.note else ""
    numbers = [f"{change.before:.3f}", f"{change.after:.3f}", moved, f"{row.tested.adjusted:.2g}", detectable]
    return [*line, *numbers, _verdict(row)]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _verdict(row: ComparedRow) -> str:
    return row.verdict.upper() if row.regressed else row.verdict


def _notes(found: Comparison) -> list[str]:
    gate = found.gate
    if found.question == "same scores":
        said = [
            f"a score may differ by {gate.tolerance:g} of the spread (interquartile range) of the attack's scores, and "
            f"by {RELATIVE:g} of itself (at most {RELATIVE_AT_MOST:.0%} of the spread); by "
            f"{gate.tolerance * FITTED:g} of the spread if it fits scales or weights",
            f"a trained classifier's score may pass {RANKS:.0%} of the others: training makes rounding errors large",
        ]
    else:
        beyond = f" by more than {gate.margin:g}" if gate.margin else ""
        way = {"rise": "risen", "drop": "dropped", "both": "changed"}[gate.fail_on]
        said = [
            f"tested: whether a metric has {way}{beyond}, paired on the samples; p adjusted for all tests (Holm), "
            f"a false alarm in at most {gate.alpha:g} of comparisons",
            f"detectable: smallest true change that this test would find with {POWER:.0%} power; –: it would find even "
            "the largest less often",
            "over samples: how another training of the same recipe would vary, it does not say",
        ]
    said += dict.fromkeys(f"! {row.tested.change.note}" for row in found.rows if row.tested and row.tested.change.note)
    said += [f"new, not in the baseline: {', '.join(found.new)}"] if found.new else []
    said += dict.fromkeys(f"not compared {row.label}: {row.why}" for row in found.rows if not row.compared)
    said += [line for row in found.regressed if not row.tested for line in row.lines()]
    failed, missed = len(found.regressed), len(found.missed)
    if compared := sum(row.compared for row in found.rows):
        count = f"{failed} of {compared} regressed" if failed else f"{compared} compared, none regressed"
        said.append(f"{count}; {missed} could not be compared" if missed else count)
    return said
