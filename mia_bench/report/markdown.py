"""Markdown that shows text as it is: names, captions and docstrings may come from strangers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mia_bench.report.text import printable

SPAN = re.compile(r"`([^`\n]+)`")
LISTS = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s|$)")  # what would start a list at the head of a paragraph
DOI = re.compile(r"doi:(10\.\d+/[\w.;/-]+)", re.ASCII)
OPENREVIEW = re.compile(r"openreview:(\w+)")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(v\d+)?", re.ASCII)


def markdown(text: object) -> str:
    """One line of text, for a paragraph or a table's cell."""
    line = re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", printable(text).replace("\n", " "))
    return LISTS.sub(lambda found: found[1] + found[2][:-1] + "\\" + found[2][-1], line)


def code(text: object) -> str:
    """Text in a code span; `|` is escaped, so it may stand in a table's cell."""
    line = " ".join(printable(text).split()).replace("|", r"\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def prose(text: object) -> str:
    """One line in which code spans keep their meaning, and nothing else does."""
    parts = SPAN.split(" ".join(printable(text).split()))
    return "".join(code(part) if i % 2 else markdown(part) for i, part in enumerate(parts))


def fenced(text: object) -> str:
    """Text in a block of its own, line by line."""
    lines = printable(text).strip()
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return f"{ticks}text\n{lines}\n{ticks}"


def paper_link(paper: str) -> str:
    """An arXiv id, a DOI or a page of OpenReview as a link, anything else as text."""
    if found := ARXIV.fullmatch(paper):
        return f"[{paper}](https://arxiv.org/abs/{found[1]}{found[2] or ''})"
    if found := DOI.fullmatch(paper):
        return f"[{markdown(paper)}](https://doi.org/{found[1]})"
    if found := OPENREVIEW.fullmatch(paper):
        return f"[{markdown(paper)}](https://openreview.net/forum?id={found[1]})"
    return markdown(paper)


def markdown_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """A table of cells that are Markdown already."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
