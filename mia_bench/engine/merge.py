"""Shards measured apart become one run: their ids are complete and unique, then it is scored as any other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mia_bench.engine.caption_controls import folders
from mia_bench.engine.measure import Outcome, lacking
from mia_bench.engine.plan import Plan, read_plan
from mia_bench.engine.prepare import instances
from mia_bench.engine.run import beside_controls
from mia_bench.engine.score import score_run
from mia_bench.engine.shards import FOLDER, Shard, recorded
from mia_bench.engine.tasks import tasks_of
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.result import Result
from mia_bench.store import Store

SHOWN = 3  # ids in a message


def merge(
    registry: Registry,
    given: Sequence[Path],
    out: Path | None = None,
    incomplete: bool = False,
    positives: str = "members",
    negatives: str | None = None,
) -> tuple[Path, tuple[Result, ...]]:
    """Join what `run --shard` measured, check it and score it; controls that were measured beside it too.

    Args:
        registry: All plugins.
        given: One folder that all shards wrote to, or several.
        out: The run folder that several are joined to.
        incomplete: Score what there is if something is lacking.
        positives: What to find, as of a run.
        negatives: Among what.

    Returns:
        The run folder, and the results.

    Raises:
        UsageError: The folders are of different plans, or are being written to, or there is no telling where to join.
        UnavailableError: Samples are lacking, or were measured twice with different outcomes.
    """
    folder = out or given[0]
    if len(set(given)) > 1 and not out:
        raise UsageError("mia-bench merge", "several folders, and none to join them to", "name a new one with --out")
    results: tuple[Result, ...] = ()
    choices = {choice for one in given for choice, below in folders(one).items() if (below / "run.json").exists()}
    for choice in ("", *sorted(choices)):
        sources = [folders(one)[choice] for one in given] if choice else given
        if choice:  # one may lack it, as the check of what is measured says
            sources = [source for source in sources if (source / "run.json").exists()]
        found = _merged(
            registry, sources, folders(folder)[choice] if choice else folder, incomplete, positives, negatives
        )
        results = results or found
    return folder, beside_controls(Store(folder), results)


def _merged(
    registry: Registry, sources: Sequence[Path], folder: Path, incomplete: bool, positives: str, negatives: str | None
) -> tuple[Result, ...]:
    """One run, without its controls."""
    taken = {folder} if (folder / "run.json").exists() else set()
    plan, store = _one_plan([*sources, *taken], folder), Store(folder)
    with store.locked():
        store.write_json("run.json", plan.model_dump(mode="json"))  # a merge that fails is repeated in this folder
        for source in sources:
            if source.resolve() != folder.resolve():
                _copy(source, store)
        shards = recorded(plan, store)
        missing, outcome = _judged(plan, store, shards)
        unfinished = f"{len(missing)} of {len(plan.samples.id)} samples are not fully measured" if missing else ""
        if missing and not incomplete:
            raise UnavailableError(f"run folder {folder}", _which(missing, shards, plan), _how(plan))
        store.remove("results.json", "scores.parquet")
        store.compact(once=True)
        return score_run(
            plan, instances(registry, plan), store, outcome, unfinished, tasks_of(plan, positives, negatives)
        )


def _one_plan(sources: Sequence[Path], folder: Path) -> Plan:
    plans = {source: read_plan(Store(source)) for source in sources}
    first = next(iter(plans.values()))
    for source, plan in plans.items():
        if plan.digest == first.digest:
            continue
        mine, other = plan.model_dump(exclude={"command"}), first.model_dump(exclude={"command"})
        differing = ", ".join(name for name in mine if mine[name] != other[name])
        why = f"its plan is not that of {sources[0]}: {differing}"
        raise UsageError(f"run folder {source}", why, "merge shards of one command only")
    if first.shadow_folder:  # from the folder that it is named from to where it will be named
        shadow = os.path.relpath((sources[0] / first.shadow_folder).resolve(), folder.resolve())
        first = first.model_copy(update={"shadow_folder": shadow})
    return first


def _copy(source: Path, store: Store) -> None:
    """Measurements and records of another folder, under their own names."""
    with Store(source).locked():
        for below in (store.shards.name, FOLDER):
            for path in sorted((source / below).glob("[!.]*")):
                if path.suffix in (".parquet", ".json"):
                    store.replace(store.folder / below / path.name, partial(shutil.copyfile, path))


def _judged(plan: Plan, store: Store, shards: Mapping[Shard, Outcome | None]) -> tuple[list[str], Outcome]:
    """Samples that lack a measurement without a word of why, and what their own shards say of the others.

    What was said of a measurement that is there by now no longer counts.
    """
    labels = {a.fingerprint: a.label for a in reversed(plan.attacks)}
    finished = [(shard.owns(plan), told) for shard, told in shards.items() if told]
    missing, outcome = dict[str, None](), Outcome()
    for fingerprints, ids in lacking(plan, store).items():
        for sample in ids:
            told = [said for owned, said in finished if sample in owned]
            for label in (labels[f] for f in fingerprints):
                if why := next((one.attacks[label] for one in told if label in one.attacks), None):
                    outcome.attacks[label] = why
                    continue
                keys: tuple[tuple[str, str | None], ...] = ((sample, None), (sample, label))
                said = {key: one.samples[key] for one in told for key in keys if key in one.samples}
                outcome.samples.update(said)
                if not said:
                    missing[sample] = None
    return list(missing), outcome


def _which(missing: Sequence[str], shards: Mapping[Shard, Outcome | None], plan: Plan) -> str:
    ids = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    counts = {shard.count for shard in shards}
    division = [Shard(k, n) for n in counts for k in range(1, n + 1)] if len(counts) == 1 else []
    whose = [str(one) for one in division if not shards.get(one) and not one.owns(plan).isdisjoint(missing)]
    unfinished = f"; unfinished: shard {', '.join(whose)}" if whose else ""
    return f"{len(missing)} of {len(plan.samples.id)} samples are not fully measured ({ids}){unfinished}"


def _how(plan: Plan) -> str:
    again = f"run it again (`{plan.command}`)" if plan.command else "run it again as it was called"
    return f"{again} with each --shard that is lacking, or score what there is with --partial"
