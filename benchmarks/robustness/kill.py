"""Kills real runs with SIGKILL, resumes them, and compares with a run that nobody killed.

    python benchmarks/robustness/kill.py [--kills 24] [--limit 60] [--batch 8] [--seed 0]

Half of the kills come just after the k-th shard appeared, the others at random moments between start and end. Each
killed run is resumed by the same command. It must end with the same bytes in `scores.parquet`, with every query counted
once, and with no sample measured twice but those of the batch in flight. Takes about 20 s a kill on two cores.

This file is also the plugin that the runs load: an attack that notes which samples it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mia_bench import Attack, hookimpl
from mia_bench_plugins.attacks.loss import Loss

LOG = "KILL_LOG"
LONGEST_S = 300


class Noted(Loss):
    """The loss at one timestep; every sample measured is a line in the file that the environment names."""

    meta = Loss.meta.model_copy(update={"name": "noted", "summary": "loss, with a log of what is measured"})

    def measure(self, batch: Any, target: Any) -> dict[str, Any]:
        with Path(os.environ[LOG]).open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in batch.ids)
        return super().measure(batch, target)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Noted]


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    """`mia-bench run` of everything, writing to `folder`."""
    sizes = ["--limit", str(options.limit), "--batch", str(options.batch)]
    command = [str(Path(sys.executable).with_name("mia-bench")), "run", "-p", __file__, "--out", str(folder), *sizes]
    environment = {**os.environ, LOG: str(folder) + ".log"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def shards(folder: Path) -> int:
    return len(list((folder / "measurements").glob("[!.]*.parquet")))


def kill_after_shard(process: subprocess.Popen[str], folder: Path, k: int) -> None:
    while process.poll() is None and shards(folder) < k:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)


def kill_at(process: subprocess.Popen[str], moment_s: float) -> None:
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)


def asked(folder: Path) -> dict[str, tuple[float | None, int]]:
    """Queries per image and number of samples of every row."""
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {row["label"]: (row["queries"], row["n"]) for row in result["rows"]}


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a run; what it said.

    Raises:
        RuntimeError: It did not end well.
    """
    _, said = process.communicate(timeout=LONGEST_S)
    if process.returncode:
        raise RuntimeError(f"a run ended with {process.returncode}:\n{said}")
    return said


def main() -> int:
    """Kill, resume, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--kills", 24), ("--limit", 60), ("--batch", 8), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    batches, moments = -(-2 * options.limit // options.batch), random.Random(options.seed)
    faults, killed, attempts, repeated, stages = 0, 0, 0, Counter[int](), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        whole, began = Path(place) / "whole", time.perf_counter()
        finished(start(whole, options))
        wall_s = time.perf_counter() - began
        print(f"uninterrupted: {batches} batches of {options.batch}, {wall_s:.1f} s", flush=True)
        while killed < options.kills and attempts < 2 * options.kills:
            number, attempts = attempts, attempts + 1
            folder = Path(place) / str(number)
            process = start(folder, options)
            if number % 2 == 0:
                k = 1 + number // 2 * batches // max(1, (options.kills + 1) // 2) % batches
                how = f"after shard {k}"
                kill_after_shard(process, folder, k)
            else:
                moment_s = moments.uniform(0.1, 0.9) * wall_s
                how = f"at {moment_s:.1f} s"
                kill_at(process, moment_s)
            _, said = process.communicate(timeout=LONGEST_S)
            if process.returncode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"a run ended with {process.returncode}:\n{said}")
            died, left = process.returncode == -signal.SIGKILL, shards(folder)
            stage = "scored" if (folder / "results.json").exists() else "measuring" if left else "starting"
            finished(start(folder, options))
            same = (folder / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
            counted = asked(folder) == asked(whole)
            measured = Counter((Path(place) / f"{number}.log").read_text(encoding="utf-8").split())
            again = sum(n - 1 for n in measured.values())
            good = same and counted and again <= options.batch and max(measured.values()) <= 2
            killed, faults = killed + died, faults + (not good)
            repeated[again] += 1
            stages[stage] += died
            print(
                f"{how:>16}: {'killed' if died else 'was over'}, {stage} ({left} shards); "
                f"resumed: {'same' if same else 'OTHER'} bytes, queries counted {'once' if counted else 'WRONGLY'}, "
                f"{again} samples measured again",
                flush=True,
            )
    print(f"\n{killed} kills ({', '.join(f'{n} {s}' for s, n in sorted(stages.items()))}), {faults} faults")
    print("samples measured again: " + ", ".join(f"{n} x{count}" for n, count in sorted(repeated.items())))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
