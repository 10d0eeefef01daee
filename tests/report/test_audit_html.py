"""The page of an audit: the answer is on it, nothing is loaded, and what strangers wrote is text and nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny

from mia_bench.engine.audit import audit
from mia_bench.engine.finished import read_finished
from mia_bench.errors import UsageError
from mia_bench.report import figures, run_html
from mia_bench.report.audit import caveats, images_answer, set_answer
from mia_bench.report.audit_html import page, write_audit

EVIL = '"><script>alert(1)</script><img src="http://127.0.0.1:9/hit" onerror=alert(2)>{{ 7*7 }}`$\\frac$\u202e\x1b[31m'
COMMAND = f"mia-bench audit '{EVIL}'"


class Page(HTMLParser):
    """Tags and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    @property
    def plain(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An audit of evil images, its run folder and its registry."""
    folder = tmp_path_factory.mktemp("run")
    samples = [
        replace(s, id=f"{i}{EVIL}", caption=f"{EVIL} {s.caption}") for i, s in enumerate(tiny.icons(0, 40, unknown=15))
    ]
    picture = tmp_path_factory.mktemp("files") / "a\x1b[2J\n<b>.png"
    samples[-1].open().save(picture)
    samples[-1] = replace(samples[-1], image=picture, content="file")
    seen = {s.id for s in samples if s.member is None}

    def score(self, measured, calibration):
        return np.array([2.0 * (i in seen) for i in measured.ids]) + np.random.default_rng(0).normal(
            size=len(seen) + 40
        )

    def fails(self, measured, calibration):
        raise ValueError(EVIL)

    def artifacts(self, batch, target):
        return {EVIL: batch.pixels}

    attacks = [tiny.attack("good", score=score, artifacts=artifacts), tiny.attack("bad", score=fails)]
    registry = tiny.registry(tiny.plugin(attacks), samples=samples)
    asked = {"artifacts": 1, "artifacts_of": "suspects", "command": COMMAND}
    tiny.go(folder, registry, "good,bad,loss", batch=64, rows=32, **asked)
    return audit(registry, folder, draws=5), folder, registry


@pytest.fixture(scope="module")
def text(made):
    found, folder, registry = made
    return page(found, read_finished(folder, registry), COMMAND, pictures=4)


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_no_word_of_a_stranger_is_markup_and_nothing_is_loaded(text, parsed):
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "b>", "link", "iframe", "object", "form", "a", "base", "foreignobject", "image"}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text.count("<script>alert(1)</script>") > 20, "they are shown as they are written"
    assert "{{ 7*7 }}" in parsed.text and "$\\frac$" in parsed.text
    assert not set(text) & {"\u202e", "\x1b", "\x07"}
    sources = [attributes["src"] for _, attributes in parsed.tags if "src" in attributes]
    assert sources and all(src.startswith("data:image/webp;base64,") for src in sources)
    links = [a[name] for _, a in parsed.tags for name in ("href", "xlink:href", "action", "data") if name in a]
    links += re.findall(r"url\(([^)]*)\)", text)
    assert links and all(link.startswith("#") for link in links), "within the page only"
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script-src" not in policy and "@import" not in text


def test_answer_places_and_limits_are_on_it(made, parsed):
    found, shown = made[0], parsed.plain.replace("`", "")
    assert "Was tiny trained on these images?" in shown
    said = [*set_answer(found), *images_answer(found), *caveats(found)]
    assert any("Evidence that the model was trained" in line for line in said)
    for line in said:
        assert " ".join(re.sub("[\x1b\u202e]", "�", line).replace("`", "").split()) in shown
    for image in found.images:
        assert image.sample.split('"')[0] + '"' in shown
        for reading in image.readings.values():
            assert f"{100 * reading.percentile:.1f} %" in shown
    assert shown.count("mia-bench audit '") == 1, "a command that was typed once is shown once"
    assert found.samples_hash in shown and found.target_fingerprint in shown


def test_pictures_are_of_those_that_stand_out_most(made, parsed):
    shown = [a for t, a in parsed.tags if t == "figure"]
    own = [a for a in shown if a.get("class") != "plain"]
    out = sum(one.verdict == "stands out" for one in made[0].images[:4])
    assert len(own) == 4 and sum(a.get("class") == "out" for a in own) == out > 0
    assert len(shown) - len(own) == 3, "and what the attack saved"


def test_each_attack_has_a_figure_with_every_image_marked(made, text):
    found = made[0]
    assert text.count("<svg") == len(found.attacks) == 2
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        marks = next(p for p in re.findall(r'<g id="[^"]*LineCollection[^"]*">.*?</g>', svg, re.DOTALL))
        assert len(re.findall(r"<path", marks)) == len(found.images)


def test_without_pictures_no_image_is_in_it(made, tmp_path):
    found, _, registry = made
    write_audit(tmp_path / "out.html", found, registry, pictures=0)
    shown = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert not any(tag in ("img", "figure") for tag, _ in shown.tags) and "One by one" in shown.text
    with pytest.raises(UsageError, match="html"):
        write_audit(tmp_path / "nowhere" / "out.html", found, registry, pictures=0)


def test_the_page_of_such_a_run_names_the_page_of_its_audit(made):
    _, folder, registry = made
    shown = Page(run_html.page(read_finished(folder, registry), pictures=0)).plain
    assert f"mia-bench audit {folder} --html FILE" in shown


def test_marks_beyond_the_unseen_stay_apart():
    svg = figures.places(0.0, 1.0, [1, 2, 1], [-50.0, 0.5, 1.5, 1.8, 99.0], 0.9, "x")
    marks = re.search(r'<g id="[^"]*LineCollection[^"]*">.*?</g>', svg, re.DOTALL)[0]
    places = [float(x) for x in re.findall(r'd="M ([\d.]+)', marks)]
    assert places == sorted(places) and len(set(places)) == 5
