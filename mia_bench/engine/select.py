"""Which attacks a user means: `all`, names, `name@preset`, globs, keyword expressions and options."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from mia_bench.attack import Attack, Control
from mia_bench.errors import NothingError, UsageError
from mia_bench.plugins import Registry, suggest

Options = Mapping[str, Mapping[str, Any]]  # attack name or label -> parameter -> value


@dataclass(frozen=True)
class Selected:
    """One row to be: an attack class with one preset and its parameters, defaults by kind still open."""

    label: str
    cls: type[Attack]
    params: Any
    named: bool  # asked for by its own name, so that it must not be left out silently

    @property
    def control(self) -> bool:
        return issubclass(self.cls, Control)


def select(
    registry: Registry, pattern: str = "all", keyword: str | None = None, options: Options | None = None
) -> list[Selected]:
    """The attacks that a pattern names, and every control.

    Args:
        registry: All plugins.
        pattern: `all` (each attack's default), or names, `name@preset` and globs joined by commas. A glob without @
            matches names; one with @ matches presets too.
        keyword: Keeps attacks whose label, access level or summary satisfies it, e.g. `pia and not pian`.
        options: Parameters set by the user.

    Raises:
        UsageError: Unknown name, preset or parameter, or a value out of range.
        BrokenPluginError: A name belongs to a broken plugin.
    """
    options = options or {}
    attacks = {n: c for n, c in sorted(registry.attacks.items()) if not issubclass(c, Control)}
    controls = {n: c for n, c in sorted(registry.attacks.items()) if issubclass(c, Control)}
    chosen: dict[str, bool] = {}
    only_controls = False
    for part in filter(None, (p.strip() for p in pattern.split(","))):
        if part == "all":
            found = list(attacks)
        elif any(c in part for c in "*?["):
            labels = attacks if "@" not in part else [f"{n}@{p}" for n, c in attacks.items() for p in c.presets]
            found = [label for label in labels if fnmatch.fnmatchcase(label, part)]
            if not found:
                raise NothingError(f"--attacks {part}", "it matches no attack", "`mia-bench list attacks` shows all")
        else:
            cls = attack_of(registry, part)
            only_controls |= issubclass(cls, Control)
            found = [] if issubclass(cls, Control) else [part]  # controls run anyway
        for label in found:
            chosen[label] = chosen.get(label, False) or (part == label)
    if keyword:
        chosen = {label: named for label, named in chosen.items() if matches(keyword, _text(registry, label))}
    if chosen or only_controls:
        for name, cls in controls.items():
            chosen.update(dict.fromkeys([name, *(f"{name}@{p}" for p in cls.presets)], False))
    _check_targets_of(options, registry, chosen)
    return [_selected(registry, label, named, options) for label, named in chosen.items()]


def attack_of(registry: Registry, label: str) -> type[Attack]:
    """The attack that `name` or `name@preset` means.

    Raises:
        UsageError: Unknown name or preset.
    """
    name, at, preset = label.partition("@")
    cls = registry.attack(name)
    if at and preset not in cls.presets:
        raise UsageError(f"unknown preset {label!r}", suggest(preset, cls.presets), f"`mia-bench describe {name}`")
    return cls


def parse_options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`clid.alpha=0.9` -> `{"clid": {"alpha": 0.9}}`; values are JSON where they can be, else text."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([^.=]+)\.([^.=]+)=(.*)", text)
        if not match:
            raise UsageError(f"option {text!r}", "not of the form ATTACK.PARAMETER=VALUE", "e.g. -o clid.alpha=0.9")
        name, parameter, value = match.groups()
        options.setdefault(name, {})[parameter] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def matches(expression: str, text: str) -> bool:
    """Whether `text` satisfies a keyword expression of words, `and`, `or`, `not` and parentheses."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)

    def unexpected() -> UsageError:
        return UsageError(
            f"-k {expression!r}", "not an expression of words, and, or, not", "e.g. -k 'pia and not pian'"
        )

    def either() -> bool:
        value = both()
        while tokens and tokens[0] == "or":
            tokens.pop(0)
            value = both() or value
        return value

    def both() -> bool:
        value = one()
        while tokens and tokens[0] == "and":
            tokens.pop(0)
            value = one() and value
        return value

    def one() -> bool:
        if not tokens:
            raise unexpected()
        token = tokens.pop(0)
        if token == "not":
            return not one()
        if token == "(":
            value = either()
            if not tokens or tokens.pop(0) != ")":
                raise unexpected()
            return value
        if token in {")", "and", "or"}:
            raise unexpected()
        return token.lower() in text.lower()

    result = either()
    if tokens:
        raise unexpected()
    return result


def _listed(value: Any) -> Any:
    """`440,450` and `440` as lists, where a tuple is wanted."""
    if isinstance(value, str):
        return [_value(part) for part in value.split(",")]
    return value if value is None or isinstance(value, list | tuple) else [value]


def make_params(cls: type[Attack], label: str, options: Options) -> Any:
    """Validated parameters of one label. A preset is frozen: options for the name do not change what it sets."""
    name, _, preset = label.partition("@")
    frozen = cls.presets.get(preset, {})
    given = {**options.get(name, {}), **frozen, **options.get(label, {})}
    for parameter, field in cls.Params.model_fields.items():
        if parameter in given and tuple in (get_origin(field.annotation), *map(get_origin, get_args(field.annotation))):
            given[parameter] = _listed(given[parameter])
    if clash := sorted(p for p in frozen if given[p] != frozen[p]):
        why = f"the preset fixes it to {frozen[clash[0]]!r}"
        raise UsageError(f"option {label}.{clash[0]}", why, f"set it on {name}: -o {name}.{clash[0]}=VALUE")
    for parameter, field in cls.Params.model_fields.items():
        if parameter in given and given[parameter] is None and type(None) not in get_args(field.annotation):
            given[parameter] = "null"  # the word, as in `-o clid.reduction=null`: JSON's null means nothing here
    try:
        return cls.Params.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        parameter = ".".join(str(p) for p in problem["loc"])
        known = suggest(parameter, cls.Params.model_fields) if problem["type"] == "extra_forbidden" else ""
        why = f"no such parameter; {known}" if known else f"{problem['msg']} (got {problem['input']!r})"
        raise UsageError(f"option {label}.{parameter}", why, f"`mia-bench describe {name}` lists parameters") from None


def _selected(registry: Registry, label: str, named: bool, options: Options) -> Selected:
    cls = registry.attack(label.partition("@")[0])
    return Selected(label, cls, make_params(cls, label, options), named)


def _check_targets_of(options: Options, registry: Registry, chosen: Mapping[str, bool]) -> None:
    names = {label.partition("@")[0] for label in chosen}
    for key in options:
        registry.attack(key.partition("@")[0])
        if key not in chosen and key not in names:
            raise UsageError(f"option for {key!r}", "that attack is not selected", f"add it: --attacks ...,{key}")
        rows = [label for label in chosen if label.partition("@")[0] == key]
        for parameter in options[key]:
            if rows and all(parameter in registry.attack(key).presets.get(r.partition("@")[2], {}) for r in rows):
                why = f"no selected row reads it: a preset fixes it in {', '.join(rows)}"
                raise UsageError(f"option {key}.{parameter}", why, f"add {key} to --attacks")


def _text(registry: Registry, label: str) -> str:
    meta = registry.attack(label.partition("@")[0]).meta
    return f"{label} {meta.access} {meta.summary}"
