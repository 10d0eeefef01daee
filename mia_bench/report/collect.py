"""What a run would do (`--collect-only`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mia_bench.report.table import captions_text, division_text
from mia_bench.report.text import json_text, printable, seconds_text, table

if TYPE_CHECKING:
    from mia_bench.engine.estimate import Estimate
    from mia_bench.engine.prepare import Prepared


def show_plan(
    prepared: Prepared, as_json: bool, foreseen: Estimate | None = None, beside: Sequence[Prepared] = ()
) -> None:
    """Print the planned attacks with resolved parameters and their queries, and what they are expected to cost.

    `beside` are the controls of the run.
    """
    plan = prepared.plan
    if as_json:
        cost = {"estimate": {**asdict(foreseen), "seconds": foreseen.seconds}} if foreseen else {}
        added = [{"captions": one.plan.captions, "attacks": _read(one), "queries": _queries(one)} for one in beside]
        print(json_text(plan.model_dump(mode="json") | ({"controls": added} if added else {}) | cost))
        return
    n = len(plan.samples.id)
    rows = [
        [
            a.label,
            a.queries,
            f"{a.queries * int(plan.samples.first(a.samples).sum()):,}",
            ", ".join(f"{k}={v}" for k, v in a.params.items()),
        ]
        for a in plan.attacks
    ]
    print(printable(f"{plan.dataset} on {plan.target} ({plan.target_kind}): {n} samples\n"))
    print(table(rows, ["attack", "queries per image", "in all", "parameters"], right=(1, 2)))
    for one in beside:
        again = f"controls: {', '.join(_read(one))} again with {one.plan.captions} captions"
        print(printable(f"{again}, {_queries(one):,} queries more"))
    if plan.captions != "true":
        print(printable(captions_text(plan.captions)))
    if plan.division:
        print(division_text(plan.division))
    for skipped in plan.skipped:
        print(printable(f"skipped {skipped.label}: {skipped.reason}"))
    if foreseen:
        print("\n" + "\n".join(_cost(foreseen)))
    print(printable(f"\nrun folder: {prepared.store.folder}"))


def _read(control: Prepared) -> list[str]:
    return [a.label for a in control.plan.attacks if not a.control]


def _queries(control: Prepared) -> int:
    plan = control.plan
    return sum(a.queries * int(plan.samples.first(a.samples).sum()) for a in plan.attacks)


def _cost(foreseen: Estimate) -> list[str]:
    """What is left and how long it may take."""
    left = f"left to measure: {foreseen.samples:,} samples, at most"
    if foreseen.seconds is None:
        return [f"{left} {foreseen.queries:,} images to be made; how long one takes is the target's to know"]
    speed = ", ".join(f"{name} {seconds_text(s)}" for name, s in foreseen.seconds_per_row.items())
    return [
        f"{left} {foreseen.queries:,} queries",
        f"measured on this machine, per row in calls of {foreseen.rows}: {speed}",
        f"at most {seconds_text(foreseen.seconds)}, and what is decoded, compared, differentiated and fitted",
    ]
