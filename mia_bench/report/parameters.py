"""An attack's parameters as a reader wants them: type and bounds in words, default, meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_bench.attack import Attack

NAMES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text", "null": "none"}


def parameters(cls: type[Attack]) -> list[dict[str, str]]:
    """One record for each parameter; what the class does not say of one, its bases may."""
    texts = [inspect.cleandoc(base.__doc__ or "") for base in cls.Params.__mro__]
    return [
        {
            "name": name,
            "type": type_text(schema),
            "default": _default(schema),
            "stage": schema.get("stage", "measure"),
            "meaning": next(filter(None, (meaning(name, text) for text in texts)), ""),
        }
        for name, schema in cls.Params.model_json_schema().get("properties", {}).items()
    ]


def type_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: `int, 0-999`, `tuple of int, 0-999`, `float, 0-1, or none`."""
    if "anyOf" in schema:
        return ", or ".join(map(type_text, schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"tuple of {type_text(schema.get('items', {}))}"
    kind = str(schema.get("type", "value"))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = [f"{low}-{high}"] if None not in (low, high) else []
    signs = {"exclusiveMinimum": ">", "exclusiveMaximum": "<"} | ({} if bounds else {"minimum": ">=", "maximum": "<="})
    bounds += [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return ", ".join([NAMES.get(kind, kind), *bounds])


def value_text(value: Any) -> str:
    """A value as `-o` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _default(schema: Mapping[str, Any]) -> str:
    if "by_kind" in schema:
        return ", ".join(f"{value_text(schema['by_kind'][kind])} ({kind})" for kind in ("pixel", "latent"))
    return value_text(schema.get("default"))


def meaning(name: str, text: str) -> str:
    """What the docstring says of a parameter: `name: text`, with the indented lines that follow."""
    found = re.search(rf"^( *){re.escape(name)}: (.*(?:\n\1 +.*)*)", text, re.MULTILINE)
    return " ".join(found[2].split()) if found else ""
