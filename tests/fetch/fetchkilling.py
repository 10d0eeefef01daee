"""Fetches that are killed and resumed, in forked children of a process that has imported what they need.

`fetchkilling.py FOLDER HOST:PORT` prints one JSON record per kill; `test_fetch_killed.py` judges them.
"""

import gc
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from quiet import Quiet
from urlplugin import Urls

from mia_bench.fetch import run as fetching
from mia_bench.fetch.guard import parse_origin
from mia_bench.fetch.ledger import Ledger
from mia_bench.fetch.run import FetchOptions, fetch

ROWS = [
    ("a", "members", "JPEG"),
    ("b", "nonmembers", "PNG"),
    ("c", "members", "WEBP"),
    ("d", "nonmembers", "404"),
    ("e", "members", "html"),
    ("f", "nonmembers", "503-then"),
    ("g", "members", "reset-then"),
    ("h", "nonmembers", "chain"),
    ("i", "members", "same"),
    ("j", "nonmembers", "same"),
    ("k", "nonmembers", "noai"),
    ("l", "members", "small"),
]
IMAGES = 8  # that are kept


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying_in(owner, name, number, *, before=True):
    """Replace a method by one that is killed in its call of this number."""
    original, calls = getattr(owner, name), count(1)

    def call(*args, **kwargs):
        mine = next(calls)  # two threads decode: each call keeps its own number
        if mine == number and before:
            die()
        result = original(*args, **kwargs)
        if mine == number:
            die()
        return result

    setattr(owner, name, call)


def torn(number, share):
    """Only a part of a line is written."""
    original, calls = Ledger._write, [0]

    def write(self, line):
        calls[0] += 1
        if calls[0] == number:
            original(self, line[: int(share * len(line))])
            die()
        original(self, line)

    Ledger._write = write


def kills():
    """(name, what the child does before it fetches, seconds after which the parent kills it)."""
    for n in (1, 6, 12):
        yield f"after row {n}", lambda n=n: dying_in(Ledger, "append", n, before=False), None
    for n, share in ((1, 0.5), (7, 0.01), (12, 0.7)):
        yield f"within row {n}", lambda n=n, share=share: torn(n, share), None
    yield "a whole line without its end", lambda: torn(4, 0.9999), None
    for n in (1, IMAGES, IMAGES + 1, IMAGES + 2):  # the list and what names it come last
        yield f"before rename {n}", lambda n=n: dying_in(Path, "replace", n), None
    for n in (1, IMAGES + 1, IMAGES + 2):
        yield f"after rename {n}", lambda n=n: dying_in(Path, "replace", n, before=False), None
    moments = random.Random(0)
    yield from ((f"moment {n}", lambda: None, moments.uniform(0.02, 0.3)) for n in range(4))


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


def run(folder, origin, arm=lambda: None):
    os.environ["MIA_BENCH_CACHE"] = str(folder / "cache")
    arm()
    options = FetchOptions(allow_origin=parse_origin(origin), timeout=20.0, workers=4)
    return fetch(Urls(str(folder / "urls.jsonl")), options, Quiet())


def resume(folder, origin, report):
    """Note what the kill left, then fetch to the end and note what is there."""
    os.environ["MIA_BENCH_CACHE"] = str(folder / "cache")
    dataset = Urls(str(folder / "urls.jsonl"))
    ledger = Ledger(dataset.folder / "ledger.jsonl")
    record = {"stored": sorted(ledger.rows()), "resumed_at": time.monotonic()}
    fetched = run(folder, origin)
    record["list"] = fetched.list
    record["rows"] = {i: [r.kind, r.error, r.sha256, r.bytes, r.width] for i, r in ledger.rows().items()}
    record["again"] = run(folder, origin).asked
    samples = dataset.samples()
    record["samples"] = [[s.id, s.content, s.open().size[0]] for s in samples]
    record["left"] = [p.name for p in folder.rglob("*.tmp")]
    report.write_text(json.dumps(record))


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(root, origin):
    from urlserver import picture

    picture("warm")
    fetching.BACKOFF_S = 0.01
    gc.freeze()
    for number, (name, arm, delay) in enumerate([("never", lambda: None, None), *kills()]):
        folder, report = root / f"s{number}", root / f"s{number}.json"
        folder.mkdir()
        lines = ([i, kind, f"http://{origin}/s{number}/{i}/{what}"] for i, kind, what in ROWS)
        (folder / "urls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        pid = child(lambda folder=folder, arm=arm: run(folder, origin, arm))
        if delay is not None:
            time.sleep(delay)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed = ended(pid)
        done = ended(child(lambda folder=folder, report=report: resume(folder, origin, report)))
        record = {"name": name, "number": number, "killed": killed, "resumed": done}
        if done == 0:
            record |= json.loads(report.read_text())
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
