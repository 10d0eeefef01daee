"""What is installed: `list` and `describe`."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mia_bench.attack import Attack, Control
from mia_bench.engine.encoders import at_hand
from mia_bench.engine.label import Label
from mia_bench.engine.select import attack_of
from mia_bench.errors import UsageError
from mia_bench.report.parameters import parameters, value_text
from mia_bench.report.text import json_text, pairs, printable, table

if TYPE_CHECKING:
    from mia_bench.plugins import Registry


def show_catalogue(registry: Registry, kinds: Sequence[str], as_json: bool) -> None:
    """Print attacks, datasets, targets, encoders, executors and plugins."""
    content = {kind: _LISTERS[kind](registry) for kind in kinds}
    if as_json:
        print(json_text(content))
        return
    blocks = []
    for kind, items in content.items():
        shown = [[cell(v) for v in item.values()] for item in items]
        headers = list(items[0]) if items else ["none"]
        blocks.append(f"{kind.upper()}\n{table(shown, headers)}")
    print("\n\n".join(blocks))


def show_description(registry: Registry, name: str, as_json: bool) -> None:
    """Print all that is known about one name, or about all attacks."""
    found = [_described(registry, one) for one in (sorted(registry.attacks) if name == "all" else [name])]
    if as_json:
        print(json_text(found if name == "all" else found[0]))
    else:
        print("\n\n\n".join(map(_description, found)))


def _described(registry: Registry, name: str) -> dict[str, Any]:
    base = Label.parse(name).name.partition(":")[0]
    aliases = {alias for cls in registry.attacks.values() for alias in cls.aliases}
    if base in registry.attacks or base in aliases:
        return _attack(attack_of(registry, name))
    for book in (registry.datasets, registry.targets, registry.encoders, registry.executors):
        if base in book:
            cls = book[base]
            return {**described(cls), **({"usage": usage(cls)} if book is registry.datasets else {})}
    broken = next((p for p in registry.broken if p.name == base), None)
    if broken is None:
        from mia_bench.plugins import suggest

        books = (registry.attacks, registry.datasets, registry.targets, registry.encoders, registry.executors)
        known = [name for book in books for name in book]
        raise UsageError(f"unknown name {name!r}", suggest(base, known), "`mia-bench list` shows all names")
    content = {"plugin": broken.name, "origin": broken.origin, "status": "broken", "error": broken.error}
    return {**content, "traceback": broken.trace}


def _description(content: dict[str, Any]) -> str:
    base, facts = content.get("name", ""), dict(content)
    params, presets, faults = (facts.pop(key, ()) for key in ("parameters", "presets", "faults"))
    text = facts.pop("usage", "")
    if "orientation" in facts:
        facts["orientation"] += " (the paper's own quantity; what `score` returns is always higher for members)"
    parts = [pairs({k: cell(v) for k, v in facts.items()})]
    if text:
        parts += ["\n".join(map(printable, text.splitlines()))]
    if params:
        rows = [[*list(p.values())[:-1], textwrap.fill(p["meaning"], 60)] for p in params]
        parts.append(f"PARAMETERS (-o {base}.NAME=VALUE)\n{table(rows, list(params[0]))}")
    if presets:
        rows = [[f"{base}@{k}", ", ".join(f"{a}={value_text(b)}" for a, b in v.items())] for k, v in presets.items()]
        parts.append(f"PRESETS\n{table(rows, ['name', 'sets'])}")
    if faults:
        wrap = textwrap.TextWrapper(110, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        lines = [wrap.fill(printable(fault)) for fault in faults]
        parts.append("FAULTS AND DEPARTURES OF PUBLISHED PROGRAMS\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _attacks(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "access": str(cls.meta.access),
            "caption": cls.meta.caption,
            "queries": queries_text(cls),
            "presets": sorted(cls.presets),
            "summary": cls.meta.summary + (" (control)" if issubclass(cls, Control) else ""),
        }
        for name, cls in sorted(registry.attacks.items())
    ]


def _datasets(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name + (cls.meta.takes and ":" + cls.meta.takes),
            "targets": list(cls.meta.targets),
            "summary": cls.meta.summary,
        }
        for name, cls in sorted(registry.datasets.items())
    ]


def _targets(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name + (cls.meta.takes and ":" + cls.meta.takes),
            "kind": cls.meta.kind,
            "capabilities": sorted(map(str, cls.meta.capabilities)),
            "summary": cls.meta.summary,
        }
        for name, cls in sorted(registry.targets.items())
    ]


def _encoders(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name + (cls.meta.takes and ":" + cls.meta.takes),
            "offers": sorted(map(str, cls.meta.offers)),
            "at hand": "yes" if at_hand(cls) else "no",
            "source": cls.meta.source,
            "summary": cls.meta.summary,
        }
        for name, cls in sorted(registry.encoders.items())
    ]


def _executors(registry: Registry) -> list[dict[str, Any]]:
    return [{"name": name, "summary": cls.meta.summary} for name, cls in sorted(registry.executors.items())]


def _plugins(registry: Registry) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "origin": p.origin, "status": p.status, "provides": p.provides, "error": p.error}
        for p in registry.plugins
    ]


_LISTERS = {
    "attacks": _attacks,
    "datasets": _datasets,
    "targets": _targets,
    "encoders": _encoders,
    "executors": _executors,
    "plugins": _plugins,
}


def _attack(cls: type[Attack]) -> dict[str, Any]:
    return {
        **described(cls),
        "queries": queries_text(cls),
        "parameters": parameters(cls),
        "presets": {name: dict(values) for name, values in cls.presets.items()},
    }


def described(cls: Any) -> dict[str, Any]:
    """What is known about a plugin's class, JSON-ready; what is empty is left out."""
    content: dict[str, Any] = cls.meta.model_dump(mode="json")
    # Sets: their order varies between processes.
    for name in ("needs", "capabilities", "pipelines", "formerly", "offers"):
        if name in content:
            content[name] = sorted(content[name])
    about = (cls.__doc__ or "").split("\n\n")[0]
    return {**{k: v for k, v in content.items() if v not in ("", [], None)}, "about": " ".join(about.split())}


def queries_text(cls: type[Attack], preset: str = "") -> str:
    """Queries per image, by kind of target where that matters."""
    params = cls.Params.model_validate(cls.presets[preset] if preset else {})
    if bases := cls(params).requires():
        return f"those of {', '.join(bases)}"
    counts = [cls(params.resolved(kind)).queries() for kind in ("pixel", "latent")]
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} (pixel), {counts[1]} (latent)"


def usage(cls: type) -> str:
    """What the module of a dataset says to its users."""
    return inspect.getdoc(sys.modules[cls.__module__]) or ""


def cell(value: Any) -> str:
    """As it stands in a listing."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else printable(value)
