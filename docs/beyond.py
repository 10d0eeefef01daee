"""Makes the site hold whatever its pages link to: files of the repository beyond docs/ become files of the site.

So one link is right on a code host, in a checkout and on the site. The leaderboard is such a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, *, config: Any) -> Files:
    """Add what pages link to, and what these link to."""
    waiting = [DOCS / file.src_uri for file in files.documentation_pages()] + [ROOT / "leaderboard.md"]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        uri = _uri(path)
        if not path.is_relative_to(DOCS):
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        if path.suffix == ".md":
            waiting += [found for _, found in _beyond(path) if found.is_file()]
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point links at where the files lie on the site."""
    path = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent.as_posix()
    uris = {link: relpath(_uri(found), here) for link, found in _beyond(path)}
    return LINK.sub(lambda m: f"{m[1]}{uris.get(m[2], m[2])}{m[3] or ''}", markdown)


def _beyond(path: Path) -> list[tuple[str, Path]]:
    """Links of a page of which one end lies beyond docs/, and the files that they mean."""
    links = {m[2] for m in LINK.finditer(path.read_text(encoding="utf-8"))}
    found = [(link, Path(normpath(path.parent / link))) for link in sorted(links)]
    return [(link, to) for link, to in found if not (path.is_relative_to(DOCS) and to.is_relative_to(DOCS))]


def _uri(path: Path) -> str:
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
