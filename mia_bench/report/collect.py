"""What a run would do (`--collect-only`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench.report.table import division_text
from mia_bench.report.text import json_text, printable, table

if TYPE_CHECKING:
    from mia_bench.engine.run import Prepared


def show_plan(prepared: Prepared, as_json: bool) -> None:
    """Print the planned attacks with resolved parameters and their queries."""
    plan = prepared.plan
    if as_json:
        print(json_text(plan.model_dump(mode="json")))
        return
    n = len(plan.samples.id)
    rows = [
        [a.label, a.queries, f"{a.queries * n:,}", ", ".join(f"{k}={v}" for k, v in a.params.items())]
        for a in plan.attacks
    ]
    print(printable(f"{plan.dataset} on {plan.target} ({plan.target_kind}): {n} samples\n"))
    print(table(rows, ["attack", "queries per image", "in all", "parameters"], right=(1, 2)))
    if plan.division:
        print(division_text(plan.division))
    for skipped in plan.skipped:
        print(printable(f"skipped {skipped.label}: {skipped.reason}"))
    print(printable(f"\nrun folder: {prepared.store.folder}"))
