"""`run --shard i/n`: a share of a run's samples, measured by a process of its own; what a merge should know of it.

The plan is of the whole run and the same for all; which samples are whose follows from it and from `i/n` alone. So many
can write to one folder, and none needs to know of another.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mia_bench.engine.measure import Outcome
from mia_bench.engine.plan import Plan
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.locks import held_parts
from mia_bench.store import Store

FOLDER = "shards"  # of records in the run folder
LOOKS = 3  # at who measures there, a second apart


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`, from 1 on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `i/n`.

        Raises:
            UsageError: It is not of this form.
        """
        if (found := re.fullmatch(r"(\d+)/(\d+)", text)) and 1 <= int(found[1]) <= int(found[2]):
            return cls(int(found[1]), int(found[2]))
        raise UsageError(f"--shard {text}", "not a share of the samples", "write i/n with i from 1 to n, as 1/4")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.number}-of-{self.count}"

    def owns(self, plan: Plan) -> frozenset[str]:
        """Ids of its samples: all shares together are the plan, none overlap, and sizes differ by one at most."""
        ids = sorted(plan.samples.id, key=lambda i: hashlib.sha256(i.encode()).digest())
        return frozenset(ids[self.number - 1 :: self.count])


def record(shard: Shard, plan: Plan, store: Store, outcome: Outcome | None = None) -> None:
    """Note that a shard has begun or, with what it could not measure, that it is finished."""
    content = {"shard": str(shard), "plan": plan.digest, "finished": outcome is not None}
    if outcome:
        content["samples"] = [[sample, label, why] for (sample, label), why in outcome.samples.items()]
        content["attacks"] = outcome.attacks
    store.write_json(f"{FOLDER}/{shard.name}.json", content)


def recorded(plan: Plan, store: Store) -> dict[Shard, Outcome | None]:
    """The shards of a plan that have begun; None of those that are not finished.

    Raises:
        UnavailableError: A record is damaged.
    """
    found: dict[Shard, Outcome | None] = {}
    for path in sorted((store.folder / FOLDER).glob("*.json")):
        content: Mapping[str, Any] = store.read_json(f"{FOLDER}/{path.name}", "delete it")
        try:
            if content["plan"] != plan.digest:
                continue
            outcome = None
            if content["finished"]:
                samples = {(sample, label): why for sample, label, why in content["samples"]}
                outcome = Outcome(samples, dict(content["attacks"]))
            found[Shard.parse(content["shard"])] = outcome
        except (KeyError, TypeError, ValueError) as error:
            why = f"not the record of a shard: {error}"
            raise UnavailableError(f"file {path}", why, f"delete it and measure {path.stem} again") from error
    return found


def begin(shard: Shard, plan: Plan, store: Store) -> None:
    """Note that a shard has begun, unless others measure another plan in the folder.

    It is noted before they are looked for: of two that begin at once, each sees the other's plan.

    Raises:
        UsageError: Somebody measures another; what was noted before stays.
    """
    name = f"{FOLDER}/{shard.name}.json"
    before = store.read_json(name, "delete it") if (store.folder / name).exists() else None
    record(shard, plan, store)
    for attempt in range(LOOKS):
        held = held_parts(store.folder, shard.name)
        others = sorted(p.stem for p in (store.folder / FOLDER).glob("*.json") if p.stem in held)
        differing = [other for other in others if _measures_another(store, other, plan)]
        if not differing:
            return
        if attempt < LOOKS - 1:
            time.sleep(1)  # whoever looks, as this does, holds a part for a moment
    if before:
        store.write_json(name, before)
    else:
        store.remove(name)
    why = f"shard {differing[0].replace('-of-', '/')} of another plan is measured there"
    raise UsageError(
        f"run folder {store.folder}", why, "give all shards the same options, or choose another folder with --out"
    )


def _measures_another(store: Store, name: str, plan: Plan) -> bool:
    noted = store.read_json(f"{FOLDER}/{name}.json", "delete it")
    return noted.get("plan") != plan.digest and not noted.get("finished")
