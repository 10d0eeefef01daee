"""What a user wants compared: `--positives`, `--negatives`."""

from __future__ import annotations

from mia_bench.engine.plan import Plan
from mia_bench.errors import NothingError, UsageError
from mia_bench.result import MEMBERSHIP, Task


def tasks_of(plan: Plan, positives: str = "members", negatives: str | None = None) -> tuple[Task, ...]:
    """The tasks asked for, in the order they are shown.

    Args:
        plan: Its samples decide what can be compared.
        positives: `members`, or `memorised`: with other members and with non-members, unless `negatives` names one.
        negatives: `nonmembers` or `members`.

    Raises:
        UsageError: Members would be compared with members.
        NothingError: There is no memorised sample, or nothing to compare one with.
    """
    if positives == "members":
        if negatives == "members":
            raise UsageError("--negatives members", "members are the positives", "add --positives memorised")
        return (MEMBERSHIP,)
    what = f"--positives {positives}" + (f" --negatives {negatives}" if negatives else "")
    names = [negatives] if negatives else ["members", "nonmembers"]
    tasks = [Task.model_validate({"positives": positives, "negatives": name}) for name in names]
    if not plan.samples.sides(tasks[0])[0].any():
        fix = f"leave out --positives, or use a dataset with samples of split `{positives}`"
        raise NothingError(what, f"dataset {plan.dataset} has no {tasks[0].names[0]}", fix)
    possible = tuple(task for task in tasks if plan.samples.sides(task)[1].any())
    if not possible:
        why = f"dataset {plan.dataset} has no {' or '.join(task.names[1] for task in tasks)} to compare with"
        raise NothingError(what, why, "audit some, or compare with others: --negatives")
    return possible
