"""What a result's measurements cost, from the records of the shards that hold them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from mia_bench.engine.plan import Plan
from mia_bench.imported import IMPORTED
from mia_bench.result import Cost
from mia_bench.store import MEASURED, Store


class Ledger:
    """The shards behind one result, and the share of each that is the result's own.

    A folder may hold more than a result describes: samples beyond `--limit`, other attacks. A shard is recorded as a
    whole, so all its figures are scaled by the share of its stored samples that the plan has. Where it also holds
    attacks that are no rows of the result, measuring and the networks are scaled by the share of queries that the rows
    asked, and how many queries were run is not known: attacks share them.

    Args:
        plan: The result's plan.
        store: The run folder.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.rows = {a.fingerprint for a in plan.attacks}
        wanted, records = set(plan.samples.pairs), store.provenance()
        self.shards: list[tuple[float, dict[str, Any]]] = []
        # Of each shard, for each measurement that it holds: samples of the plan, share of its own samples.
        self.own: list[tuple[dict[str, Any], dict[str, tuple[int, float]]]] = []
        self.images = set[tuple[str, str]]()
        for name, by_fingerprint in store.held(self.rows).items():
            if records[name].get(IMPORTED):  # what its scores cost, nobody here knows
                continue
            everything = set().union(*by_fingerprint.values())
            if not (mine := everything & wanted):
                continue
            self.images |= mine
            # Samples that another shard measured too are stored once, but both have asked for them.
            once = records[name].get(MEASURED, {})
            measured = {f: max(once.get(f, 0), len(held)) for f, held in by_fingerprint.items()}
            self.shards.append((len(mine) / max(len(everything), *measured.values()), records[name]))
            inside = {f: len(held & wanted) for f, held in by_fingerprint.items()}
            self.own.append((records[name], {f: (n, n / measured[f]) for f, n in inside.items()}))

    def price(self, *fingerprints: str) -> dict[str, float | None]:
        """Queries, backward passes and seconds per image of one measurement, or of several together."""
        each = [self._price(fingerprint) for fingerprint in fingerprints]
        return {
            name: None if any(one[name] is None for one in each) else sum(one[name] or 0.0 for one in each)
            for name in ("queries", "backward", "seconds")
        }

    def _price(self, fingerprint: str) -> dict[str, float | None]:
        """Of one measurement, over the images it was stored for.

        What was asked for a batch that came to nothing is no part of it; what was asked for a sample whose output was
        not finite is.
        """
        mine = [(shard, *own[fingerprint]) for shard, own in self.own if fingerprint in own]
        images = sum(count for _, count, _ in mine)
        if not images:
            return {"queries": None, "backward": None, "seconds": None}
        own = sum(share * s["own"][fingerprint] for s, _, share in mine)
        asked = sum(share * s["asked"][fingerprint] for s, _, share in mine)
        # Shared queries are charged to each attack that asks, as if it ran alone; gradients are never shared. Pictures
        # that several attacks decode or look at are charged to the first.
        seconds = sum(share * _seconds_per_query(s) * s["asked"][fingerprint] for s, _, share in mine)
        backward = sum(share * s["backward"][fingerprint] for s, _, share in mine)
        pictures = sum(share * s.get("pictures", {}).get(fingerprint, 0.0) for s, _, share in mine)
        spent = seconds + pictures if asked and not backward else own
        return {"queries": asked / images, "backward": backward / images, "seconds": spent / images}

    def total(self) -> Cost:
        """All rows together."""
        counts = dict.fromkeys(("asked", "executed", "padding", "backward"), 0.0)
        stages, networks = defaultdict[str, float](float), defaultdict[str, float](float)
        mixed = False
        for share, shard in self.shards:
            asked, everything = _sum(shard["asked"], self.rows), sum(shard["asked"].values())
            others = shard["asked"].keys() - self.rows
            part = share * asked / everything if others and everything else share
            mixed |= bool(others)
            counts["asked"] += share * asked
            counts["executed"] += share * _run(shard)
            counts["padding"] += part * shard["networks"]["denoiser"]["padding"]
            counts["backward"] += share * _sum(shard["backward"], self.rows)
            for stage, seconds in shard["seconds"].items():
                stages[stage] += seconds * (part if stage == "measure" else share)
            for name, spent in shard["networks"].items():
                networks[name] += spent["seconds"] * part
        whole: dict[str, Any] = {name: round(count) for name, count in counts.items()} | {"images": len(self.images)}
        return Cost(**whole | ({"executed": None} if mixed else {}), stages=stages, networks=networks)

    def environments(self) -> tuple[dict[str, Any], ...]:
        """Distinct environments that measured it."""
        found = {json.dumps(s["environment"], sort_keys=True): s["environment"] for _, s in self.shards}
        return tuple(found[key] for key in sorted(found))


def _sum(counts: Mapping[str, int], fingerprints: Collection[str]) -> int:
    return sum(n for fingerprint, n in counts.items() if fingerprint in fingerprints)


def _seconds_per_query(shard: Mapping[str, Any]) -> float:
    """Of the attacks without gradients, and without what they decode and compare."""
    graded = [fingerprint for fingerprint, passes in shard["backward"].items() if passes]
    seconds = shard["seconds"].get("measure", 0.0) - sum(shard["own"][f] for f in graded)
    seconds -= sum(spent for f, spent in shard.get("pictures", {}).items() if f not in graded)
    return float(seconds / max(1, _run(shard) - sum(shard["asked"][f] for f in graded)))


def _run(shard: Mapping[str, Any]) -> int:
    return int(shard["networks"]["denoiser"]["rows"])
