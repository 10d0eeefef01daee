"""LAION-mi: its list from the hub, from the hub's cache or from a folder; its samples are what was fetched."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import encoded

from mia_bench.engine.look import Looker
from mia_bench.errors import SampleError, UnavailableError, UsageError
from mia_bench.fetch.images import Images
from mia_bench.fetch.ledger import Row
from mia_bench.fetch.survivors import freeze
from mia_bench_plugins.datasets.laion_mi import LaionMi

COUNTS = {"members": 5, "nonmembers": 9}
REVISION = "194fe331b99016a85381d9d9d20a65b3edbd76c9"


def put(folder):
    """The two files, as the hub has them."""
    for kind, count in COUNTS.items():
        path = folder / "data" / f"{kind}-00000-of-00001-abc.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"url": [f"http://{kind}.test/{n}.jpg" for n in range(count)]}
        pq.write_table(pa.table({**rows, "caption": [f"{kind} no. {n}" for n in range(count)]}), path)
    return folder


def cached(root):
    """A hub cache that holds the pinned revision."""
    return put(root / "datasets--antoniaaa--laion_mi" / "snapshots" / REVISION)


def survive(dataset, *ids, freeze_list=True):
    """As if these had been fetched."""
    links = {link.id: link for link in dataset.links}
    rows = [Row(id=i, kind=links[i].kind, url=links[i].url, sha256=f"{n:064x}") for n, i in enumerate(ids)]
    return freeze(dataset.folder, rows, {i: "" for i in ids}, {})


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_rows_keep_their_numbers(caches):
    cached(caches / "hub")
    dataset = LaionMi()
    dataset.download()
    links = {link.id: link for link in dataset.urls()}
    assert Counter(link.member for link in links.values()) == {True: 5, False: 9}
    assert links["nonmembers-7"].url == "http://nonmembers.test/7.jpg"
    assert (links["members-4"].caption, links["members-4"].split) == ("members no. 4", "audit")


def test_samples_are_the_survivors_with_the_hashes_of_the_ledger(caches):
    dataset = LaionMi(str(put(caches / "copy")))
    made = survive(dataset, "members-3", "nonmembers-0", "nonmembers-8")
    samples = {s.id: s for s in dataset.samples()}
    assert {i: (s.member, s.caption, s.content[-1]) for i, s in samples.items()} == {
        "members-3": (True, "members no. 3", "0"),
        "nonmembers-0": (False, "nonmembers no. 0", "1"),
        "nonmembers-8": (False, "nonmembers no. 8", "2"),
    }
    assert made.digest in dataset.revision


def test_a_kept_image_is_seen_as_the_file_that_it_is(caches):
    dataset = LaionMi(str(put(caches / "copy")))
    kept = Images(dataset.folder / "images").keep(body := encoded(7, 64, "JPEG"))
    freeze(dataset.folder, [Row(id="members-0", kind="members", url="u", sha256=kept.sha256)], {"members-0": ""}, {})
    (sample,) = dataset.samples()
    seen = Looker({}, None, ()).look(sample)
    assert (seen.format, seen.bytes, seen.width) == ("JPEG", len(body), 64)
    path = Images(dataset.folder / "images").path(kept.sha256)
    for change, why in ((lambda: path.write_bytes(body + b"x"), "damaged"), (path.unlink, "missing")):
        change()
        with pytest.raises(SampleError, match=why):
            sample.open()


def test_a_copy_and_the_hub_share_what_was_fetched(caches):
    cached(caches / "hub")
    survive(LaionMi(), "members-0")
    copy = LaionMi(str(put(caches / "copy")))
    assert [s.id for s in copy.samples()] == ["members-0"]
    assert LaionMi().revision.startswith(REVISION)
    assert not copy.revision.startswith(REVISION), "a copy may be anything"


def test_a_balanced_draw_is_seeded_and_recorded(caches):
    path = put(caches / "copy")
    ids = [f"{kind}-{n}" for kind, count in COUNTS.items() for n in range(count)]
    survive(LaionMi(str(path)), *ids)
    drawn = {}
    for text in ("balanced", "balanced=0", "balanced=1", "balanced=2"):
        dataset = LaionMi(f"{path},{text}")
        samples = dataset.samples()
        assert Counter(s.member for s in samples) == {True: 5, False: 5}
        drawn[text] = {s.id for s in samples}
        assert dataset.revision.endswith(f"+balanced{text[9:] or 0}")
    assert drawn["balanced"] == drawn["balanced=0"]
    assert len(set(map(frozenset, drawn.values()))) > 1
    survive(LaionMi(str(path)), "members-0", "members-1")
    assert LaionMi(f"{path},balanced").samples() == [], "one class alone cannot be balanced"


def test_an_older_list_can_be_named(caches):
    path = put(caches / "copy")
    first = survive(LaionMi(str(path)), "members-0").digest
    survive(LaionMi(str(path)), "members-0", "members-1")
    assert len(LaionMi(str(path)).samples()) == 2
    older = LaionMi(f"{path},list={first[:6]}")
    assert [s.id for s in older.samples()] == ["members-0"]
    assert first in older.revision
    with pytest.raises(UnavailableError, match="no list of survivors 'ffffff'"):
        LaionMi(f"{path},list=ffffff").samples()


def test_a_changed_list_is_refused(caches):
    dataset = LaionMi(str(put(caches / "copy")))
    made = survive(dataset, "members-0", "members-1")
    path = dataset.folder / "survivors" / f"{made.digest}.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UnavailableError, match="not what its name says"):
        dataset.samples()


@pytest.mark.parametrize(
    ("argument", "error", "said", "fix"),
    [
        ("", UnavailableError, "not in the hub's cache", "mia-bench fetch laion-mi"),
        ("nowhere", UnavailableError, "no such folder", "path"),
        ("empty", UnavailableError, "no files members", "parquet"),
        ("other", UnavailableError, "list of urls", "url and caption"),
        ("copy", UnavailableError, "have not been fetched", "mia-bench fetch laion-mi:copy"),
        ("copy,balanced=x", UsageError, "no number", "balanced=0"),
    ],
)
def test_mistakes(caches, monkeypatch, argument, error, said, fix):
    monkeypatch.chdir(caches)
    put(caches / "copy")
    Path("empty").mkdir()
    Path("other").mkdir()
    pq.write_table(pa.table({"link": ["a"]}), "other/members.parquet")
    pq.write_table(pa.table({"link": ["a"]}), "other/nonmembers.parquet")
    with pytest.raises(error) as caught:
        dataset = LaionMi(argument)
        _ = dataset.seed
        dataset.samples()
    assert said in str(caught.value) and fix in caught.value.fix


def test_offline_the_list_is_not_downloaded(caches):
    with pytest.raises(UnavailableError) as caught:
        LaionMi().download()
    assert "HF_HUB_OFFLINE is set" in str(caught.value) and "hf download antoniaaa/laion_mi" in caught.value.fix


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as one dataset at one revision needs."""

    def do_GET(self):
        self.server.asked.append(self.path)
        prefix = f"/datasets/antoniaaa/laion_mi/resolve/{REVISION}/"
        files = {str(p.relative_to(self.server.root)): p for p in self.server.root.rglob("*.parquet")}
        if self.path.startswith("/api/datasets/antoniaaa/laion_mi/revision/" + REVISION):
            names = [{"rfilename": name} for name in (*files, "README.md")]
            self.send(json.dumps({"id": "antoniaaa/laion_mi", "sha": REVISION, "siblings": names}).encode())
        elif self.path.startswith("/api/datasets/antoniaaa/laion_mi/tree/" + REVISION):
            tree = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": p.name} for n, p in files.items()]
            self.send(json.dumps([*tree, {"type": "file", "path": "README.md", "size": 2, "oid": "r"}]).encode())
        elif self.path.removeprefix(prefix) in files:
            path = files[self.path.removeprefix(prefix)]
            self.send(path.read_bytes(), ETag=f'"{path.name}"', X_Repo_Commit=REVISION)
        else:
            self.send(b"{}", 404)

    do_HEAD = do_GET

    def send(self, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("partial", [False, True])
def test_the_list_comes_from_the_hub_once(tmp_path, partial):
    if partial:
        (lost,) = cached(tmp_path / "new").rglob("nonmembers-*.parquet")
        lost.unlink()
    code = (
        "from mia_bench_plugins.datasets.laion_mi import LaionMi\n"
        "one = LaionMi(); one.download(); print(len(one.links)); LaionMi().download(); LaionMi().download()"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        hub.root, hub.asked = put(tmp_path / "files"), []
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_CACHE": str(tmp_path / "new"),
            "HF_HUB_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
        hub.shutdown()
    assert (done.returncode, done.stdout) == (0, "14\n"), done.stderr
    gets = [path for path in hub.asked if path.endswith(".parquet")]
    assert (1 if partial else 2) <= len(gets) <= 4, "a HEAD and a GET of each file, and nothing more the second time"
    assert not [path for path in hub.asked if "README" in path]
