"""Text that is safe and pleasant to print."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """Without terminal control and direction-changing characters: names and captions come from strangers."""
    return CONTROL.sub("�", str(text))


def json_text(content: Any) -> str:
    """Strict, indented JSON."""
    return json.dumps(content, indent=2, allow_nan=False, default=str)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], right: Sequence[int] = ()) -> str:
    """A plain table; columns in `right` are aligned right."""
    from tabulate import tabulate

    align = ["right" if i in right else "left" for i in range(len(headers))]
    cells = [[printable(cell) for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="simple", colalign=align if rows else None, disable_numparse=True)


def pairs(items: Mapping[str, object]) -> str:
    """`name  value` lines, values aligned."""
    width = max((len(k) for k in items), default=0)
    return "\n".join(f"{k:<{width}}  {printable(v)}" for k, v in items.items() if v not in ("", None))


def bytes_text(count: float) -> str:
    """`812 B`, `3.2 kB`, `4.27 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:  # which would be shown as 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def seconds_text(seconds: float) -> str:
    """`850 ms`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
