"""Your own images: what a folder means, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mia_bench.errors import SampleError, UnavailableError, UsageError
from mia_bench_plugins.datasets import labels
from mia_bench_plugins.datasets.folder import Folder
from mia_bench_plugins.datasets.labels import MISSING


def draw(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path)
    return path


def read(root: Path) -> dict:
    return {s.id: s for s in Folder(str(root)).samples()}


def refused(root: Path, *words: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        Folder(str(root)).samples()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.fix


@pytest.fixture
def images(tmp_path):
    for shade, name in enumerate(["a", "b", "c", "d"]):
        draw(tmp_path / "img" / f"{name}.png", shade)
    return tmp_path


def table(root: Path, text: str) -> Path:
    (root / "metadata.csv").write_text(text, encoding="utf-8")
    return root


def test_a_csv_file(images):
    found = read(
        table(
            images,
            "file_name,caption,member,split,id,group,word_weights,memorised\n"
            'img/a.png,"a cat, asleep",true,,first,pets,1 0.5 2,yes\n'
            "img/b.png,,NonMember,calibration,,,,\n"
            "\n"
            "./img/c.png,x,,audit,,,,\n",
        )
    )
    first, second, third = found.values()
    assert list(found) == ["first", "img/b.png", "img/c.png"]
    assert (first.caption, first.member, first.split, first.group) == ("a cat, asleep", True, "audit", "pets")
    assert first.word_weights == (1, 0.5, 2)
    assert first.labels == {"memorised": "yes"}
    assert first.content == hashlib.sha256((images / "img/a.png").read_bytes()).hexdigest()
    assert first.open().size == (16, 16)
    assert (second.caption, second.member, second.split) == (None, False, "calibration")
    assert (third.caption, third.member, third.labels) == ("x", None, {})


def test_a_jsonl_file(images):
    rows = [
        {"file_name": "img/a.png", "text": "ein Löwe", "member": True, "word_weights": [1, 2.5]},
        {"file_name": "img/b.png", "member": 0, "id": 7, "caption": None, "extra": 3},
        {"file_name": "img/c.png", "member": None, "split": "calibration"},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    (images / "metadata.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    found = read(images)
    assert [s.member for s in found.values()] == [True, False, None]
    assert found["img/a.png"].caption == "ein Löwe"
    assert found["img/a.png"].word_weights == (1, 2.5)
    assert found["7"].labels == {"extra": "3"}
    assert found["img/c.png"].split == "calibration"


@pytest.mark.parametrize("word", ["true", "1", "YES", "member", "Members", "1.0"])
def test_words_for_members(images, word):
    assert read(table(images, f"file_name,member\nimg/a.png, {word} \n"))["img/a.png"].member is True


@pytest.mark.parametrize("word", ["False", "0", "no", "non-member", "nonmember", "0.0"])
def test_words_for_nonmembers(images, word):
    assert read(table(images, f"file_name,member\nimg/a.png,{word}\n"))["img/a.png"].member is False


def test_folders_that_say_the_class(tmp_path):
    for shade, name in enumerate(
        [
            "members/b.png",
            "members/deep/nonmembers/a.PNG",
            "Non-Members/c.jpg",
            "calibration/members/d.webp",
            "nonmembers/calibration/e.png",
            "other/members/f.png",
            "train/g.png",
            "h.png",
            ".hidden/i.png",
            "members/._j.png",
        ]
    ):
        draw(tmp_path / name, 20 * shade)
    (tmp_path / "members" / "b.txt").write_text(" a lion \n", encoding="utf-8")
    (tmp_path / "members" / "notes.md").write_text("no image")
    found = read(tmp_path)
    assert {name: (s.member, s.split) for name, s in found.items()} == {
        "members/b.png": (True, "audit"),
        "members/deep/nonmembers/a.PNG": (True, "audit"),
        "Non-Members/c.jpg": (False, "audit"),
        "calibration/members/d.webp": (True, "calibration"),
        "nonmembers/calibration/e.png": (False, "calibration"),
        "other/members/f.png": (None, "audit"),
        "train/g.png": (None, "audit"),
        "h.png": (None, "audit"),
    }
    assert list(found) == sorted(found)
    assert found["members/b.png"].caption == "a lion"
    assert found["h.png"].caption is None


@pytest.mark.parametrize("name", ["non_members", "Non Members", "NON-MEMBERS", "held_out"])
def test_spellings_of_a_folder(tmp_path, caplog, name):
    draw(tmp_path / name / "a.png", 1)
    assert [s.member for s in read(tmp_path).values()] == [False]
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "unread"),
    [
        ("data/members", "members"),
        ("not_members", "not_members"),
        ("member_images", "member_images"),
        ("Members (old)", "Members (old)"),
        ("nonmenbers", "nonmenbers"),
        ("train/x", ""),
    ],
)
def test_an_unread_folder_that_resembles_a_label_is_named(tmp_path, caplog, name, unread):
    draw(tmp_path / name / "a.png", 1)
    assert [s.member for s in read(tmp_path).values()] == [None]
    assert (f"lie in {unread!r}, which is not read" in caplog.text) is bool(unread) is bool(caplog.records)


@pytest.mark.parametrize("name", ["members/held-out", "nonmembers/members", "calibration/memorised"])
def test_folders_that_deny_each_other_are_refused(tmp_path, name):
    draw(tmp_path / name / "a.png", 1)
    refused(tmp_path, *name.split("/"), "says otherwise")


def test_hashes_of_files_are_remembered_until_they_change(images, cache, monkeypatch):
    monkeypatch.setattr(labels, "SETTLED_NS", 10**15)
    first = {name: s.content for name, s in read(images).items()}
    kept = cache / f"{labels.FILES}.txt"
    assert not kept.exists(), "files that have just changed may change again unseen"
    monkeypatch.setattr(labels, "SETTLED_NS", -1)
    assert {name: s.content for name, s in read(images).items()} == first
    lines = kept.read_text().split("\n")
    assert sorted(json.loads(line.split()[1]) for line in lines if line) == sorted(first.values())
    kept.write_text("\n".join(f'{line.split()[0]} "{"a" * 64}"' for line in lines if line))
    labels._hashes.cache_clear()  # as a new process has it
    assert {s.content for s in read(images).values()} == {"a" * 64}, "so nothing was read again"
    draw(images / "img" / "a.png", 99)
    found = {name: s.content for name, s in read(images).items()}
    assert found["img/a.png"] == hashlib.sha256((images / "img" / "a.png").read_bytes()).hexdigest()


def test_a_missing_file_fails_alone(images):
    found = read(table(images, "file_name,member\nimg/a.png,1\nimg/zz.png,0\nimg,0\n"))
    assert found["img/a.png"].open()
    for name in ("img/zz.png", "img"):
        assert found[name].content == MISSING
        assert found[name].group == name
        with pytest.raises(SampleError, match=name):
            found[name].open()


def test_a_pipe_fails_alone(images):
    os.mkfifo(images / "pipe.png")
    with pytest.raises(SampleError, match="not a regular file"):
        read(table(images, "file_name\npipe.png\n"))["pipe.png"].open()


@pytest.mark.parametrize("name", ["../x.png", "img/../../x.png", "/etc/x.png", "img/../img/a.png"])
def test_paths_stay_in_the_folder(images, name):
    refused(table(images, f"file_name\nimg/b.png\n{name}\n"), "line 3", "leaves the folder", repr(name))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("line 1", "file_name")),
        ("image,caption\nimg/a.png,x\n", ("line 1", "file_name")),
        ("file_name,file_name\nimg/a.png,x\n", ("line 1", "once")),
        ("file_name,caption\nimg/a.png\n", ("line 2", "1 cells under 2 columns")),
        ("file_name,caption\nimg/a.png,x,y\n", ("line 2", "3 cells")),
        ('file_name,caption\nimg/a.png,"x\ny"\nimg/b.png\n', ("line 4", "1 cells")),
        ('file_name,caption\nimg/a.png,"x"y\n', ("line 2",)),
        ('file_name,caption\nimg/a.png,"x\n', ("line",)),
        ("file_name,member\nimg/a.png,1\nimg/b.png,maybe\n", ("line 3", "'maybe'")),
        ("file_name,split\nimg/a.png,test\n", ("line 2", "'test'")),
        ('file_name,caption\n"",x\n', ("line 2", "names no file")),
        ("file_name,caption,word_weights\nimg/a.png,a b,1\n", ("line 2", "1 word_weights for 2 words")),
        ("file_name,caption,word_weights\nimg/a.png,a,one\n", ("line 2", "'one'")),
        ("file_name,caption,word_weights\nimg/a.png,a,nan\n", ("line 2", "finite")),
        ("file_name\n", ("no images",)),
        ("file_name\nimg/a.png\n./img/a.png\n", ("duplicate id", "'img/a.png'")),
        ("file_name,id\nimg/a.png,x\nimg/b.png,x\nimg/c.png,y\nimg/d.png,y\n", ("duplicate id", "'x'", "'y'")),
        ("file_name,group,split\nimg/a.png,g,\nimg/b.png,g,calibration\n", ("both splits", "img/a.png", "img/b.png")),
    ],
)
def test_csv_files_that_are_refused(images, text, words):
    refused(table(images, text), *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ("line 2", "not JSON")),
        ("[1]", ("line 2", "not a JSON object")),
        ("[" * 100_000, ("line 2", "not JSON")),
        ('{"caption": "x"}', ("line 2", "names no file")),
        ('{"file_name": "a\\u0000.png"}', ("line 2", "names no file")),
        ('{"file_name": "a.png", "member": 2}', ("line 2", "'2'")),
        ('{"file_name": "a.png", "id": "\\ud800"}', ("not valid Unicode",)),
    ],
)
def test_jsonl_files_that_are_refused(images, line, words):
    (images / "metadata.jsonl").write_text('{"file_name": "img/a.png"}\n' + line + "\n")
    refused(images, *words)


def test_identical_files_share_a_group_unless_one_is_given(images):
    draw(images / "img" / "e.png", 0)
    found = read(table(images, "file_name,group\nimg/a.png,\nimg/e.png,\nimg/b.png,\n"))
    assert found["img/a.png"].group == found["img/e.png"].group != found["img/b.png"].group


def test_identical_files_in_both_splits_or_both_classes_are_refused(images):
    draw(images / "img" / "e.png", 0)
    rows = "file_name,member,split,group\nimg/a.png,1,audit,x\nimg/e.png,"
    refused(table(images, rows + "0,audit,y\n"), "labelled both ways", "img/a.png", "img/e.png")
    refused(table(images, rows + "1,calibration,y\n"), "both splits", "img/a.png", "img/e.png")
    assert read(table(images, rows + ",audit,y\n"))["img/e.png"].member is None


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no path"):
        Folder().samples()
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "no images")
    draw(tmp_path / "a.png", 1)
    (tmp_path / "metadata.csv").write_bytes(b"file_name\n\xff.png\n")
    refused(tmp_path, "metadata.csv", "UTF-8")
    (tmp_path / "metadata.jsonl").write_text("{}")
    refused(tmp_path, "both metadata.csv and metadata.jsonl")


def test_a_caption_that_cannot_be_read_costs_only_its_sample(tmp_path):
    for name in ("a", "b"):
        draw(tmp_path / f"{name}.png", 1)
        (tmp_path / f"{name}.txt").write_bytes(b"a cat" if name == "a" else b"\xff\xfe\xff")
    found = read(tmp_path)
    assert found["a.png"].caption == "a cat" and found["a.png"].open()
    with pytest.raises(SampleError, match=r"b\.txt cannot be read: not UTF-8 text; save it as UTF-8"):
        found["b.png"].open()
    (tmp_path / "b.txt").unlink()
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(SampleError, match=r"b\.txt cannot be read: not a regular file"):
        read(tmp_path)["b.png"].open()


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("is_member", "member"),
        ("Member", "member"),
        ("membership", "member"),
        ("captions", "caption"),
        ("splits", "split"),
    ],
)
def test_a_column_that_was_meant_to_be_read_is_refused(images, column, meant):
    refused(table(images, f"file_name,{column}\nimg/a.png,1\n"), f"{column!r}", f"did you mean {meant!r}?")
    (images / "metadata.csv").unlink()
    (images / "metadata.jsonl").write_text(f'{{"file_name": "img/a.png"}}\n{{"file_name": "img/b.png", "{column}": 1}}')
    refused(images, f"{column!r}", f"did you mean {meant!r}?")


@pytest.mark.parametrize("column", ["idx", "uid", "ids", "test", "texts", "captions"])
def test_a_column_that_is_merely_similar_is_kept_as_a_label(images, column):
    found = read(table(images, f"file_name,caption,{column}\nimg/a.png,a cat,7\n"))
    assert found["img/a.png"].labels == {column: "7"}


@pytest.mark.parametrize("column", ["idx", "uid", "ids", "test"])
def test_a_short_column_needs_no_caption_beside_it(images, column):
    assert read(table(images, f"file_name,{column}\nimg/a.png,7\n"))["img/a.png"].labels == {column: "7"}


def test_other_columns_are_named_once(images, caplog):
    found = read(table(images, "file_name,text,licence,artist\nimg/a.png,a cat,1,x\nimg/b.png,,2,y\n"))
    assert found["img/a.png"].caption == "a cat"
    assert found["img/b.png"].labels == {"artist": "y", "licence": "2"}
    assert [r.getMessage().split(": ", 1)[1] for r in caplog.records] == [
        "kept as labels, read by no attack: artist, licence"
    ]


def test_a_file_name_that_is_no_text_is_refused(tmp_path):
    draw(tmp_path / "a.png", 1).rename(tmp_path / os.fsdecode(b"\xff.png"))
    refused(tmp_path, "not valid Unicode")


def test_memorised_images(images):
    found = read(table(images, "file_name,member,split\nimg/a.png,1,memorised\nimg/b.png,1,Memorized\n"))
    assert [s.split for s in found.values()] == ["memorised", "memorised"]


def test_memorised_images_by_folder(tmp_path):
    draw(tmp_path / "memorised" / "a.png", 1)
    draw(tmp_path / "members" / "b.png", 2)
    assert {n: s.split for n, s in read(tmp_path).items()} == {"members/b.png": "audit", "memorised/a.png": "memorised"}


def test_tables_in_folders_below(tmp_path):
    for number, name in enumerate(("members/a.png", "members/b.png", "nonmembers/c.png", "calibration/members/d.png")):
        draw(tmp_path / name, number)
    (tmp_path / "members" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "first"}')
    rows = "file_name,member,split\nmembers/d.png,,\n"
    (tmp_path / "calibration" / "metadata.csv").write_text(rows)
    found = read(tmp_path)
    assert {n: (s.member, s.split, s.caption) for n, s in found.items()} == {
        "members/a.png": (True, "audit", "first"),  # b is in no row of its folder's table
        "calibration/members/d.png": (True, "calibration", None),  # an empty cell leaves it to the folder
        "nonmembers/c.png": (False, "audit", None),
    }
    (tmp_path / "members" / "metadata.jsonl").write_text('{"file_name": "a.png", "member": "no"}')
    assert read(tmp_path)["members/a.png"].member is False
    (tmp_path / "calibration" / "metadata.csv").write_text(rows.replace(",,", ",no,"))
    assert read(tmp_path)["calibration/members/d.png"].member is False
    (tmp_path / "members" / "metadata.csv").write_text("file_name\na.png\n")
    refused(tmp_path, "members", "both metadata.csv and metadata.jsonl")


def test_a_table_in_parquet(images):
    columns = {
        "file_name": ["img/a.png", "img/b.png", "img/c.png"],
        "text": ["one", None, "three"],
        "member": pa.array([True, False, None]),
        "word_weights": pa.array([[0.5], None, None], pa.list_(pa.float64())),
        "artist": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), images / "metadata.parquet")
    found = read(images)
    assert [(s.caption, s.member) for s in found.values()] == [("one", True), (None, False), ("three", None)]
    assert found["img/a.png"].word_weights == (0.5,) and found["img/c.png"].labels == {"artist": "3"}
    pq.write_table(pa.table({**columns, "member": ["1", "perhaps", "0"]}), images / "metadata.parquet")
    refused(images, "metadata.parquet, line 2", "'perhaps'")
    pq.write_table(pa.table({"image": ["img/a.png"]}), images / "metadata.parquet")
    refused(images, "metadata.parquet", "file_name")
    (images / "metadata.parquet").write_bytes(b"PAR1")
    refused(images, "metadata.parquet")
    table(images, "file_name\nimg/a.png\n")
    refused(images, "both metadata.csv and metadata.parquet")


def test_a_table_above_labelled_folders_and_text_files(tmp_path):
    for number, name in enumerate(("members/a.png", "non-members/b.png", "non-members/c.png")):
        draw(tmp_path / name, number)
        (tmp_path / name).with_suffix(".txt").write_text(f"text {number}")
    rows = [{"file_name": "members/a.png"}, {"file_name": "non-members/b.png", "member": "yes", "caption": "own"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert {n: (s.member, s.caption) for n, s in read(tmp_path).items()} == {
        "members/a.png": (True, "text 0"),
        "non-members/b.png": (True, "own"),
    }
    table(tmp_path, "file_name,caption\nmembers/a.png,\n")
    (tmp_path / "metadata.jsonl").unlink()
    assert read(tmp_path)["members/a.png"].caption is None, "the column says that it has none"


def test_a_class_folder_without_images_is_refused(tmp_path):
    draw(tmp_path / "nonmembers" / "a.png", 1)
    (tmp_path / "members" / "deep").mkdir(parents=True)
    (tmp_path / "members" / "deep" / "a.txt").write_text("a caption alone")
    refused(tmp_path, "no images in", str(tmp_path / "members"))
    draw(tmp_path / "members" / "deep" / "b.png", 2)
    assert len(read(tmp_path)) == 2
    (tmp_path / "calibration" / "members").mkdir(parents=True)
    refused(tmp_path, str(tmp_path / "calibration" / "members"))


def test_only_nonmembers_or_no_labels_at_all(tmp_path):
    draw(tmp_path / "held-out" / "a.png", 1)
    draw(tmp_path / "suspects" / "b.png", 2)
    assert {n: s.member for n, s in read(tmp_path).items()} == {"held-out/a.png": False, "suspects/b.png": None}
