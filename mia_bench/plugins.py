"""Finds plugins, keeps broken ones away from the others, and answers by name.

Plugins come from entry points of the group `mia_bench` and from single files (`-p file.py`). Each is imported and
registered on its own: whatever goes wrong is recorded as its status and harms nobody else.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from mia_bench import hookspecs
from mia_bench.attack import Attack, Meta, Parameters
from mia_bench.dataset import Dataset, DatasetMeta
from mia_bench.encoder import Encoder, EncoderMeta
from mia_bench.errors import BrokenPluginError, UsageError, brief
from mia_bench.executor import Executor, ExecutorMeta
from mia_bench.imported import IMPORTED
from mia_bench.target import Target, TargetMeta

GROUP = "mia_bench"
T = TypeVar("T")


@dataclass
class Plugin:
    """One plugin and how loading it went.

    Attributes:
        name: Entry point or file name.
        origin: Distribution and version, or path.
        provides: Names of the attacks, datasets, targets, encoders and executors it registered.
        error: What went wrong, or None.
    """

    name: str
    origin: str
    module: str
    provides: list[str] = field(default_factory=list)
    error: str | None = None
    trace: str = ""

    @property
    def status(self) -> str:
        return "broken" if self.error else "ok"


class Registry:
    """All plugins and what they bring; the typed façade over the hooks."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.attacks: dict[str, type[Attack]] = {}
        self.datasets: dict[str, type[Dataset]] = {}
        self.targets: dict[str, type[Target]] = {}
        self.encoders: dict[str, type[Encoder]] = {}
        self.executors: dict[str, type[Executor]] = {}
        self.files: tuple[Path, ...] = ()

    @classmethod
    def load(cls, files: Iterable[Path] = (), strict: bool = True) -> Registry:
        """Load every installed plugin, then the given files.

        Args:
            files: Plugins given by path.
            strict: Whether a broken file is an error, or only listed as broken.

        Raises:
            BrokenPluginError: A file given by the user cannot be loaded.
        """
        registry = cls()
        # Ours first: a name belongs to whom it was known by, whatever else is installed.
        origins = {e: _distribution(e) for e in entry_points(group=GROUP)}
        for entry in sorted(origins, key=lambda e: (not origins[e].startswith("mia-bench "), origins[e], e.name)):
            registry.add(entry.name, origins[entry], entry.value, entry.load)
        registry.files = tuple(files)
        for path in registry.files:
            plugin = registry.add(path.stem, str(path), str(path), partial(import_file, path))
            if plugin.error and strict:
                raise BrokenPluginError(f"plugin file {path}", plugin.error, "fix the file, or leave out -p")
        return registry

    def add(self, name: str, origin: str, module: str, load: Callable[[], Any]) -> Plugin:
        """Import one plugin and register what it brings; never raises for the plugin's faults."""
        plugin = Plugin(name, origin, module)
        self.plugins.append(plugin)
        loaded: Any = None
        try:
            loaded = load()
            self.manager.register(loaded, name=f"{origin}:{name}")
            self._take(plugin, loaded)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # a plugin may even call sys.exit() while it is imported
            plugin.error = f"{type(error).__name__}: {brief(error, 400)}"
            plugin.trace = traceback.format_exc()
            if loaded is not None and self.manager.is_registered(loaded):
                self.manager.unregister(loaded)
        return plugin

    def _take(self, plugin: Plugin, module: Any) -> None:
        """Check and register what one plugin brings: all of it, or nothing."""
        self.manager.check_pending()  # a misspelt hook of this plugin shows here
        if not self.manager.get_hookcallers(module):
            raise ValueError("it registers nothing: a function `mia_bench_attacks` needs @hookimpl above it")
        found: list[tuple[dict[str, Any], str, Any]] = []
        for hook, base, meta, book in (
            ("mia_bench_attacks", Attack, Meta, self.attacks),
            ("mia_bench_datasets", Dataset, DatasetMeta, self.datasets),
            ("mia_bench_targets", Target, TargetMeta, self.targets),
            ("mia_bench_encoders", Encoder, EncoderMeta, self.encoders),
            ("mia_bench_executors", Executor, ExecutorMeta, self.executors),
        ):
            own = [h for h in getattr(self.manager.hook, hook).get_hookimpls() if h.plugin is module]
            for item in (item for implementation in own for item in implementation.function()):
                if not (isinstance(item, type) and issubclass(item, base)):
                    raise TypeError(f"{hook} gave {item!r}, not a subclass of {base.__name__}")
                if not isinstance(getattr(item, "meta", None), meta):
                    raise TypeError(f"{item.__name__}.meta is not a {meta.__name__}")
                if abstract := sorted(getattr(item, "__abstractmethods__", ())):
                    raise TypeError(f"{item.__name__} does not implement {', '.join(abstract)}")
                if issubclass(item, Attack):
                    _check_attack(item)
                name = item.meta.name
                if name == IMPORTED:
                    raise ValueError(f"the name {name!r} is that of imported scores")
                if name in book or any(b is book and n == name for b, n, _ in found):
                    owner = next((f"{p.name} ({p.origin})" for p in self.plugins if name in p.provides), "itself")
                    raise ValueError(f"the name {name!r} is taken by plugin {owner}")
                found.append((book, name, item))
        for book, name, item in found:
            book[name] = item
            plugin.provides.append(name)

    @property
    def broken(self) -> Iterator[Plugin]:
        return (p for p in self.plugins if p.error)

    def attack(self, name: str) -> type[Attack]:
        """The attack or control called `name`."""
        return self._get("attack", self.attacks, name)

    def dataset(self, name: str) -> type[Dataset]:
        """The dataset called `name`."""
        return self._get("dataset", self.datasets, name)

    def target(self, name: str) -> type[Target]:
        """The target or family called `name`."""
        return self._get("target", self.targets, name)

    def encoder(self, name: str) -> type[Encoder]:
        """The encoder called `name`."""
        return self._get("encoder", self.encoders, name)

    def executor(self, name: str) -> type[Executor]:
        """The executor called `name`."""
        return self._get("executor", self.executors, name)

    def _get(self, what: str, book: dict[str, T], name: str) -> T:
        if name in book:
            return book[name]
        for plugin in self.broken:
            if name == plugin.name:
                raise BrokenPluginError(
                    f"{what} {name!r} cannot be used",
                    f"plugin {plugin.name} ({plugin.origin}) is broken: {plugin.error}",
                    "fix or uninstall it; `mia-bench list plugins` shows all",
                )
        broken = ", ".join(p.name for p in self.broken)
        fix = f"`mia-bench list` shows every {what}, -p FILE.py loads more" + (
            f"; plugins that did not load: {broken}" if broken else ""
        )
        raise UsageError(f"unknown {what} {name!r}", suggest(name, book), fix)

    def run_started(self, event: Any) -> None:
        self._tell("mia_bench_run_started", event)

    def batch_measured(self, event: Any) -> None:
        self._tell("mia_bench_batch_measured", event)

    def run_finished(self, event: Any) -> None:
        self._tell("mia_bench_run_finished", event)

    def _tell(self, hook: str, event: Any) -> None:
        """Tell everybody; a plugin that fails to listen is broken from then on, and told no more."""
        for listener in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            try:
                listener.function(*[event] * len(listener.argnames))
            except Exception as error:
                plugin = next((p for p in self.plugins if f"{p.origin}:{p.name}" == listener.plugin_name), None)
                if plugin is None:
                    raise  # the harness's own
                plugin.error, plugin.trace = f"{type(error).__name__}: {brief(error, 400)}", traceback.format_exc()
                self.manager.unregister(listener.plugin)
                why = f"plugin {plugin.name} ({plugin.origin}) failed in {hook}: {plugin.error}"
                logging.getLogger("mia_bench").warning("%s; the run goes on without it", why)


def _check_attack(cls: type[Attack]) -> None:
    """Defaults and presets must be valid and have a price: listings and plans rely on it."""
    if not (isinstance(cls.Params, type) and issubclass(cls.Params, Parameters)):
        raise TypeError(f"{cls.__name__}.Params is not a subclass of Attack.Params")
    for preset, values in {"": {}, **cls.presets}.items():
        try:
            params = cls.Params.model_validate_json(json.dumps(values), strict=True)
            for kind in ("pixel", "latent"):
                cls(params.resolved(kind)).queries()
        except Exception as error:
            what = f"preset {preset!r}" if preset else "its defaults"
            raise ValueError(f"{cls.__name__}.queries() fails with {what}: {brief(error)}") from error


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?`, or the known names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.65)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names) or 'none'}"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def import_file(path: Path) -> ModuleType:
    """A module of a Python file, under a name of its own."""
    if not path.is_file():
        raise FileNotFoundError("no such file")
    # Two files of one name are two modules: the source of each is part of its attacks' identity.
    name = f"mia_bench_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # inspect and pickling look the module up here
    spec.loader.exec_module(module)
    return module
