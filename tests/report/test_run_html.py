"""The page of a run: everything is there, nothing is loaded, and nothing that a stranger wrote is anything but text."""

import base64
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny
from PIL import Image

from mia_bench import Scores
from mia_bench.engine.finished import read_finished
from mia_bench.engine.scores import read_scores
from mia_bench.errors import UsageError
from mia_bench.report import figures
from mia_bench.report.run_html import page, summary, write_report

EVIL = '"><script>alert(1)</script><img src="http://127.0.0.1:{port}/hit" onerror=alert(2)>{{{{ 7*7 }}}}'
EVIL += "$\\frac$\u202e\x1b[31m"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Page(HTMLParser):
    """Tags, text, and the text of each section by its heading."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.sections, self.heading = [], "", {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.heading = ""

    def handle_endtag(self, tag):
        if tag == "h2":
            self.sections[self.heading] = ""

    def handle_data(self, data):
        self.text += data
        if self.heading is not None and self.heading not in self.sections:
            self.heading += data
        elif self.heading:
            self.sections[self.heading] += data


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.hits.append(self.path)
        self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    """A web server that a page must never ask."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        made.hits = []
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def hostile(evil, members):
    """Attacks whose scores tell members from others, whose words are evil, one of which fails."""

    def score(self, measured, calibration):
        noise = np.random.default_rng(0).normal(size=len(measured.ids))
        return Scores(np.array([2.0 * (i in members) for i in measured.ids]) + noise, tags=(evil,), fitted={evil: 1.0})

    def fails(self, measured, calibration):
        raise ValueError(evil)

    def artifacts(self, batch, target):
        return {evil: batch.pixels}

    return tiny.plugin(
        [tiny.attack("good", score=score, artifacts=artifacts), tiny.attack("bad", score=fails), tiny.attack("weak")]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, server):
    """A run of evil samples, and its registry."""
    folder, evil = tmp_path_factory.mktemp("run"), EVIL.format(port=server.server_port)
    samples = [
        replace(s, id=f"{i}{evil}", caption=f"{evil} {s.caption}")
        for i, s in enumerate(tiny.icons(40, 40, calibration=(20, 20), unknown=3))
    ]
    picture = tmp_path_factory.mktemp("files") / "a\x1b[2J\n<b>.png"
    samples[0].open().save(picture)
    samples[0] = replace(samples[0], image=picture, content="file")
    registry = tiny.registry(hostile(evil, {s.id for s in samples if s.member}), samples=samples)
    tiny.go(folder, registry, "good,bad,weak,loss", batch=64, rows=32, artifacts=2, command=f"mia-bench run '{evil}'")
    return folder, registry


@pytest.fixture(scope="module")
def text(made):
    return page(read_finished(*made), pictures=3)


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_no_word_of_a_stranger_is_markup(text, parsed):
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "b>", "link", "iframe", "object", "form", "a", "base", "foreignobject", "image"}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text.count("<script>alert(1)</script>") > 20, "they are shown as they are written"
    assert "{{ 7*7 }}" in parsed.text and "$\\frac$" in parsed.text
    assert not set(text) & {"\u202e", "\x1b", "\x07"}


def test_nothing_is_loaded_from_anywhere(text, parsed):
    sources = [attributes["src"] for _, attributes in parsed.tags if "src" in attributes]
    assert sources and all(src.startswith("data:image/webp;base64,") for src in sources)
    links = [a[name] for _, a in parsed.tags for name in ("href", "xlink:href", "action", "data") if name in a]
    links += re.findall(r"url\(([^)]*)\)", text)
    assert links and all(link.startswith("#") for link in links), "within the page only"
    assert "@import" not in text
    assert not re.search(r"<[^>]*\bhttps?:", re.sub(r'"[^"]*"|&[^;]+;', "", text))
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script-src" not in policy


def test_the_first_words_do_not_praise_what_is_at_chance(made):
    result = read_finished(*made).result
    assert summary(result)[0].startswith("The best of")
    verdicts = {
        r.label: {"auc": r.verdicts["auc"].model_copy(update={"verdict": "at chance"})}
        for r in result.rows
        if r.verdicts
    }
    rows = tuple(r.model_copy(update={"verdicts": verdicts.get(r.label, {})}) for r in result.rows)
    said = summary(result.model_copy(update={"rows": rows}))
    assert said[0].startswith("No attack of") and "at chance" in said[0] and len(said) == 1


def test_every_section_is_there(parsed):
    assert [*parsed.sections] == [
        "Results",
        "Curves and costs",
        "Each attack",
        "Calibration",
        "Controls",
        "Samples",
        "Pictures that attacks saved",
        "What papers print",
        "Skipped, failed, left out",
        "How it was made",
    ]


def test_numbers_are_those_of_the_result(made, parsed):
    result = read_finished(*made).result
    for label in ("good", "weak", "loss"):
        auc = tiny.row(result, label).evaluation.auc
        assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in parsed.sections["Results"]
    assert "40 members, 40 non-members, 3 of unknown membership" in parsed.text
    best = tiny.row(result, "good").evaluation
    assert "The best of 3 attacks is good: of one of the members" in parsed.text
    assert f"{100 * best.auc.value:.1f}\u00a0% of cases" in parsed.text


def test_calibration_gives_the_rates_behind_the_accuracy(made, parsed):
    folder, _ = made
    result = read_finished(*made).result
    metric = tiny.row(result, "good").evaluation.asr_calibrated
    scores = read_scores(folder)["good"]
    found, false = (scores.values[scores.audited(kind)] >= metric.threshold for kind in (True, False))
    said = parsed.sections["Calibration"]
    assert "carried over" in said and "oracle" in said
    for rate in (found.mean(), false.mean()):
        assert f"{rate:.1%} [" in said
    assert abs((found.mean() + 1 - false.mean()) / 2 - metric.value) < 1e-9


def test_a_failure_a_gap_and_a_missing_control_are_said(parsed):
    assert "failed bad: score failed: ValueError" in parsed.sections["Skipped, failed, left out"]
    assert "No control was run" in parsed.sections["Controls"]
    assert "add the control blind" in parsed.text


def test_walls_hold_the_surest_and_the_most_wrong(made, parsed, server):
    scores = read_scores(made[0])["good"]
    order = np.argsort(-scores.values)
    audited = {kind: [i for i in order if i in set(scores.audited(kind).tolist())] for kind in (True, False, None)}
    said = parsed.sections["Samples"]
    evil = EVIL.format(port=server.server_port).replace("\u202e", "�").replace("\x1b", "�")
    for title, rows in (
        ("members with the highest scores", audited[True][:3]),
        ("non-members with the highest scores", audited[False][:3]),
        ("members with the lowest scores", audited[True][-3:]),
        ("Unknown membership", audited[None]),
    ):
        assert title in said
        for i in rows:
            assert scores.ids[i].split('"')[0] + evil in said
    wall = said[said.index("members with the highest scores") :]
    first = scores.ids[audited[True][0]].split('"')[0] + evil
    assert wall.index(first) < wall.index("non-members with the highest")
    share = np.mean(scores.values[scores.audited(False)] >= scores.values[audited[True][0]])
    assert share > 0 or "no non-member scores as high" in wall


def test_saved_pictures_are_shown_with_their_sample(made, parsed):
    rows = json.loads((made[0] / "artifacts" / "index.json").read_text())["rows"]
    said = parsed.sections["Pictures that attacks saved"]
    for row in rows:
        assert f"{row['rank']}: {row['sample'].split(chr(34))[0]}" in said
    plain = [a for t, a in parsed.tags if t == "figure" and a["class"] == "plain"]
    assert len(plain) == len(rows) == 6


def test_the_command_and_what_made_it(made, parsed):
    result = read_finished(*made).result
    said = parsed.sections["How it was made"]
    assert said.lstrip().startswith("mia-bench run '\"><script>")
    for part in (result.samples_hash, result.target_fingerprint, "seed 0", "float32", "torch "):
        assert part in said


def test_figures_have_identifiers_of_their_own_and_follow_the_scheme(text, parsed):
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids)) > 100
    assert not re.search(r"#fe01|<metadata|<style type", text)
    assert "stroke: var(--c1)" in text and "fill: var(--member)" in text
    assert text.count("<style>") == 1


def test_it_is_the_same_page_again(made, text):
    assert page(read_finished(*made), pictures=3) == text


def test_without_pictures_no_image_of_the_dataset_is_in_it(made, tmp_path):
    write_report(tmp_path / "out.html", *made, pictures=0)
    shown = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert not any(tag in ("img", "figure") for tag, _ in shown.tags)
    assert "Samples" not in shown.sections and "Each attack" in shown.sections


def test_a_dataset_that_is_gone_or_changed_is_said(made):
    folder, registry = made
    other = tiny.registry()
    other.datasets.pop("given")
    shown = Page(page(read_finished(folder, other)))
    assert "no images of the samples: dataset given cannot be opened" in shown.text
    assert "Samples" in shown.sections, "their names and scores are known"
    figures_of_samples = [a for t, a in shown.tags if t == "figure" and a["class"] != "plain"]
    assert figures_of_samples and len([t for t, _ in shown.tags if t == "img"]) == 6, "saved pictures alone"
    changed = [replace(s, content="other") for s in registry.datasets["given"]().samples()]
    again = Page(page(read_finished(folder, tiny.registry(samples=changed))))
    assert "another image or caption under this id now" in again.sections["Samples"]


def test_a_results_file_has_no_scores_and_says_so(made, tmp_path):
    alone = tmp_path / "alone.json"
    alone.write_bytes((made[0] / "results.json").read_bytes())
    shown = Page(page(read_finished(alone, made[1])))
    assert "a results file holds no scores" in shown.text
    assert "Each attack" in shown.sections and "Samples" not in shown.sections
    assert "as far as the result tells" in shown.sections["How it was made"]
    assert "--attacks good,bad,weak,loss" in shown.sections["How it was made"]


def test_an_index_cannot_name_files_elsewhere(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made[0], folder)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "secret.png")
    index = json.loads((folder / "artifacts" / "index.json").read_text())
    index["rows"] = [{**index["rows"][0], "pictures": {"a": "../secret.png", "b": str(tmp_path / "secret.png")}}]
    (folder / "artifacts" / "index.json").write_text(json.dumps(index))
    assert not read_finished(folder, made[1]).explained[0].pictures
    (folder / "artifacts" / "index.json").write_text('{"rows": [1]}')
    assert "saved pictures cannot be read" in Page(page(read_finished(folder, made[1]))).text


def test_a_page_that_cannot_be_written_names_the_option(made, tmp_path):
    with pytest.raises(UsageError) as caught:
        write_report(tmp_path / "no" / "out.html", *made)
    assert "--html" in caught.value.fix


def test_a_band_holds_its_curve():
    rng = np.random.default_rng(3)
    members, others = rng.normal(1, 1, 150), rng.normal(0, 1, 300)
    rates, low, high = figures.band(members, others)
    assert rates[0] == 1 / 300 and rates[-1] == 1
    for rate, below, above in zip(rates, low, high, strict=True):
        threshold = np.sort(others)[::-1][min(round(rate * 300), 299)]
        tpr = 1.0 if rate == 1 else np.mean(members > threshold)
        assert below <= tpr <= above
    assert np.all((high - low)[:-1] > 0)


def test_what_each_cost_buys_is_in_colour():
    points = [figures.Point(i, cost, auc, auc - 0.05, auc + 0.05) for i, (cost, auc) in
              enumerate([(1, 0.6), (2, 0.55), (2, 0.7), (5, 0.65), (9, 0.9)])]  # fmt: skip
    drawn = figures.costs(points, "queries", "q")
    assert drawn.count("fill: var(--c1)") >= 3 > drawn.count("fill: var(--unknown)") >= 2
    assert all(f">{p.number}<" in drawn for p in points), "few: all are numbered"
    crowd = [figures.Point(100 + i, 2, 0.5 + i / 1000, 0.4, 0.6) for i in range(20)]
    assert ">101<" not in figures.costs([*points, *crowd], "queries", "q")


@pytest.mark.parametrize("values", [[0.0] * 8, [-np.inf, 1.0, 2.0, np.inf], [np.inf] * 4])
def test_scores_that_are_equal_or_infinite_can_be_drawn(values):
    drawn = figures.histogram([("member", np.array(values)), ("nonmember", np.array(values))], [(0.0, "-")], "h")
    assert drawn.startswith("<svg") and "nan" not in drawn.lower().replace("dominant", "")


def console(path, tmp_path):
    """What Chromium says on its console of a page."""
    profile = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [CHROMIUM, *profile, "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, errors="replace")
    assert "</html>" in done.stdout, done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line], done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: nothing is known of what a browser does")
def test_a_browser_has_nothing_to_say_and_asks_nobody(text, tmp_path, server):
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    server.hits.clear()
    said, content = console(path, tmp_path)
    assert said == [] and server.hits == []
    assert "<script" not in content.replace("&lt;script", "")
    path.write_text(text.replace("</body>", "<script>alert(1)</script></body>"), encoding="utf-8")
    said, _ = console(path, tmp_path)
    assert "Content Security Policy" in " ".join(said), "what is heard of a page that is not inert"


def test_thumbnails_are_made_anew_and_small(parsed):
    sources = [a["src"] for t, a in parsed.tags if t == "img"]
    for src in sources:
        with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as image:
            assert image.format == "WEBP" and max(image.size) <= 128
