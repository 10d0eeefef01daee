"""What checks of every kind of plugin share."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_bench.attack import Attack
from mia_bench.dataset import Dataset
from mia_bench.encoder import Encoder
from mia_bench.hookspecs import hookimpl
from mia_bench.plugins import Registry
from mia_bench.target import Target
from mia_bench.testing.suite import Case, Fault

HOOKS: dict[type, str] = {
    Attack: "mia_bench_attacks",
    Dataset: "mia_bench_datasets",
    Target: "mia_bench_targets",
    Encoder: "mia_bench_encoders",
}
SUMMARY = 120  # characters: one line of a listing
Argument = str | Callable[[Path], str]


def module_of(**hooks: Callable[..., Any]) -> ModuleType:
    """A plugin module with these hooks."""
    module = ModuleType("conformance")
    for name, function in hooks.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module


def register(registry: Registry, plugin: type) -> None:
    """Register one class as its plugin would.

    Raises:
        Fault: The loader refuses it.
    """
    hook = next(name for base, name in HOOKS.items() if issubclass(plugin, base))
    module = module_of(**{hook: lambda: [plugin]})
    if error := registry.add(plugin.__name__, "conformance", plugin.__module__, lambda: module).error:
        raise Fault(error, "`mia-bench list plugins` says the same of a plugin that does not load")


def loads(case: Case) -> None:
    """The loader takes the class: a `meta` of its kind, no abstract method left, and a price for every preset."""
    register(Registry(), case.plugin)


def check_summary(case: Case) -> None:
    """Of any kind of plugin.

    Raises:
        Fault: The line that listings print, or the docstring, is missing or no such line.
    """
    summary = case.plugin.meta.summary
    if not summary.strip() or "\n" in summary or len(summary) > SUMMARY:
        found = f"a summary of {len(summary)} characters in {len(summary.splitlines())} lines: {summary[:60]!r}"
        raise Fault(found, f"meta.summary is one line of at most {SUMMARY} characters")
    if not (vars(case.plugin).get("__doc__") or "").strip():
        raise Fault(f"class {case.plugin.__name__} has no docstring", "say what it is: `mia-bench describe` prints it")


def check_name(case: Case) -> None:
    """Of any kind of plugin.

    Raises:
        Fault: The command line cannot take the name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", case.plugin.meta.name):
        fix = "lower-case letters, digits, dots and hyphens: it is typed, and `:`, `,`, `@` and `[` mean other things"
        raise Fault(f"the name {case.plugin.meta.name!r}", fix)


class Placed:
    """An argument that may have to be made: a small copy in a folder that lives as long as this does."""

    def __init__(self, argument: Argument) -> None:
        self._given = argument
        self._made: str | None = None

    @property
    def argument(self) -> str:
        """What follows the plugin's name."""
        if isinstance(self._given, str):
            return self._given
        if self._made is None:
            folder = Path(tempfile.mkdtemp(prefix="mia-bench-conformance-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._made = self._given(folder)
        return self._made
