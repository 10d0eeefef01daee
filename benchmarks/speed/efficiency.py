"""How much of a run is network time, for every attack: `python benchmarks/speed/efficiency.py [--target mid]`.

For every attack as `--attacks all` plans it, and for all at once (without controls):

* efficiency: seconds that the bare networks (U-Net, VAE, text encoder, picture encoders; forward, and backward where
  an attack takes gradients) need for the executed rows, each at the best batch and threading found for it, divided by
  the seconds of a run from its first batch to its last.
* of processor: the same ratio of processor seconds: what the harness computes beside, without waiting.
* naive: seconds per image of the same attack asked as published scripts ask: one image, one timestep, one caption
  at a time, all cores in each call, nothing shared; divided by the run's. For the main likelihood attacks also a loop
  written by hand, which encodes image and caption anew for every query (`naive.py`).
* memory: the peak of the process during the run; with `--memory` that of `mia-bench run` in a process of its own, and
  its seconds from start to table.

Bare, run and naive alternate, with half of the bare work before the run and half behind it, because single timings
vary by half; a figure is the median of the rounds' ratios with the interval that the sign test gives. Attacks of few
queries are run in every round; the others, and the whole suite, in some. The same command goes on where it was stopped,
if there is an `--out`.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import naive
import torch
from bare import Bare, alone
from mid import make
from once import Counting, command, only, run_once
from timing import Record, coverage, shown, spread

from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.provenance import environment
from mia_bench.plugins import Registry
from mia_bench.report.text import table

ALL = "all"
CHEAP = 20  # queries: attacks that ask no more of all images are run on more, in all rounds
OTHERS = (0, 2, 6)  # rounds of the others, whose runs are long
NAIVE_IMAGES = 1  # of each class and split


class Suite:
    """The attacks of one target, together and one by one."""

    def __init__(
        self,
        target: str,
        attacks: str,
        limit: int,
        threads: int,
        rows: int | None = None,
        search: float = 0.2,
        cheap_limit: int | None = None,
    ) -> None:
        self.search = search
        self.registry = Registry.load()
        self.options = RunOptions(
            attacks=attacks,
            target=target,
            dataset="fluent-emoji",
            limit=limit,
            threads=threads,
            rows=rows,
            device="cpu",
        )
        planned = only(self.opened).plan.attacks
        self.labels = list({a.fingerprint: a.label for a in reversed(planned)}.values())[::-1]  # measured once
        self.queries = {a.label: a.queries for a in planned}
        self.capped = {a.label for a in planned if a.samples}  # more images would not fill their last calls
        self.cheap_limit = cheap_limit or limit
        self._bare: dict[str, list[Bare]] = {}
        self._ready: dict[int | None, Prepared] = {}

    def cheap(self, label: str) -> bool:
        """Whether an attack is run on more images, in all rounds."""
        return label != ALL and label not in self.capped and self.queries[label] <= CHEAP

    def limit(self, label: str) -> int:
        """Samples of each class in each split."""
        return self.cheap_limit if self.cheap(label) else int(self.options.limit or 0)

    def only(self, label: str, limit: int | None) -> Prepared:
        """The plan of one attack, or of all, without controls; all share a target, which each run opens anew."""
        if limit not in self._ready:
            self._ready[limit] = prepare(self.registry, replace(self.options, limit=limit))
        return only(self._ready[limit], self.labels if label == ALL else [label])

    @cached_property
    def opened(self) -> Prepared:
        """With a target of its own, for networks alone."""
        ready = prepare(self.registry, self.options)
        ready.target.encoders = dict(ready.encoders)
        ready.target.open(threads=1)
        return ready

    def bare(self, label: str, record: Record) -> list[Bare]:
        """What a run of this attack executes, each network at its best; the first call counts and warms up."""
        if label not in self._bare:
            ready = self.only(label, self.limit(label))
            counting = Counting(ready)
            with counting():
                run = run_once(self.registry, ready, self.options)
            networks = [Bare(self.opened.target, work, self.options.threads or 1) for work in counting.found(run)]
            for network in networks:
                shapes = [list(x.shape[1:]) for x in network.work.row[0] if isinstance(x, torch.Tensor)]
                batch = f" {network.work.batch}" if network.work.batch else ""
                name = f"{network.name}{batch} {shapes}"
                best = record.once(f"best: {name}", lambda network=network: asdict(network.find(self.search)))
                network.way = type(network.way)(**best)
            self._bare[label] = networks
        return self._bare[label]

    def round(self, label: str, record: Record, plainly: bool = True) -> dict[str, Any]:
        """One pair: half of the bare networks' work, the run, the other half; then the naive way."""
        networks = self.bare(label, record)
        before = alone(networks, 0.5)
        run = run_once(self.registry, self.only(label, self.limit(label)), self.options)
        wall, processor = (a + b for a, b in zip(before, alone(networks, 0.5), strict=True))
        found = {"bare_s": wall, "bare_processor_s": processor, "run": asdict(run)}
        if label != ALL and plainly:
            found["naive_s_per_image"] = naive.by_harness(self.registry, self.only(label, NAIVE_IMAGES), self.options)
            if label in naive.LOOPS:
                found["by_hand_s_per_image"] = naive.by_hand(label, self.opened, NAIVE_IMAGES)
        return found

    def memory(self, label: str) -> dict[str, float]:
        """Peak and seconds of the command in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            given = self.options
            attacks = ",".join(self.labels) if label == ALL else label
            return command(
                [
                    *("run", "--attacks", attacks, "--target", str(given.target), "--dataset", str(given.dataset)),
                    *("--limit", str(given.limit), "--threads", str(given.threads), "--device", "cpu"),
                    *(("--rows", str(given.rows)) if given.rows else ()),
                    *("--out", f"{folder}/run", "--json"),
                ]
            )


def summary(label: str, rounds: Sequence[dict[str, Any]], memory: dict[str, float] | None) -> dict[str, Any]:
    """The figures of one row."""
    run = rounds[0]["run"]
    per_image = [r["run"]["seconds"] / r["run"]["images"] for r in rounds]
    row = {
        "label": label,
        "images": run["images"],
        "asked": run["asked"] / run["images"],
        "executed": run["rows"]["denoiser"] / run["images"],
        "backward": run["backward"] / run["images"],
        "padding": run["padding"]["denoiser"] / max(1, run["rows"]["denoiser"] + run["padding"]["denoiser"]),
        "seconds": statistics.median(r["run"]["seconds"] for r in rounds),
        "seconds_per_image": statistics.median(per_image),
        "images_per_second": 1 / statistics.median(per_image),
        "efficiency": spread([r["bare_s"] / r["run"]["seconds"] for r in rounds]),
        # Of processor time: what the harness computes beside the networks, without waiting.
        "processor": spread([r["bare_processor_s"] / r["run"]["processor"] for r in rounds]),
        "memory": memory or {"peak_mb": max(r["run"]["peak_mb"] for r in rounds)},
    }
    for name in ("naive", "by_hand"):
        if f"{name}_s_per_image" in rounds[0]:
            row[name] = spread([r[f"{name}_s_per_image"] / s for r, s in zip(rounds, per_image, strict=True)])
    return row


def summarise(record: Record, labels: Sequence[str], pairs: int) -> dict[str, Any]:
    """Rows of all attacks, and the suite against its attacks one by one."""
    rounds = {label: [record.steps.get(f"round {n}: {label}") for n in range(pairs)] for label in labels}
    rows = [
        summary(label, found, record.steps.get(f"memory: {label}"))
        for label, of in rounds.items()
        if (found := [one for one in of if one])
    ]
    figures: dict[str, Any] = {"attacks": rows, "coverage": coverage(pairs) if pairs > 1 else None}
    whole = [n for n in range(pairs) if all(of[n] for of in rounds.values())]
    if ALL in labels and len(labels) > 2 and whole:

        def seconds(label: str, n: int) -> float:
            """On as many images as all at once."""
            run, images = rounds[label][n]["run"], rounds[ALL][n]["run"]["images"]  # type: ignore[index]
            return float(run["seconds"] * min(1.0, images / run["images"]))

        apart = [sum(seconds(label, n) for label in labels if label != ALL) for n in whole]
        together = [seconds(ALL, n) for n in whole]
        figures["suite"] = {
            "together_over_apart": spread([a / b for a, b in zip(together, apart, strict=True)]),
            "together_s": statistics.median(together),
            "apart_s": statistics.median(apart),
        }
    return figures


def text(figures: dict[str, Any]) -> str:
    """For the terminal."""
    rows = []
    for row in figures["attacks"]:
        memory = row["memory"]
        rows.append(
            [
                row["label"],
                f"{row['asked']:.3g}",
                f"{row['executed']:.3g}",
                f"{row['seconds']:.2f}",
                f"{row['images_per_second']:.3g}",
                shown(row["efficiency"], 3),
                shown(row["processor"], 3),
                shown(row.get("naive")),
                shown(row.get("by_hand")),
                f"{memory['peak_mb']:.0f}" if memory else "–",
            ]
        )
    heads = [
        "attack",
        "asked",
        "executed",
        "seconds",
        "images/s",
        "efficiency",
        "of processor",
        "naive",
        "by hand",
        "peak MB",
    ]
    said = table(rows, heads, right=(1, 2, 3, 4, 9))
    if suite := figures.get("suite"):
        said += f"\n\nall at once: {shown(suite['together_over_apart'], 3)} of the seconds of its attacks one by one"
        said += f" ({suite['together_s']:.1f} of {suite['apart_s']:.1f} s)"
    return said


@click.command()
@click.option("--target", default="emoji-realworld", show_default=True, help="A target, `mid`, `tiny`, or a pipeline.")
@click.option("--attacks", default="all", show_default=True, help="As for `mia-bench run`.")
@click.option("--pairs", default=6, show_default=True, help="Rounds of bare and run.")
@click.option("--limit", type=int, help="Samples of each class in each split.  [default: what fills all calls]")
@click.option("--rows", type=int, help="Rows per call.  [default: 10 of `mid`, else as the harness chooses]")
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--search", default=0.2, show_default=True, help="Seconds for each way to call a network, to find the best."
)
@click.option("--naive/--no-naive", "plainly", default=True, help="Whether to run each the naive way, too.")
@click.option("--memory/--no-memory", default=False, help="Whether to run each in a process of its own, too.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def main(
    target: str,
    attacks: str,
    pairs: int,
    limit: int | None,
    rows: int | None,
    threads: int,
    search: float,
    plainly: bool,
    memory: bool,
    out: Path | None,
) -> None:
    # 4 x 26 + 24 memorised are a call of 64 rows for each of two threads, 4 x 122 + 24 four; 5 x 8 two of 10 rows.
    cheap = limit or (12 if target == "mid" else 122)
    limit, rows = limit or (8 if target == "mid" else 26), rows or (10 if target == "mid" else None)
    with tempfile.TemporaryDirectory() as folder:
        about = {
            "benchmark": "speed/efficiency",
            "target": target,
            "attacks asked": attacks,
            "limit": limit,
            "limit of cheap attacks": cheap,
            "rows": rows,
            "environment": {**environment("cpu"), "threads": threads},
        }
        record = Record(out, about)
        where = target
        if target in ("mid", "tiny"):
            where = str(Path(folder) / target)
            record.write(parameters=make(Path(where), target))
        suite = Suite(where, attacks, limit, threads, rows, search, cheap)
        labels = [*suite.labels, *([ALL] if len(suite.labels) > 1 else [])]
        for number in range(pairs):
            for label in labels:
                if number not in OTHERS and not suite.cheap(label):
                    continue
                record.once(f"round {number}: {label}", lambda label=label: suite.round(label, record, plainly))
                record.write(figures=summarise(record, labels, number + 1))
                last = record.data["figures"]["attacks"][labels.index(label)]
                print(
                    f"round {number + 1} of {pairs}, {label}: efficiency {last['efficiency']['all'][-1]:.3f}",
                    flush=True,
                )
        for label in labels if memory else ():
            record.once(f"memory: {label}", lambda label=label: suite.memory(label))
        record.write(figures=summarise(record, labels, pairs))
    print(text(record.data["figures"]))


if __name__ == "__main__":
    main()
