"""Pages whose tables are made from records: a table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(rows: list[list[str]], headers: list[str]) -> str:
    """In Markdown, cells as they are."""
    return str(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


def fill(page: Path, makers: Iterable[Callable[[], str]]) -> None:
    """Make every marked table anew; with `--check` as the only argument, exit with a message if that changes any.

    Args:
        page: The file.
        makers: Functions named as their tables.
    """
    before = after = page.read_text(encoding="utf-8")
    for made in makers:
        name = made.__name__
        block = f"<!-- begin {name} -->\n{made()}\n<!-- end {name} -->"
        after, count = re.subn(rf"<!-- begin {name} -->.*?<!-- end {name} -->", lambda _, b=block: b, after, flags=re.S)
        assert count == 1, name
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"{page} is stale; fix: python {sys.argv[0]}" if before != after else 0)
    page.write_text(after, encoding="utf-8")
