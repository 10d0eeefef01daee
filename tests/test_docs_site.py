"""Links of the documentation lead somewhere, and the site is built of it without asking other hosts."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "leaderboard.md", "examples/README.md")
]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")


def prose(path):
    """A page without its blocks of code."""
    return re.sub(r"^(`{3,}).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """What a page's headings are called in links, on code hosts and on the site alike."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*\\]", r"\1", heading).lower()
        found.add("#" + re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page):
    for link, anchor in LINK.findall(prose(page)):
        there = (page.parent / link).resolve() if link else page
        assert there.exists(), f"{link}: no such file"
        assert there.is_relative_to(ROOT)
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{link}{anchor}: no such heading"


def test_every_page_can_be_reached():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2])
    assert {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")} == {*listed} - {
        "leaderboard.md"
    }


class Loads(HTMLParser):
    """What a page makes a browser fetch, and where its links lead."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.links, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(given["href"])
        elif given.get("src"):
            self.fetched.append(given["src"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site; skipped where mkdocs is not installed (`pip install -e ".[docs]"`)."""
    pytest.importorskip("mkdocs", reason='pip install -e ".[docs]"')
    pytest.importorskip("material", reason='pip install -e ".[docs]"')
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_the_site_is_whole_and_asks_no_other_host(site):
    pages = {path: Loads(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > len([*ROOT.glob("docs/**/*.md")])
    for path, page in pages.items():
        for url in page.fetched:
            assert not urlsplit(url).netloc and not urlsplit(url).scheme, f"{path}: {url}"
            assert (path.parent / unquote(urlsplit(url).path)).exists(), f"{path}: {url}"
        for url in page.links:
            to = urlsplit(url)
            if to.scheme or to.netloc:
                continue
            there = (path.parent / unquote(to.path)).resolve() if to.path else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{path.relative_to(site)}: {url}"
            if to.fragment and there in pages:
                assert unquote(to.fragment) in pages[there].ids, f"{path.relative_to(site)}: {url}"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+(url\()?['\"]?https?:", text), sheet
