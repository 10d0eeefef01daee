"""What the user is told when something goes wrong, and the exit status it ends with."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitStatus(IntEnum):
    """Exit statuses of the `mia-bench` command."""

    OK = 0  # fine
    REGRESSED = 1  # a test or check failed, something regressed, or a file is stale
    USAGE = 2  # a wrong option, name or configuration, or an output that cannot be written
    UNAVAILABLE = 3  # data or weights unavailable, or samples left out
    BROKEN_PLUGIN = 4  # a selected plugin is broken, or an attack or control failed
    NOTHING = 5  # nothing selected, run or compared
    INTERNAL = 70  # internal error
    INTERRUPTED = 130  # interrupted; the same command goes on


class MiaBenchError(Exception):
    """An error the user can act on; printed without a traceback.

    Args:
        what: What failed, naming the plugin, sample, file or option.
        why: The cause.
        fix: The command or change that repairs it.
    """

    status = ExitStatus.USAGE

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        return self.what + (f": {self.why}" if self.why else "")


class UsageError(MiaBenchError):
    """A wrong option, name or configuration."""


class UnavailableError(MiaBenchError):
    """Data or weights that cannot be read."""

    status = ExitStatus.UNAVAILABLE


class BrokenPluginError(MiaBenchError):
    """A selected plugin failed to load or to keep its contract."""

    status = ExitStatus.BROKEN_PLUGIN


class NothingError(MiaBenchError):
    """Nothing was selected, run or compared."""

    status = ExitStatus.NOTHING


class NetworkError(UnavailableError):
    """A network of the target failed on its input."""


class SampleError(UnavailableError):
    """One sample cannot be used; the others go on without it."""


def brief(error: Any, limit: int = 160) -> str:
    """What a library's exception says, in one short line; of pydantic's, each field and its problem."""
    text = str(error)
    if hasattr(error, "errors") and hasattr(error, "title"):
        problems = [".".join([error.title, *map(str, p["loc"])]) + f": {p['msg']}" for p in error.errors()]
        text = "; ".join(problems)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= limit else line[: limit - 4] + " ..."
