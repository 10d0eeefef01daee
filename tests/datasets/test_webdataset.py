"""Tar shards as img2dataset writes them: what a sample is, failures, random access."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

import pytest
from layouts import encoded, refused, shade, table, written

from mia_bench.errors import SampleError
from mia_bench_plugins.datasets.webdataset import WebDataset


def shard(path, files, form=tarfile.PAX_FORMAT):
    """A tar file of (name, bytes), with fractional times as webdataset's writer gives them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    return path


def written_by_img2dataset(folder, count, first=0, failed=(), number=0, **columns):
    """A shard and the table beside it."""
    files, meta = [], []
    for i in range(count):
        key = f"{number:05d}{i:04d}"
        row = {
            "url": f"http://a.example/{key}",
            "caption": f"picture {key}",
            "key": key,
            "status": "failed_to_download" if i in failed else "success",
            **{name: values[i] for name, values in columns.items()},
        }
        meta.append(row)
        if i not in failed:
            files += [(f"{key}.jpg", encoded(first + i)), (f"{key}.txt", row["caption"].encode())]
            files.append((f"{key}.json", json.dumps(row, indent=4).encode()))
    table(folder / f"{number:05d}.parquet", {name: [row[name] for row in meta] for name in meta[0]})
    written(folder / f"{number:05d}_stats.json", b"{}")
    return shard(folder / f"{number:05d}.tar", files)


@pytest.mark.parametrize("beside", [True, False])
def test_samples_of_two_shards(tmp_path, caplog, beside):
    written_by_img2dataset(tmp_path / "members", 3, failed=[1])
    written_by_img2dataset(tmp_path / "members", 2, 10, number=1)
    written_by_img2dataset(tmp_path / "nonmembers", 2, 20, failed=[0])
    if not beside:
        for path in tmp_path.rglob("*.parquet"):
            path.unlink()
    found = {s.id: s for s in WebDataset(str(tmp_path)).samples()}
    assert {name: s.member for name, s in found.items()} == {
        "members/000000000": True,
        "members/000000002": True,
        "members/000010000": True,
        "members/000010001": True,
        "nonmembers/000000001": False,
    }
    assert [shade(s) for s in found.values()] == [0, 2, 10, 11, 21]
    sample = found["members/000010001"]
    assert (sample.caption, sample.labels) == ("picture 000010001", {"url": "http://a.example/000010001"})
    assert sample.content == hashlib.sha256(encoded(11)).hexdigest()
    told = [r.getMessage().split(": ", 1)[1] for r in caplog.records]
    lost = "2 of 7 rows have no picture and are no samples (1 failed_to_download of 5 members; "
    assert told == ([lost + "1 failed_to_download of 2 non-members)"] if beside else [])


def test_what_the_table_does_not_say_the_json_does(tmp_path):
    own = [{"member": True, "caption": "json"}, {"member": False, "text": "json"}, {"member": True}]
    files = [(f"{i}.{kind}", data) for i in range(3) for kind, data in (("png", encoded(i)), ("txt", b"a file"))]
    shard(tmp_path / "0.tar", files + [(f"{i}.json", json.dumps(row).encode()) for i, row in enumerate(own)])
    columns = {"key": ["0", "1"], "text": ["table", None], "seen": [False, None]}
    table(tmp_path / "0.parquet", columns)
    found = WebDataset(str(tmp_path)).samples()
    assert [(s.member, s.caption) for s in found] == [(True, "table"), (False, "json"), (True, "a file")]
    found = WebDataset(f"{tmp_path},member=seen,caption=").samples()
    assert [(s.member, s.caption) for s in found] == [(False, None), (None, None), (None, None)]


@pytest.mark.parametrize("beside", [True, False])
def test_columns_named_by_options(tmp_path, beside):
    path = written_by_img2dataset(
        tmp_path, 3, seen=[1, 0, None], part=["calibration", "audit", ""], alt=["x", "y", None]
    )
    if not beside:
        path.with_suffix(".parquet").unlink()
    found = WebDataset(f"{path},member=seen,split_column=part,caption=alt").samples()
    assert [(s.member, s.split, s.caption) for s in found] == [
        (True, "calibration", "x"),
        (False, "audit", "y"),
        (None, "audit", None),
    ]


def test_what_a_sample_is_in_a_tar_of_anybody(tmp_path):
    files = [
        ("./a.PNG", encoded(1)),
        ("./a.txt", b" one \n"),
        ("./dir/b.seg.png", encoded(2)),
        ("./dir/b.jpeg", encoded(3)),
        ("c.json", b'{"caption": "alone"}'),
        ("d.webp", encoded(4)),
        ("d.json", b'{"caption": "four", "member": "yes"}'),
        ("notes", b"no ending"),
    ]
    path = shard(tmp_path / "a.tar", files, tarfile.GNU_FORMAT)
    found = {s.id: s for s in WebDataset(str(path)).samples()}
    assert {name: (shade(s), s.caption, s.member) for name, s in found.items()} == {
        "a": (1, "one", None),
        "dir/b": (3, None, None),
        "d": (4, "four", True),
    }
    only = WebDataset(f"{path},image=seg.png").samples()
    assert [shade(s) for s in only] == [2]


def test_links_and_devices_are_no_pictures(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../../d.png")
        info.size = len(encoded(5))
        archive.addfile(info, io.BytesIO(encoded(5)))
    found = WebDataset(str(path)).samples()
    assert [(s.id, shade(s)) for s in found] == [("../../d", 5)]  # a name, never a place to write to
    assert list(tmp_path.iterdir()) == [path]


def test_shards_that_are_refused(tmp_path):
    whole = written_by_img2dataset(tmp_path / "whole", 3).read_bytes()
    written(tmp_path / "packed.tar", gzip.compress(whole))
    refused(WebDataset, str(tmp_path / "packed.tar"), "packed.tar", "compressed", fix="gunzip")
    for name, data in (("cut.tar", whole[:700]), ("garbage.tar", b"<html>" * 300)):
        written(tmp_path / name, data)
        refused(WebDataset, str(tmp_path / name), name, fix="anew")
    shard(tmp_path / "two.tar", [("a.jpg", encoded(1)), ("a.png", encoded(2))])
    refused(WebDataset, str(tmp_path / "two.tar"), "a has two pictures", fix="")
    shard(tmp_path / "bad.tar", [("a.jpg", encoded(1)), ("a.json", b"{")])
    refused(WebDataset, str(tmp_path / "bad.tar"), "sample a", "not JSON")
    shard(tmp_path / "text.tar", [("a.txt", b"x")])
    refused(WebDataset, str(tmp_path / "text.tar"), "no picture")
    (tmp_path / "empty").mkdir()
    refused(WebDataset, str(tmp_path / "empty"), "no *.tar file")


def test_a_shard_cut_short_afterwards_costs_only_its_samples(tmp_path):
    path = written_by_img2dataset(tmp_path, 2)
    found = WebDataset(str(path)).samples()
    path.write_bytes(path.read_bytes()[:2600])
    assert shade(found[0]) == 0
    with pytest.raises(SampleError, match="ends before"):
        found[1].open()
