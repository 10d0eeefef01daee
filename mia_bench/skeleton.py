"""A plugin that works, to begin with: one file and its test, or a package that can be installed."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mia_bench.errors import UsageError, brief

if TYPE_CHECKING:
    from mia_bench.plugins import Registry

Kind = Literal["attack", "dataset", "target", "encoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TEMPLATES = Path(__file__).parent / "skeletons"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TRY = {  # what `mia-bench run -p FILE` needs to run it
    "attack": "--attacks {name}",
    "dataset": "--dataset {name} --target emoji-realworld --attacks loss",
    "target": "--target {name} --attacks loss",
    "encoder": "--attacks 'rediffuse[{name}]'",
}


@dataclass(frozen=True)
class Names:
    """What a skeleton's parts are called.

    Attributes:
        kind: Of plugin.
        name: On the command line.
        module: The file's name, without `.py`.
        package: Of the distribution.
        entry: The entry point's name.
    """

    kind: Kind
    name: str
    module: str
    package: str
    entry: str

    @property
    def cls(self) -> str:
        """The class, as in `MyIdea`."""
        return "".join(part.capitalize() for part in self.name.split("-"))


def named(kind: Kind, name: str, package: bool) -> Names:
    """The names of a new plugin.

    Raises:
        UsageError: The name cannot be typed on the command line or imported.
    """
    if not NAME.fullmatch(name):
        why = "a name is lower-case letters and digits, parts joined by hyphens"
        raise UsageError(f"name {name!r}", why, f"e.g. `mia-bench new {kind} my-{kind}`")
    module = name.replace("-", "_")
    module = f"mia_bench_{module}" if package else module
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or find_spec(module):
        fix = f"choose another name, e.g. my-{name}"
        raise UsageError(f"name {name!r}", f"Python already has something called {module}", fix)
    return Names(kind, name, module, f"mia-bench-{name}", name)


def rendered(names: Names, package: bool) -> dict[str, str]:
    """Name of a file -> what is in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Python, not HTML: nothing is escaped, and names are checked.
    templates = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    values = {**vars(names), "cls": names.cls, "article": ("an " if names.kind[0] in "ae" else "a ") + names.kind}
    sources = {f"{names.module}.py": f"{names.kind}.py", f"test_{names.module}.py": "test.py"}
    if package:
        sources["pyproject.toml"] = "pyproject.toml"
    return {name: templates.get_template(f"{source}.jinja").render(values) for name, source in sources.items()}


def write(registry: Registry, kind: Kind, name: str, folder: Path, package: bool = False) -> tuple[list[Path], str]:
    """Write a new plugin.

    Args:
        registry: All plugins; the name must be new.
        kind: Of plugin.
        name: On the command line.
        folder: Where the files go, or the package's folder; made if it is not there.
        package: Whether to write a package.

    Returns:
        The files, the plugin first, and the command that runs it.

    Raises:
        UsageError: The name cannot be used, a file is there already, or cannot be written.
    """
    books: Mapping[str, Mapping[str, type]] = {
        "attack": registry.attacks,
        "dataset": registry.datasets,
        "target": registry.targets,
        "encoder": registry.encoders,
    }
    if name in books[kind]:
        fix = f"choose another; `mia-bench list {kind}s` shows all"
        raise UsageError(f"name {name!r}", "there is one already", fix)
    names = named(kind, name, package)
    root = folder / names.package if package else folder
    files = {root / file: text for file, text in rendered(names, package).items()}
    for path in files:
        if path.exists():
            raise UsageError(f"file {path}", "it is there already", "choose another name, or another folder with --out")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"file {path}", brief(error), "give --out a folder that can be written") from error
    paths = list(files)
    return paths, f"mia-bench run -p {paths[0]} {TRY[kind].format(name=name)} --limit 8"
