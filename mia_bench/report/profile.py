"""Where the time of a run went: a table that adds up to its wall time, and a trace to look into."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mia_bench.report.text import printable, table
from mia_bench.store import Store
from mia_bench.trace import STARTUP, Event, Recorder

TABLE, TRACE = "profile.json", "profile.trace.json"  # in the run folder
OTHER = "other"
# In the order of a run; encoders and what plugins name themselves come before `attacks`.
BEFORE = (STARTUP, "loading the target", "images", "noise", "text", "vae", "denoiser", "decoder")
AFTER = ("attacks", "controls", "scores", "storing", "scoring", "pictures", "workers", OTHER)
ABOUT = {
    STARTUP: "imports, planning",
    "images": "waiting for images read ahead",
    "attacks": "what they do beside networks",
    "controls": "the blind baseline",
    "scores": "from the device, where it is waited for",
    "scoring": "metrics and intervals",
    "workers": "waiting for other processes, whose own time is under busy",
    OTHER: "waiting, progress, what has no name",
}


@dataclass(frozen=True)
class Spent:
    """One row of a profile.

    Attributes:
        name: What was done.
        wall_s: Seconds in which the main thread did it or waited for it: of all rows they are the run's wall time.
        busy_s: Seconds that all threads and processes worked on it.
        count: How often.
    """

    name: str
    wall_s: float
    busy_s: float
    count: int


def spent(events: Iterable[Event], wall_s: float) -> list[Spent]:
    """Rows of a profile, in the order of a run.

    Args:
        events: What was recorded.
        wall_s: Seconds from the first to the last.
    """
    walls, busy, counts = dict[str, float](), dict[str, float](), dict[str, int]()
    for event in events:
        name = event["name"]
        walls[name] = walls.get(name, 0.0) + event["own"] * event["main"]
        busy[name] = busy.get(name, 0.0) + event["own"] * (not event["waits"])
        counts[name] = counts.get(name, 0) + event["count"]
    order = [*BEFORE, *sorted(set(walls) - {*BEFORE, *AFTER}), *AFTER]
    walls[OTHER] = walls.get(OTHER, 0.0) + wall_s - sum(walls.values())
    return [Spent(name, walls[name], busy.get(name, 0.0), counts.get(name, 0)) for name in order if name in walls]


def trace_of(events: Sequence[Event], began: float) -> dict[str, Any]:
    """The spans in Chrome's trace-event format, which Perfetto opens: one track for each thread.

    Args:
        events: What was recorded; sums of spans have no place in time and are left out.
        began: What time is counted from, in seconds since the epoch.
    """
    threads = {(e["pid"], e["thread"]): "main" if e["main"] else e["thread_name"] for e in events}
    named = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": thread, "args": {"name": name}}
        for (pid, thread), name in threads.items()
    ]
    spans = [
        {
            "ph": "X",
            "name": e["name"],
            "cat": "wait" if e["waits"] else "work",
            "ts": round((e["began"] - began) * 1e6, 1),
            "dur": round(e["seconds"] * 1e6, 1),
            "pid": e["pid"],
            "tid": e["thread"],
        }
        for e in events
        if e["began"] is not None
    ]
    return {"displayTimeUnit": "ms", "traceEvents": [*named, *spans]}


def show_profile(recorder: Recorder, folder: Path, as_json: bool) -> None:
    """Write the profile into a run folder, and print it as a table unless JSON is printed.

    Raises:
        UnavailableError: The folder cannot be written.
    """
    events = recorder.events()
    wall_s = (recorder.ended or recorder.began) - recorder.began
    rows, left_out = spent(events, wall_s), sum(e["count"] for e in events if e["began"] is None)
    record = {"schema_version": 1, "wall_s": wall_s, "rows": [asdict(row) for row in rows], "spans_summed": left_out}
    store = Store(folder)
    store.write_json(TABLE, record)
    store.write_json(TRACE, trace_of(events, recorder.began), indent=None)
    if as_json:
        return
    headers = ["where the time went", "seconds", "share", "busy s", "times", ""]
    cells: list[list[object]] = [
        [r.name, f"{r.wall_s:.2f}", f"{r.wall_s / wall_s:.1%}", f"{r.busy_s:.2f}", r.count or "", ABOUT.get(r.name, "")]
        for r in rows
    ]
    cells.append(["all", f"{wall_s:.2f}", "", f"{sum(r.busy_s for r in rows):.2f}", "", ""])
    print("\n" + table(cells, headers, right=(1, 2, 3, 4)) + "\n")
    print(f"seconds: of the main thread, which waits for the others; busy: of all threads; {os.cpu_count()} cores")
    if left_out:
        print(f"the trace holds the first {len(events):,} spans; {left_out:,} further ones are in the table alone")
    print(printable(f"trace: {folder / TRACE} (opens in ui.perfetto.dev)"))
