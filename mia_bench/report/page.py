"""What all pages share: one file that needs nothing else, in which text of strangers stays text.

Captions, names and images come from strangers: text is escaped, and pictures are decoded, shrunk and encoded anew.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import UsageError, brief
from mia_bench.report.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 160  # px of a thumbnail's longer side
CAPTION = 120  # characters
KINDS = {True: "member", False: "nonmember", None: "unknown"}
SAID = {True: "member", False: "non-member", None: "unknown"}


def render(template: str, **content: Any) -> str:
    """A template of `templates/`, everything but `Markup` escaped and without control characters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(
        loader=PackageLoader("mia_bench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # what is markup already stays
        trim_blocks=True,
    )
    return house.get_template(template).render(**content)


def write(path: Path, text: str) -> None:
    """Write a page; the file is replaced if it exists.

    Raises:
        UsageError: The file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = error.strerror or brief(error)
        raise UsageError(f"file {path}", why, "give --html a path that can be written") from error


def thumbnail(image: Image, side: int = SIDE) -> str:
    """A picture as a `data:` address, its longer side at most `side` px."""
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def short(caption: str | None) -> str:
    """The beginning of a caption."""
    text = caption or ""
    return text if len(text) <= CAPTION else text[:CAPTION] + " ..."
