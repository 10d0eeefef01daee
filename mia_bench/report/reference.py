"""`docs/attacks.md`, `docs/datasets.md` and `docs/targets.md`: their sections are made of metadata and docstrings.

The pages of `docs/reference` are made in `manual.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.attack import Attack, Control
from mia_bench.dataset import Dataset
from mia_bench.engine.select import attack_of
from mia_bench.errors import UsageError
from mia_bench.report.catalogue import cell, described, queries_text, usage
from mia_bench.report.manual import PAGES, page
from mia_bench.report.markdown import code, fenced, markdown, markdown_table, paper_link, prose
from mia_bench.report.parameters import parameters, value_text

if TYPE_CHECKING:
    from mia_bench.plugins import Registry
    from mia_bench.target import Target

HIDDEN = {"name", "summary", "about", "preset", "argument"}  # said in other words
TEMPLATES = Path(__file__).parent / "templates"
INTRODUCTION = """\
# Attacks

Written by `mia-bench describe all --markdown`; not to be edited by hand.

Scores are higher for members, whichever way the paper's own quantity points. In equations s is the score, x_0 the image
or its latents, x_t = a_t x_0 + b_t ε the same noised to timestep t, e(x, t, c) the noise that the model predicts, under
the caption c where there is one. *Queries* are images through the denoiser, per audited image; a guided step is two. A
parameter of the stage `score` can be changed without measuring anew: `mia-bench score RUN -o NAME.PARAMETER=VALUE`.
"""


def show_markdown(registry: Registry, name: str) -> None:
    """Print a whole page, or the section of one attack, dataset or target.

    Raises:
        UsageError: The name is of none of these.
    """
    books: dict[str, Mapping[str, Any]] = {"datasets": registry.datasets, "targets": registry.targets}
    if name == "all":
        print(attacks_page(registry), end="")
    elif name in PAGES:
        print(page(name), end="")
    elif name in books:
        print((TEMPLATES / f"{name}.md").read_text(encoding="utf-8").replace("{entries}", entries(books[name])), end="")
    elif name in registry.encoders or name in registry.executors:
        kind = "encoders" if name in registry.encoders else "executors"
        raise UsageError(f"{name} as Markdown", f"{kind} have no such page", "leave out --markdown")
    else:
        own = next((book[name] for book in books.values() if name in book), None)
        print(entry(own) + "\n" if own else attack_section(attack_of(registry, name)), end="")


def entries(book: Mapping[str, Any]) -> str:
    """All datasets or targets; what a module says to users of its datasets follows the last of these."""
    modules: dict[str, list[Any]] = {}
    for _, cls in sorted(book.items()):
        modules.setdefault(cls.__module__, []).append(cls)
    blocks: list[str] = []
    for classes in modules.values():
        blocks += map(entry, classes)
        if issubclass(classes[0], Dataset):
            blocks.append(fenced(usage(classes[0])))
    return "\n\n".join(blocks)


def entry(cls: type[Dataset] | type[Target]) -> str:
    """All that is known about one dataset or target."""
    facts = {key: value for key, value in described(cls).items() if key not in HIDDEN}
    option = "dataset" if issubclass(cls, Dataset) else "target"
    written = f"--{option} {cls.meta.name}" + (f":{cls.meta.takes}" if cls.meta.takes else "")
    items = {"select": code(written)} | {key: prose(cell(value)) for key, value in facts.items() if value}
    return "\n\n".join(
        [
            f"### {cls.meta.name}",
            prose(cls.meta.summary),
            *map(prose, inspect.cleandoc(cls.__doc__ or "").split("\n\n")),
            "\n".join(f"- {key}: {text}" for key, text in items.items()),
        ]
    )


def attacks_page(registry: Registry) -> str:
    """The whole page: a table of contents, the attacks, then the controls."""
    shown = sorted(registry.attacks.items(), key=lambda item: (issubclass(item[1], Control), item[0]))
    rows = [
        [
            f"[{code(name)}](#{name})" + (" (control)" if issubclass(cls, Control) else ""),
            str(cls.meta.access),
            cls.meta.caption,
            cls.meta.calibration,
            queries_text(cls),
            paper_link(cls.meta.paper),
            markdown(cls.meta.summary),
        ]
        for name, cls in shown
    ]
    headers = ["attack", "access", "captions", "calibration set", "queries", "paper", "what is measured"]
    sections = [attack_section(cls) for _, cls in shown]
    return "\n".join([INTRODUCTION, markdown_table(rows, headers), "", *sections])


def attack_section(cls: type[Attack]) -> str:
    """All that is known about one attack."""
    meta = cls.meta
    paragraphs, needs = inspect.cleandoc(cls.__doc__ or meta.summary).split("\n\n"), sorted(meta.needs)
    facts = {
        "access": f"{meta.access}; needs {', '.join(needs)}" if needs else str(meta.access),
        "captions": meta.caption,
        "calibration set": meta.calibration,
        "paper": ", ".join(filter(None, [paper_link(meta.paper), markdown(meta.citation)])),
        "licence of the authors' program": markdown(meta.licence),
        "the paper's own quantity": meta.orientation,
    }
    presets = [[code(meta.name), "defaults", queries_text(cls)]]
    for name, values in cls.presets.items():
        sets = ", ".join(code(f"{key}={value_text(value)}") for key, value in values.items())
        presets.append([code(f"{meta.name}@{name}"), sets, queries_text(cls, name)])
    fields = [
        [code(p["name"]), markdown(p["type"]), code(p["default"]), markdown(p["stage"]), prose(p["meaning"])]
        for p in parameters(cls)
    ]
    blocks = [
        f"## {meta.name}",
        *map(prose, paragraphs),
        *([fenced(meta.equation)] if meta.equation else []),
        "\n".join(f"- {name}: {text}" for name, text in facts.items() if text),
        markdown_table(presets, ["select", "sets", "queries"]),
        *([markdown_table(fields, ["parameter", "type", "default", "stage", "meaning"])] if fields else []),
    ]
    if meta.faults:
        faults = "\n".join(f"- {prose(fault)}" for fault in meta.faults)
        blocks += ["Faults and departures of published programs:", faults]
    return "\n\n".join(blocks) + "\n"
