"""Datasets of the hub: from a folder, from the hub's cache, from a hub on this machine; splits, columns, revisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from layouts import encoded, refused, shade, table, unusable, written

from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.hf import HuggingFace

COMMIT = "194fe331b99016a85381d9d9d20a65b3edbd76c9"
OTHER = "b9c36063f1be306052bd66ea0d262278e5ef1167"


def part(path: Path, first: int, count: int = 3, **columns) -> Path:
    own = {"image": [encoded(first + i) for i in range(count)], "text": [f"c{first + i}" for i in range(count)]}
    return table(path, {**own, **columns}, image="image")


def cached(home: Path, commit: str = COMMIT, ref: str | None = "main") -> Path:
    """The snapshot folder of owner/name in a hub cache, as huggingface_hub lays it out."""
    repository = home / "datasets--owner--name"
    if ref:
        written(repository / "refs" / ref, commit.encode())
    (repository / "snapshots" / commit).mkdir(parents=True)
    return repository / "snapshots" / commit


def linked(snapshot: Path, name: str, first: int) -> None:
    """A file of a snapshot: a link to a blob."""
    blob = part(snapshot.parents[1] / "blobs" / f"blob{first}", first)
    link = snapshot / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def said(argument: str) -> list:
    return [(shade(s), s.caption, s.member, s.split) for s in HuggingFace(argument).samples()]


def test_splits_by_the_names_of_shards(tmp_path):
    part(tmp_path / "data" / "members-00000-of-00002.parquet", 0, 2)
    part(tmp_path / "data" / "members-00001-of-00002.parquet", 2, 1)
    part(tmp_path / "data" / "nonmembers-00000-of-00001-0123456789abcdef.parquet", 10, 1)
    found = HuggingFace(str(tmp_path)).samples()
    assert [(s.id, shade(s), s.caption, s.member) for s in found] == [
        ("members/members-00000-of-00002/0", 0, "c0", True),
        ("members/members-00000-of-00002/1", 1, "c1", True),
        ("members/members-00001-of-00002/0", 2, "c2", True),
        ("nonmembers/nonmembers-00000-of-00001-0123456789abcdef/0", 10, "c10", False),
    ]


def test_shards_that_are_missing_are_missed(tmp_path):
    part(tmp_path / "data" / "train-00000-of-00003.parquet", 0, 1)
    part(tmp_path / "data" / "train-00002-of-00003.parquet", 1, 1)
    refused(HuggingFace, str(tmp_path), "2 of 3 files of train are here", fix="hf download")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/*\n---\n"
    written(tmp_path / "README.md", card.encode())
    refused(HuggingFace, str(tmp_path), "2 of 3 files of train are here")
    part(tmp_path / "data" / "train-00001-of-00003.parquet", 2, 1)
    assert sorted(row[0] for row in said(str(tmp_path))) == [0, 1, 2]


@pytest.mark.parametrize("above", ["", "data/"])
def test_folders_that_say_more_than_their_shards(tmp_path, above):
    names = ("members/train", "non_members/train", "calibration/members/train", "nonmembers/calibration")
    for number, name in enumerate(names):
        part(tmp_path / f"{above}{name}-00000-of-00001.parquet", 10 * number, 1)
    assert {(row[0], *row[2:]) for row in said(str(tmp_path))} == {
        (0, True, "audit"),
        (10, False, "audit"),
        (20, True, "calibration"),
        (30, False, "calibration"),
    }
    assert [row[0] for row in said(f"{tmp_path},split=members")] == [0]


def test_shards_are_counted_in_each_folder(tmp_path):
    for number, side in enumerate(("members", "nonmembers")):
        part(tmp_path / side / f"train-0000{number}-of-00002.parquet", number, 1)
    refused(HuggingFace, str(tmp_path), "1 of 2 files of train are here")


def test_what_is_not_of_a_split_is_not_in_it(tmp_path):
    for first, name in ((0, "train"), (10, "not_train"), (20, "non-training")):
        part(tmp_path / "data" / f"{name}.parquet", first, 1)
        written(tmp_path / "images" / name / "a.png", encoded(first))
    for place in ("data", "images"):
        assert [row[0] for row in said(f"{tmp_path / place},members=train")] == [0]


def test_a_stray_file_is_in_no_split(tmp_path):
    part(tmp_path / "data" / "train-00000-of-00001.parquet", 0, 1)
    part(tmp_path / "data" / "extra.parquet", 5, 1)
    assert [(row[0], row[2]) for row in said(f"{tmp_path},members=train")] == [(0, True)]
    assert [row[2] for row in said(f"{tmp_path},split=rest")] == [None]


def test_splits_that_options_label(tmp_path):
    for first, name in ((0, "train"), (10, "validation"), (20, "test")):
        part(tmp_path / "plain_text" / f"{name}-00000-of-00001.parquet", first, 1)
    assert [row[2] for row in said(str(tmp_path))] == [None] * 3
    assert said(f"{tmp_path},members=train,nonmembers=test") == [
        (20, "c20", False, "audit"),
        (0, "c0", True, "audit"),
    ]
    assert said(f"{tmp_path},split=train+test,members=train,calibration=train,memorised=test") == [
        (20, "c20", None, "memorised"),
        (0, "c0", True, "calibration"),
    ]
    refused(HuggingFace, f"{tmp_path},split=valid", "no split 'valid'", "validation")
    unusable(HuggingFace, f"{tmp_path},members=train,nonmembers=train", "both")


def test_columns_named_by_options(tmp_path):
    columns = {"image": [encoded(1), encoded(2), None], "label": [0, 7, 1], "seen": [1, 0, 1]}
    table(tmp_path / "train.parquet", columns, image="image")
    assert said(f"{tmp_path},caption=label,member=seen") == [(1, "0", True, "audit"), (2, "7", False, "audit")]


def test_what_the_card_declares(tmp_path):
    part(tmp_path / "a" / "x.parquet", 0, 1)
    part(tmp_path / "a" / "y.parquet", 1, 1)
    part(tmp_path / "b" / "z.parquet", 2, 1)
    card = "---\nlicense: mit\nconfigs:\n"
    one = "- config_name: one\n  data_files:\n  - split: train\n    path: a/x*\n  - split: test\n    path: [a/y*]\n"
    two = "- config_name: two\n  data_files: b/*.parquet\n"
    written(tmp_path / "README.md", f"{card}{one}{two}---\n# A set\n".encode())
    refused(HuggingFace, str(tmp_path), "several configurations: one, two", fix=",config=one")
    assert [(s.id.split("/")[0], shade(s)) for s in HuggingFace(f"{tmp_path},config=one").samples()] == [
        ("train", 0),
        ("test", 1),
    ]
    assert said(f"{tmp_path},config=two")[0][0] == 2
    refused(HuggingFace, f"{tmp_path},config=tw", "no configuration 'tw'", "two")
    (tmp_path / "a" / "y.parquet").unlink()
    refused(HuggingFace, f"{tmp_path},config=one", "no file of its split 'test'")
    written(tmp_path / "README.md", (card + two.replace("b/*", "../b/*") + "---\n").encode())
    refused(HuggingFace, str(tmp_path), "files outside it")
    written(tmp_path / "README.md", b"---\n[: }\n---\n")
    refused(HuggingFace, str(tmp_path), "README.md")


@pytest.mark.parametrize(
    "files",
    [
        "[{path: train.parquet}]",
        "[{split: train}]",
        "[{split: train, path: ''}]",
        "[{split: [], path: x}]",
        "{train: 5}",
        "[5]",
        "5",
        "'**x'",
    ],
)
def test_a_damaged_card_is_refused(tmp_path, files):
    part(tmp_path / "train.parquet", 0, 1)
    written(tmp_path / "README.md", f"---\nconfigs:\n- config_name: own\n  data_files: {files}\n---\n".encode())
    refused(HuggingFace, str(tmp_path), "README.md, configuration own, data_files", fix="correct the card")


def test_configurations_that_are_none_are_refused(tmp_path):
    part(tmp_path / "train.parquet", 0, 1)
    written(tmp_path / "README.md", b"---\nconfigs: 5\n---\n")
    refused(HuggingFace, str(tmp_path), "README.md", fix="correct the card")


def test_image_folders(tmp_path):
    for first, name in ((1, "train/cats/a.png"), (2, "test/dogs/b.png"), (3, "members/c.png"), (4, "d.png")):
        written(tmp_path / name, encoded(first))
    assert said(str(tmp_path)) == [
        (4, None, None, "audit"),
        (3, None, True, "audit"),
        (2, None, None, "audit"),
        (1, None, None, "audit"),
    ]
    assert said(f"{tmp_path},members=train,nonmembers=test") == [
        (2, None, False, "audit"),
        (1, None, True, "audit"),
    ]


def test_image_folders_that_deny_the_option_are_refused(tmp_path):
    for first, name in enumerate(("train/members/a.png", "train/nonmembers/b.png", "test/c.png")):
        written(tmp_path / name, encoded(first))
    refused(HuggingFace, f"{tmp_path},members=train", "train/nonmembers/b.png", "labelled otherwise")
    assert [row[2] for row in said(f"{tmp_path},nonmembers=test")] == [False]


def test_image_folders_with_tables(tmp_path):
    for first, split in ((1, "train"), (2, "test")):
        written(tmp_path / split / "a.png", encoded(first))
        row = {"file_name": "a.png", "prompt": f"p{first}", "seen": first}
        written(tmp_path / split / "metadata.jsonl", json.dumps(row).encode())
    assert said(f"{tmp_path},caption=prompt,nonmembers=test") == [(2, "p2", False, "audit")]
    refused(HuggingFace, f"{tmp_path},caption=words", "metadata.jsonl, line 1", "no column 'words'")
    assert said(f"{tmp_path},split=train,caption=prompt,members=train") == [(1, "p1", True, "audit")]


def test_a_revision_in_the_cache(home):
    for commit, ref, first in ((COMMIT, "main", 0), (OTHER, None, 10)):
        linked(cached(home, commit, ref), "data/train-00000-of-00001.parquet", first)
    dataset = HuggingFace("owner/name")
    assert [shade(s) for s in dataset.samples()] == [0, 1, 2]
    assert dataset.revision == COMMIT
    pinned = HuggingFace(f"owner/name,revision={OTHER}")
    assert [shade(s) for s in pinned.samples()] == [10, 11, 12]
    assert pinned.revision == OTHER


def test_what_is_not_there_and_cannot_be_fetched(home, tmp_path):
    words = ("owner/other", "not whole in the hub's cache")
    refused(HuggingFace, "owner/other", *words, fix="hf download owner/other --repo-type dataset`")
    refused(HuggingFace, "owner/name,revision=v2", "revision v2", fix="--revision v2")
    unusable(HuggingFace, "./no/such/folder", "no such folder")
    unusable(HuggingFace, "owner/nam e", "no such folder")
    with pytest.raises(Exception, match="no dataset given"):
        HuggingFace("")
    written(cached(tmp_path / "hub") / "README.md", b"a card alone")
    refused(HuggingFace, "owner/name", "neither parquet files nor images", fix="hf download owner/name")
    (tmp_path / "empty").mkdir()
    refused(HuggingFace, str(tmp_path / "empty"), "no images")


FILES = {
    "data/members-00000-of-00001.parquet": 0,
    "data/nonmembers-00000-of-00001.parquet": 10,
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for; `owner/gated` is gated."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if "/owner/gated" in path:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "/owner/name" not in path:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if (
            not path.endswith(("/revision/main", f"/revision/{COMMIT}"))
            and "/resolve/" not in path
            and "/tree/" not in path
        ):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            names = [*FILES, "run_me.py"]
            entries = [{"rfilename": name} for name in names]
            info = {"id": "owner/name", "sha": COMMIT, "siblings": entries, "private": False, "tags": []}
            tree = [{"type": "file", "path": name, "size": 1, "oid": "a" * 40} for name in names]
            return self.answer(200, json.dumps(tree if "/tree/" in path else info).encode(), {})
        data = (self.folder / path.split(f"/resolve/{COMMIT}/")[1]).read_bytes()
        return self.answer(200, data, {"ETag": f'"{len(data):040x}"', "X-Repo-Commit": COMMIT})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """A hub on this machine, and a Python whose huggingface_hub asks it."""
    Hub.folder, Hub.asked = tmp_path / "served", []
    for name, first in FILES.items():
        part(Hub.folder / name, first)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "import sys, json\n"
        "from mia_bench.errors import MiaBenchError\n"
        "from mia_bench_plugins.datasets.hf import HuggingFace\n"
        "for argument in sys.argv[1:]:\n"
        "    try:\n"
        "        dataset = HuggingFace(argument)\n"
        "        print(json.dumps([dataset.revision, [[s.member, s.open().size] for s in dataset.samples()]]))\n"
        "    except MiaBenchError as error:\n"
        "        print(json.dumps([str(error), error.fix]))\n"
    )

    def ask(*arguments):
        address = f"http://127.0.0.1:{server.server_address[1]}"
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, **own},
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    yield ask
    server.shutdown()
    server.server_close()


def test_what_the_cache_lacks_is_fetched_once_without_code(hub):
    first, again, gated, absent, wrong = hub(
        "owner/name", "owner/name", "owner/gated", "owner/absent", "owner/name,revision=v9"
    )
    assert first == again == [COMMIT, [[True, [16, 16]]] * 3 + [[False, [16, 16]]] * 3]
    fetched = [line.rpartition("/")[2] for line in Hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert sorted(fetched) == sorted(Path(name).name for name in FILES)
    assert "gated" in gated[0] and "datasets/owner/gated" in gated[1] and "hf auth login" in gated[1]
    assert "no such dataset" in absent[0]
    assert "revision v9: no such revision" in wrong[0] and "commits" in wrong[1]


def test_an_interrupted_download_is_completed(hub, tmp_path):
    (before,) = hub("owner/name")
    repository = tmp_path / "home" / "hub" / "datasets--owner--name"
    (lost,) = repository.rglob("nonmembers-*.parquet")
    lost.resolve().rename(repository / "blobs" / "0123.incomplete")
    lost.unlink()
    assert hub("owner/name") == [before]


def test_a_copy_that_was_never_whole_is_completed_once(hub, tmp_path):
    snapshot = cached(tmp_path / "home" / "hub")
    linked(snapshot, "data/members-00000-of-00001.parquet", 0)
    first, again = hub("owner/name", "owner/name")
    assert first == again == [COMMIT, [[True, [16, 16]]] * 3 + [[False, [16, 16]]] * 3]
    assert len([line for line in Hub.asked if line.startswith("GET /api/") and "/revision/" in line]) == 1
    (snapshot / "data" / "nonmembers-00000-of-00001.parquet").unlink()
    assert hub("owner/name") == [first]


def test_a_copy_is_read_though_the_hub_has_it_no_more(hub, tmp_path):
    snapshot = cached(tmp_path / "home" / "hub")
    linked(snapshot, "data/members-00000-of-00001.parquet", 0)
    snapshot.parents[1].rename(tmp_path / "home" / "hub" / "datasets--owner--absent")
    assert hub("owner/absent") == [[COMMIT, [[True, [16, 16]]] * 3]]


def test_a_copy_that_may_lack_files_is_said_to(home, caplog):
    linked(cached(home), "train.parquet", 0)
    assert len(HuggingFace("owner/name").samples()) == 3
    assert "owner/name: the copy in the hub's cache may lack files" in caplog.text
    assert "HF_HUB_OFFLINE is set" in caplog.text


def test_the_hubs_own_copies(tmp_path):
    for first, name in ((0, "train"), (10, "nonmembers")):
        part(tmp_path / "default" / name / "0000.parquet", first, 1)
    assert [(row[0], row[2]) for row in said(f"{tmp_path},members=train,nonmembers=nonmembers")] == [
        (10, False),
        (0, True),
    ]


def test_a_table_beside_the_images_is_no_table_of_images(tmp_path):
    written(tmp_path / "train" / "a.png", encoded(1))
    table(tmp_path / "train" / "metadata.parquet", {"file_name": ["a.png"], "text": ["one"]})
    assert said(f"{tmp_path},members=train") == [(1, "one", True, "audit")]


def test_a_hub_that_does_not_answer(home):
    with pytest.raises(UnavailableError, match="cannot be reached"):
        HuggingFace("owner/name").samples()
