"""Terms that an attack of a script's own measures on the audit set of an embedded target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.metrics import evaluate
from mia_bench.plugins import Registry
from mia_bench.store import Store, Terms

TARGETS = ("emoji-realworld", "emoji-overtrain", "emoji-mirror")


def terms_of(script: Path, attack: str, target: str, out: Path) -> tuple[Terms, NDArray[np.bool_]]:
    """What was measured, `(N, ...)` each, and who is a member."""
    run(Registry.load([script]), RunOptions(attacks=attack, target=target, out=out))
    store = Store(out)
    plan = read_plan(store)
    (planned,) = (a for a in plan.attacks if not a.control)
    found, terms = store.terms(planned.fingerprint, plan.samples.pairs)
    audit = (plan.samples.audit & found)[found]
    return {name: values[audit] for name, values in terms.items()}, plan.samples.is_member[found][audit]


def auc_of(values: NDArray[np.float64], member: NDArray[np.bool_]) -> dict[str, Any]:
    """AUC with its interval, higher = member."""
    auc = evaluate(values, member, n_resamples=1).auc
    return {"value": auc.value, "low": auc.low, "high": auc.high}
