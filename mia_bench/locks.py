"""Who may write to a run folder: one run, or several that each measure a part of it.

Who holds the whole looks for parts, and who holds a part looks for the whole: one of the two sees the other.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from mia_bench.errors import UsageError

LOCK = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
PATIENCE_S = 10.0  # with who only looks


def hold(stack: ExitStack, folder: Path, part: str | None = None) -> None:
    """Hold a folder, or a part of it, until the stack ends.

    Raises:
        UsageError: Somebody else does.
        OSError: The folder cannot be written.
    """
    _acquire(stack, folder / (f"{LOCK}-{part}" if part else LOCK), PATIENCE_S if part else 0)
    with ExitStack() as tried:
        for other in [folder / LOCK] if part else _parts(folder):
            _acquire(tried, other, PATIENCE_S)


def held_parts(folder: Path, besides: str) -> list[str]:
    """The parts that others hold."""
    found = []
    for path in _parts(folder):
        with ExitStack() as tried:
            try:
                if path.name != f"{LOCK}-{besides}":
                    _acquire(tried, path, 0)
            except UsageError:
                found.append(path.name.removeprefix(f"{LOCK}-"))
    return found


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{LOCK}-*"))


def _acquire(stack: ExitStack, path: Path, seconds: float) -> None:
    lock = FileLock(path, timeout=seconds, fallback_to_soft=False)  # a soft one would outlive a killed process
    try:
        lock.acquire()
    except Timeout:
        who = "another run"
        if path.name != LOCK:
            who = f"a run of shard {path.name.removeprefix(f'{LOCK}-').replace('-of-', '/')}"
        fix = "wait for it to end, or choose another folder with --out"
        raise UsageError(f"run folder {path.parent}", f"{who} is writing to it", fix) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        fix = "mount the disk with `flock`, or choose a folder on another disk with --out"
        raise UsageError(f"run folder {path.parent}", "its disk has no locks (flock)", fix) from error
    stack.callback(lock.release)
