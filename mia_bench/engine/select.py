"""Which attacks a user means: `all`, names, `name[encoder]@preset`, globs, keyword expressions and options."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from mia_bench.attack import Attack, Control
from mia_bench.engine.label import Label
from mia_bench.engine.requires import ordered
from mia_bench.errors import MiaBenchError, NothingError, UsageError
from mia_bench.plugins import Registry, suggest

Options = Mapping[str, Mapping[str, Any]]  # attack name or label -> parameter -> value
GLOB = re.compile(r"[*?]")


@dataclass(frozen=True)
class Selected:
    """One row to be: an attack class with one preset and its parameters, defaults by kind still open."""

    label: str
    cls: type[Attack]
    params: Any
    named: bool  # asked for by its own name, so that it must not be left out silently
    requires: tuple[str, ...] = ()  # labels of those it combines; they come before it

    @property
    def control(self) -> bool:
        return issubclass(self.cls, Control)


def select(
    registry: Registry,
    pattern: str = "all",
    keyword: str | None = None,
    options: Options | None = None,
    preset: str = "",
) -> list[Selected]:
    """The attacks that a pattern names, and every control.

    Args:
        registry: All plugins.
        pattern: `all` (each attack once), or names, `name[encoder]@preset` and globs joined by commas. A glob without
            @ matches names; one with @ matches presets too.
        keyword: Keeps attacks whose label, access level or summary satisfies it, e.g. `pia and not pian`.
        options: Parameters set by the user.
        preset: What `all` takes of an attack that offers it, instead of its defaults; with `quick` go the presets
            `quick-...`, which are of the same measurement.

    Raises:
        UsageError: Unknown name, preset or parameter, or a value out of range.
        BrokenPluginError: A name belongs to a broken plugin.
    """
    known = {
        alias: Label.parse(whole).name for cls in registry.attacks.values() for alias, whole in cls.aliases.items()
    }
    options = {known.get(key, key): values for key, values in (options or {}).items()}
    attacks = {n: c for n, c in sorted(registry.attacks.items()) if not issubclass(c, Control)}
    controls = {n: c for n, c in sorted(registry.attacks.items()) if issubclass(c, Control)}
    chosen: dict[Label, bool] = {}
    only_controls = False
    for part in filter(None, (p.strip() for p in pattern.split(","))):
        if part == "all":
            found = [Label(n, preset=own) for n, c in attacks.items() for own in _family(preset, c) or [""]]
        elif GLOB.search(part):
            texts = attacks if "@" not in part else [f"{n}@{p}" for n, c in attacks.items() for p in c.presets]
            found = [Label.parse(text) for text in texts if fnmatch.fnmatchcase(text, part)]
            if not found:
                raise NothingError(f"--attacks {part}", "it matches no attack", "`mia-bench list attacks` shows all")
        else:
            label = label_of(registry, part)
            control = issubclass(registry.attack(label.name), Control)
            only_controls |= control
            found = [] if control else [label]  # controls run anyway
        for label in found:
            chosen[label] = chosen.get(label, False) or not (part == "all" or GLOB.search(part))
    if keyword:
        chosen = {label: named for label, named in chosen.items() if matches(keyword, _text(registry, label))}
    if chosen or only_controls:
        for name, cls in controls.items():
            chosen.update(dict.fromkeys([Label(name), *(Label(name, preset=p) for p in cls.presets)], False))

    def required(label: Label) -> list[Label]:
        found = [_required(registry, label, text) for text in _selected(registry, label, False, options).requires]
        if control := next((one for one in found if issubclass(registry.attack(one.name), Control)), None):
            why = f"it requires {control}, a control, which may see the labels"
            raise UsageError(f"attack {label}", why, "combine attacks alone")
        return found

    chosen = {label: chosen.get(label, False) for label in ordered(chosen, required)}
    _check_targets_of(options, registry, chosen)
    selected: dict[str, Selected] = {}
    for label, named in chosen.items():
        one = _selected(registry, label, named, options)
        if one.requires:
            one = replace(one, requires=tuple(_selected(registry, b, False, options).label for b in required(label)))
        selected[one.label] = replace(one, named=named or (one.label in selected and selected[one.label].named))
    return list(selected.values())


def label_of(registry: Registry, text: str) -> Label:
    """The row that a user names, aliases resolved.

    Raises:
        UsageError: Unknown name or preset, or an encoder for an attack that has none.
    """
    given = Label.parse(text)
    known = {alias: whole for cls in registry.attacks.values() for alias, whole in cls.aliases.items()}
    label = replace(Label.parse(known[given.name]), preset=given.preset) if given.name in known else given
    cls = registry.attack(label.name)
    if label.preset and label.preset not in cls.presets:
        fix = f"`mia-bench describe {label.name}`"
        raise UsageError(f"unknown preset {text!r}", suggest(label.preset, cls.presets), fix)
    if label.encoder and "encoder" not in cls.Params.model_fields:
        raise UsageError(f"attack {text!r}", f"{label.name} names no encoder", f"write {label.bare}")
    return label


def attack_of(registry: Registry, label: str) -> type[Attack]:
    """The attack that a label means.

    Raises:
        UsageError: As `label_of`.
    """
    return registry.attack(label_of(registry, label).name)


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
    parts = Label.parse(label)
    name, frozen = parts.name, dict(cls.presets.get(parts.preset, {}))
    if parts.encoder:
        frozen["encoder"] = parts.encoder
    given = {**options.get(name, {}), **frozen}
    for key in dict.fromkeys([parts.bare, label]):
        given |= options.get(key, {}) if key != name else {}
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


def _required(registry: Registry, label: Label, text: str) -> Label:
    """A label that an attack requires."""
    try:
        return label_of(registry, text)
    except MiaBenchError as error:
        raise type(error)(f"attack {label} requires {text}: {error.what}", error.why, error.fix) from error


def _selected(registry: Registry, label: Label, named: bool, options: Options) -> Selected:
    cls = registry.attack(label.name)
    params = make_params(cls, str(label), options)
    attack = cls(params)
    return Selected(str(label.of(attack)), cls, params, named, attack.requires())


def _family(preset: str, cls: type[Attack]) -> list[str]:
    return [own for own in cls.presets if preset and (own == preset or own.startswith(f"{preset}-"))]


def _check_targets_of(options: Options, registry: Registry, chosen: Collection[Label]) -> None:
    names, bare = {label.name for label in chosen}, {label.bare for label in chosen}
    for key in options:
        registry.attack(Label.parse(key).name)
        if key not in bare and key not in names and key not in map(str, chosen):
            raise UsageError(f"option for {key!r}", "that attack is not selected", f"add it: --attacks ...,{key}")
        rows = [label for label in chosen if label.name == key]
        presets = registry.attack(Label.parse(key).name).presets
        for parameter in options[key]:
            fixed = (parameter in presets.get(r.preset, {}) or (parameter == "encoder" and r.encoder) for r in rows)
            if rows and all(fixed):
                why = f"no selected row reads it: it is fixed in {', '.join(map(str, rows))}"
                raise UsageError(f"option {key}.{parameter}", why, f"add {key} to --attacks")


def _text(registry: Registry, label: Label) -> str:
    meta = registry.attack(label.name).meta
    return f"{label} {meta.access} {meta.summary}"
