"""Classes as their source has them: fields with type, default and meaning, and methods with their docstrings."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from mia_bench.report.parameters import meaning

WIDTH = 100
SECTIONS = ("Attributes", "Class attributes", "Attributes for attacks", "Args", "Returns", "Raises")


@dataclass(frozen=True)
class Field:
    """One field of a record.

    Attributes:
        name: As it is written.
        type: In Python's notation.
        default: As it is written, or nothing where a value must be given.
        meaning: What the docstring of the class, the text below the field or the comment beside it says.
    """

    name: str
    type: str
    default: str
    meaning: str


def fields(cls: type) -> list[Field]:
    """Annotated public fields that a class itself defines, in order; of an enumeration, its members."""
    return list(_fields(cls))


def _fields(cls: type) -> Iterator[Field]:
    lines, body = _source(cls)
    noted_above, names = inspect.cleandoc(cls.__doc__ or ""), vars(sys.modules[cls.__module__])
    for node, after in zip(body, [*body[1:], None], strict=True):
        comment = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode().strip()
        below = after.value if isinstance(after, ast.Expr) else None
        noted = (
            inspect.cleandoc(below.value) if isinstance(below, ast.Constant) and isinstance(below.value, str) else ""
        )
        if issubclass(cls, Enum) and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            yield Field(name, "", ast.unparse(value), comment.lstrip("# "))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            name = node.target.id
            said = meaning(name, noted_above) or noted or comment.lstrip("# ")
            yield Field(name, type_text(node.annotation, names), _default(node.value, names), " ".join(said.split()))


def type_text(node: ast.expr, names: Mapping[str, Any]) -> str:
    """An annotation for readers: literals as their values, without what only machines read."""
    if isinstance(node, ast.Name) and get_origin(known := names.get(node.id)) in (Literal, Annotated):
        return (
            " | ".join(map(_quoted, get_args(known))) if get_origin(known) is Literal else get_args(known)[0].__name__
        )
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return " | ".join(_quoted(ast.literal_eval(part)) for part in parts)
        if name in ("Annotated", "ClassVar"):
            return type_text(parts[0], names)
        return f"{name}[{', '.join(type_text(part, names) for part in parts)}]"
    if isinstance(node, ast.BinOp):
        return f"{type_text(node.left, names)} | {type_text(node.right, names)}"
    return ast.unparse(node)


def _quoted(value: object) -> str:
    return json.dumps(value)


def _default(value: ast.expr | None, names: Mapping[str, Any]) -> str:
    """What is taken where nothing is given; constraints of pydantic's `Field` are no default."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("Field", "field"):
        given = {key.arg: key.value for key in value.keywords}
        if "default_factory" in given:
            return f"{ast.unparse(given['default_factory'])}()"
        value = value.args[0] if value.args else given.get("default")
    if isinstance(value, ast.Name) and isinstance(named := names.get(value.id), int | str):
        return repr(named)
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):  # another record's own default
        named = getattr(names.get(value.value.id), value.attr, None)
        return ast.unparse(value) if named is None or isinstance(named, Enum) else repr(named)
    return "" if value is None else ast.unparse(value)


def about(cls: type) -> str:
    """The docstring without the lists of fields that `fields` gives."""
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    return "\n\n".join(p for p in paragraphs if not p.startswith(tuple(f"{s}:\n" for s in SECTIONS)))


def methods(cls: type) -> str:
    """Public methods and properties that a class itself defines, with their docstrings, as Python without bodies."""
    _, body = _source(cls)
    functions = [n for n in body if isinstance(n, ast.FunctionDef) and (n.name == "__call__" or n.name[0] != "_")]
    return "\n\n".join(map(_stub, functions))


def function(made: Callable[..., Any]) -> str:
    """A function with its docstring, as Python without a body."""
    node = ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]
    return _stub(node) if isinstance(node, ast.FunctionDef) else ""


def _stub(node: ast.FunctionDef) -> str:
    """Decorators, signature and docstring; a long signature has a line for each argument."""
    text = ast.get_docstring(node)
    decorators = [f"@{ast.unparse(one)}" for one in node.decorator_list]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({ast.unparse(node.args)}){returns}:"
    if len(line) > WIDTH:
        line = f"def {node.name}(\n    {_arguments(node.args)},\n){returns}:"
    quoted = [f'"""{text}' + ('\n"""' if "\n" in text else '"""')] if text else ["..."]
    return "\n".join([*decorators, line, *(textwrap.indent(part, "    ") for part in quoted)])


def _arguments(args: ast.arguments) -> str:
    """One argument on each line."""
    whole, lines, depth = ast.unparse(args), [""], 0
    for sign in whole:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            lines.append("")
        else:
            lines[-1] += sign
    return ",\n    ".join(line.strip() for line in lines)


def _source(cls: type) -> tuple[list[str], list[ast.stmt]]:
    text = textwrap.dedent(inspect.getsource(cls))
    (made,) = ast.parse(text).body
    return text.splitlines(), made.body if isinstance(made, ast.ClassDef) else []
