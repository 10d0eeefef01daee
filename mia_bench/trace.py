"""Where the time goes: named spans, recorded only while somebody asks (`run --profile`).

`with span("denoiser"):`, or `@span("storing")` on a function. Spans nest, in each thread on their own. What is recorded
are plain dictionaries, so that processes can send theirs to another, which merges them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ContextDecorator, contextmanager
from dataclasses import dataclass
from typing import TypedDict

MOST = 200_000  # spans that are kept one by one, about 80 MB; of further ones the sums


class Event(TypedDict):
    """A span, or the sum of several.

    Attributes:
        name: What was done.
        began: Seconds since the epoch; None for a sum.
        seconds: From beginning to end.
        own: Of them, seconds outside spans within.
        count: Spans in it.
        waits: Whether other threads did the work meanwhile.
        pid: Process.
        thread: Number of the thread.
        thread_name: Its name.
        main: Whether it is the thread that records.
    """

    name: str
    began: float | None
    seconds: float
    own: float
    count: int
    waits: bool
    pid: int
    thread: int
    thread_name: str
    main: bool


@dataclass
class _Open:
    """A span that goes on."""

    span: span
    began: float
    inside: float = 0.0


class Recorder:
    """Keeps the spans of this process, and what others send.

    Args:
        began: When to begin, in seconds since the epoch; what lies before now is start-up.
        most: Spans kept one by one.

    Attributes:
        began, ended: Seconds since the epoch.
    """

    def __init__(self, began: float | None = None, most: int = MOST) -> None:
        # Durations by the steady clock; the epoch's lets processes be laid side by side.
        self._offset = time.time() - time.perf_counter()
        self.ended: float | None = None
        self.began, self.most = time.time() if began is None else began, most
        self._main, self._local, self._lock = threading.get_ident(), threading.local(), threading.Lock()
        self._events: list[Event] = []
        self._sums: dict[tuple[str, bool, int, int], Event] = {}
        if began is not None:
            self._add(STARTUP, False, began - self._offset, time.time() - began, None)

    def enter(self, span: span) -> None:
        """A span begins in this thread."""
        self._stack.append(_Open(span, time.perf_counter()))

    def leave(self, span: span) -> None:
        """It ends."""
        stack = self._stack
        if not stack or stack[-1].span is not span:  # begun before recording
            return
        ended, opened = time.perf_counter(), stack.pop()
        seconds = ended - opened.began
        if stack:
            stack[-1].inside += seconds
        self._add(span.name, span.waits, opened.began, seconds, seconds - opened.inside)

    def events(self) -> list[Event]:
        """All that was recorded, in no order."""
        with self._lock:
            return [*self._events, *self._sums.values()]

    def take(self) -> list[Event]:
        """The same, and forget it."""
        with self._lock:
            found, self._events, self._sums = [*self._events, *self._sums.values()], [], {}
        return found

    def merge(self, events: Iterable[Event]) -> None:
        """Take in what another process recorded."""
        for event in events:
            self._keep({**event, "main": False})

    @property
    def _stack(self) -> list[_Open]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[_Open] = self._local.stack
        return stack

    def _add(self, name: str, waits: bool, began: float, seconds: float, own: float | None) -> None:
        thread = threading.current_thread()
        self._keep(
            Event(
                name=name,
                began=began + self._offset,
                seconds=seconds,
                own=seconds if own is None else own,
                count=1,
                waits=waits,
                pid=os.getpid(),
                thread=thread.native_id or 0,
                thread_name=thread.name,
                main=threading.get_ident() == self._main,
            )
        )

    def _keep(self, event: Event) -> None:
        with self._lock:
            if event["began"] is not None and len(self._events) < self.most:
                self._events.append(event)
                return
            key = event["name"], event["waits"], event["pid"], event["thread"]
            if known := self._sums.get(key):
                known["seconds"] += event["seconds"]
                known["own"] += event["own"]
                known["count"] += event["count"]
            else:
                self._sums[key] = {**event, "began": None}


STARTUP = "start-up"
_recorder: Recorder | None = None


class span(ContextDecorator):  # noqa: N801 - used as a statement
    """A stretch of work; free unless a recorder listens.

    Args:
        name: What is done: one row of the profile.
        waits: Whether this thread waits for others that do it.
    """

    def __init__(self, name: str, waits: bool = False) -> None:
        self.name, self.waits = name, waits

    def __enter__(self) -> None:
        if _recorder is not None:
            _recorder.enter(self)

    def __exit__(self, *error: object) -> None:
        if _recorder is not None:
            _recorder.leave(self)


def listen() -> Recorder:
    """Record from now on, in a process whose spans another one gathers."""
    global _recorder
    _recorder = Recorder()
    return _recorder


def merge(events: Iterable[Event]) -> None:
    """Take in what another process recorded, if a recorder listens here."""
    if _recorder is not None:
        _recorder.merge(events)


def recording() -> bool:
    """Whether a recorder listens: then work that is only queued on a device is waited for, so that its time is true."""
    return _recorder is not None


@contextmanager
def record(began: float | None = None) -> Iterator[Recorder]:
    """Record the spans within; `began` as in `Recorder`."""
    global _recorder  # spans are begun where no recorder could be handed to
    before, _recorder = _recorder, Recorder(began)
    try:
        yield _recorder
    finally:
        _recorder.ended = time.time()
        _recorder = before
