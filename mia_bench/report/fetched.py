"""What `mia-bench fetch` prints: progress, then survival by class."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mia_bench.report.progress import LINE_EVERY_S
from mia_bench.report.text import bytes_text, json_text, pairs, printable, seconds_text, table

if TYPE_CHECKING:
    from mia_bench.engine.prefetch import Prefetched
    from mia_bench.fetch.ledger import Row
    from mia_bench.fetch.run import Fetched


@dataclass
class Lines:
    """Plain timed lines, at most one every ten seconds."""

    began: float = field(default_factory=time.monotonic)
    total: int = 0
    known: int = 0
    done: int = 0
    images: int = 0
    last: float = 0.0

    def start(self, total: int, known: int) -> None:
        self.total, self.known, self.began = total, known, time.monotonic()
        self.say(f"{total} urls to ask, {known} known already" if total else f"nothing to ask: all {known} are known")

    def step(self, row: Row) -> None:
        self.done += 1
        self.images += not row.error
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_S or self.done == self.total:
            self.last = now
            left = (now - self.began) / self.done * (self.total - self.done)
            self.say(f"{self.done}/{self.total} urls, {self.images} images, {seconds_text(left)} left")

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody can read this; the fetch goes on
            print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Called at the end, also after an error."""


@dataclass
class Bar(Lines):
    """A rich progress bar with the time left."""

    progress: Any = None

    def start(self, total: int, known: int) -> None:
        self.total, self.known = total, known
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = [
            TextColumn("fetching"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("urls, {task.fields[images]} images"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.progress.start()
        self.task = self.progress.add_task("", total=total, images=0)

    def step(self, row: Row) -> None:
        self.done += 1
        self.images += not row.error
        self.progress.update(self.task, completed=self.done, images=self.images)

    def stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()


@contextlib.contextmanager
def watching() -> Iterator[Lines]:
    """Show progress on standard error; after Ctrl-C say what is kept."""
    chosen = Bar() if sys.stderr.isatty() else Lines()
    try:
        yield chosen
    except KeyboardInterrupt:
        kept = f"{chosen.known + chosen.done} of {chosen.known + chosen.total} urls are in the ledger; "
        raise KeyboardInterrupt(f"{kept}run the same command again to resume") from None
    finally:
        chosen.stop()


def show_fetched(fetched: Fetched, as_json: bool) -> None:
    """Print what survived, what was lost to what, and what comes next."""
    if as_json:
        print(json_text(fetched.model_dump(mode="json")))
        return
    rows = [[s.kind, s.urls, s.tried, s.survived, _share(s.survived, s.tried, s.low, s.high)] for s in fetched.survival]
    print(table(rows, ["class", "urls", "tried", "survive", "share [95 % interval]"], right=(1, 2, 3)))
    if fetched.lost:
        print(f"\nlost: {', '.join(f'{word} {count}' for word, count in fetched.lost.items())}")
    if fetched.left:
        print(f"\n{fetched.left} urls are left for the next run: their hosts asked to wait")
    images = sum(s.survived for s in fetched.survival)
    print(f"\nfrozen: {images} images as list {fetched.list} in {printable(fetched.folder)}")
    partial = any(s.tried < s.urls for s in fetched.survival)  # without its name, a run fetches what it lacks
    print(f"next: mia-bench run --dataset {printable(shlex.quote(fetched.pinned if partial else fetched.dataset))}")


def show_prefetched(found: Prefetched, as_json: bool) -> None:
    """Print what of a target lies on this machine now."""
    if as_json:
        print(json_text(found.model_dump(mode="json")))
        return
    new = sum(found.files[name] for name in found.new)
    size = bytes_text(sum(found.files.values()))
    lines = {
        "target": found.target,
        "repository": found.repository,
        "revision": found.revision,
        "files": f"{len(found.files)}, {size}" if found.files else "none: it reads no weights from files",
        "fetched now": f"{len(found.new)}, {bytes_text(new)}" if found.new else "nothing: all is on this machine",
        "cache": found.cache if found.repository else "",
    }
    print(pairs(lines))
    print(f"\noffline: {printable(found.command)}")


def _share(count: int, total: int, low: float, high: float) -> str:
    return f"{100 * count / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" if total else "not tried"
