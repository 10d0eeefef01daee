"""Whose fault an exception is: in one line, and in full when the user asks for it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mia_bench.errors import BrokenPluginError, MiaBenchError, brief


def fault(error: BaseException, plugin: type) -> str:
    """The exception, and the innermost line of the plugin's own file that it came through.

    With MIA_BENCH_DEBUG set, the traceback is printed too.

    Args:
        error: What was raised.
        plugin: The class whose method was called.
    """
    if os.environ.get("MIA_BENCH_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    modules = {base.__module__ for base in plugin.__mro__ if not base.__module__.startswith("mia_bench.")}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{type(error).__name__}: {brief(error, 400)}" + (f" at {own[-1].filename}:{own[-1].lineno}" if own else "")


@contextmanager
def blaming(what: str, name: str, plugin: type) -> Iterator[None]:
    """Whatever goes wrong within that is no `MiaBenchError` is a fault of this plugin.

    Raises:
        BrokenPluginError: Naming it.
    """
    try:
        yield
    except MiaBenchError:
        raise
    except Exception as error:
        why = f"its plugin failed: {fault(error, plugin)}"
        raise BrokenPluginError(f"{what} {name}", why, "fix the plugin, or choose another") from error
