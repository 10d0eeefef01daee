"""The page needs nothing, shows what it should, and executes nothing that a dataset says."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import tiny
from PIL import Image

from mia_bench.engine.inspect import inspect_dataset
from mia_bench.plugins import Registry
from mia_bench.report.inspect_html import page

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e\x1b[31m'


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.images, self.figures = [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag == "figure":
            self.figures.append(dict(attrs)["class"])

    def handle_data(self, data):
        self.text += data


def shown(samples):
    registry = Registry.load()
    registry.datasets["given"] = tiny.dataset(samples)
    return page(*inspect_dataset(registry, "given", encoder="emoji-clip"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page of a dataset that says evil things wherever it can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIA_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        samples = [
            replace(s, id=f"{i}{EVIL}", caption=f"{EVIL} {s.caption}", labels={"url": f"https://h{i}.example/"})
            for i, s in enumerate(tiny.icons(12, 12))
        ]
        samples += [replace(samples[0], id="twin", member=False, labels={"url": "javascript:alert(1)"})]
        bad = tmp_path_factory.mktemp("bad") / "<b>bad.png"
        bad.write_bytes(b"<svg onload=alert(1)>")
        samples += [replace(samples[0], id=f"bad{EVIL}", image=bad, content="missing")]
        return shown(samples)


def test_nothing_of_the_dataset_is_markup(hostile):
    parsed = Page(hostile)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "b>bad.png", "svg", "link", "iframe", "object", "form", "a"}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script>alert(1)</script>" in parsed.text, "it is shown as it is written"
    assert "{{ 7 * 7 }}" in parsed.text
    assert "\u202e" not in hostile and "\x1b" not in hostile


def test_nothing_is_loaded_from_anywhere(hostile):
    parsed = Page(hostile)
    assert parsed.images and all(src.startswith("data:image/webp;base64,") for src in parsed.images)
    assert not any("href" in attributes for _, attributes in parsed.tags)
    assert "url(" not in hostile and "@import" not in hostile
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_pictures_are_made_anew_and_small(hostile):
    for src in Page(hostile).images:
        with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as image:
            assert image.format == "WEBP" and max(image.size) <= 160


def test_duplicates_stand_side_by_side(hostile):
    after = hostile[hostile.index("<h2>Same file</h2>") :]
    parsed = Page(after)
    assert parsed.figures == ["member", "nonmember"]
    assert "twin" in parsed.text and "1 of 1 groups" in parsed.text
    assert "1 damaged" in Page(hostile).text


def test_a_large_group_shows_every_class_and_says_how_many_more(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path))
    first, *_ = tiny.icons(1, 0)
    samples = [replace(first, id=f"s{i}", member=i < 20, split="audit" if i else "calibration") for i in range(21)]
    parsed = Page(shown(samples).partition("<h2>Same file</h2>")[2])
    assert len(parsed.figures) == 6 and set(parsed.figures) == {"member", "nonmember"}
    assert "and 15 more" in parsed.text and "calibration member" in parsed.text
