"""Runs that are killed and resumed, in forked children of a process that has imported torch and little else.

`killing.py FOLDER` prints one JSON record per kill; `test_killed.py` judges them.
"""

import gc
import importlib
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow.parquet as pq
import tiny

from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.store import Store

ATTACKS, BATCH, MEMBERS = "logged,loss,pia", 2, 6
BATCHES = 2 * MEMBERS // BATCH
COMPACTION = BATCHES + 2  # which rename it is: after the plan's and the shards'


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying_in(owner, name, number, *, before=True, spoil=None):
    """Replace a method by one that is killed in its call of this number."""
    original, calls = getattr(owner, name), [0]

    def call(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number and before:
            die()
        result = original(*args, **kwargs)
        if calls[0] == number:
            if spoil:
                os.truncate(args[1], int(spoil * Path(args[1]).stat().st_size))
            die()
        return result

    setattr(owner, name, call)


def kills():
    """(name, what the child does before it runs, seconds after which the parent kills it)."""
    yield from ((f"after batch {k}", lambda k=k: k, None) for k in range(1, BATCHES + 1))
    yield "within compaction", lambda: dying_in(pq.ParquetWriter, "write_table", BATCHES + 1, before=False), None
    for n in (1, 4, BATCHES + 1):  # the table of scores is the last
        yield f"within write {n}", lambda n=n: dying_in(pq, "write_table", n, before=False, spoil=n / 9), None
    for n in (1, 4, COMPACTION, COMPACTION + 2):  # the plan comes first, the result last
        yield f"before rename {n}", lambda n=n: dying_in(Path, "replace", n), None
    for n in (2, COMPACTION, COMPACTION + 1):
        yield f"after rename {n}", lambda n=n: dying_in(Path, "replace", n, before=False), None
    for n in (1, BATCHES - 1):
        yield f"before deletion {n}", lambda n=n: dying_in(Path, "unlink", n), None
    moments = random.Random(0)
    yield from ((f"moment {n}", lambda: None, moments.uniform(0.005, 0.12)) for n in range(6))


def child(work):
    """Fork, run `work` there, and return the process id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def measure(folder, log, arm=lambda: None):
    """Run to the end, unless armed otherwise."""
    os.environ["TINY_LOG"] = str(log)
    last = arm()
    made = tiny.registry(
        tiny.plugin(batch_measured=lambda event: die() if event.batch == last else None),
        samples=tiny.icons(MEMBERS, MEMBERS),
    )
    tiny.go(folder, made, attacks=ATTACKS, batch=BATCH)


def resume(folder, log, report):
    """Note what the kill left, then run to the end and note what the store holds."""
    made = tiny.registry(samples=tiny.icons(MEMBERS, MEMBERS))
    plan = prepare(made, RunOptions(attacks=ATTACKS, dataset="given", out=folder)).plan
    stored = Store(folder).done(a.fingerprint for a in plan.attacks)
    names = [sorted(i for i, _ in done) for done in stored.values()]
    measure(folder, log)
    asked = [sum(s["asked"].get(a.fingerprint, 0) for s in Store(folder).provenance().values()) for a in plan.attacks]
    left = [p.name for p in Path(folder).rglob("*.tmp")]
    shards = len(list(Path(folder, "measurements").iterdir()))
    report.write_text(json.dumps({"stored": names, "asked": asked, "left": left, "shards": shards}))


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def lines(path):
    return path.read_text().split() if path.exists() else []


def main(root):
    for module in ("mia_bench.batch", "pyarrow.dataset", "scipy.special"):  # once, not in every child
        importlib.import_module(module)
    tiny.icons(1, 0)[0].open()
    gc.freeze()  # else every child's first collection copies the whole heap
    assert ended(child(lambda: measure(root / "whole", root / "whole.log"))) == 0
    whole = (root / "whole" / "scores.parquet").read_bytes()
    for number, (name, arm, delay) in enumerate(kills()):
        folder, first, second = root / f"{number}", root / f"{number}.1", root / f"{number}.2"
        pid = child(lambda folder=folder, first=first, arm=arm: measure(folder, first, arm))
        if delay is not None:
            time.sleep(delay)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed = ended(pid)
        report = root / f"{number}.json"
        done = ended(child(lambda folder=folder, second=second, report=report: resume(folder, second, report)))
        record = {"name": name, "killed": killed, "resumed": done, "first": lines(first), "second": lines(second)}
        if done == 0:
            record |= json.loads(report.read_text())
            record["same"] = (folder / "scores.parquet").read_bytes() == whole
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
