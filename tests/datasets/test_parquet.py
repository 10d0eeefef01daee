"""Parquet files as img2dataset writes them: rows, failures, random access."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import encoded, refused, shade, table, unusable, written

from mia_bench.errors import SampleError
from mia_bench_plugins.datasets import shards
from mia_bench_plugins.datasets.parquet import Parquet


def rows(count: int, first: int = 0, failed: dict | None = None, **columns) -> dict:
    """The columns that img2dataset writes."""
    status = [(failed or {}).get(i, "success") for i in range(count)]
    return {
        "url": [f"http://a.example/{i}.jpg" for i in range(count)],
        "caption": [f"picture {i}" for i in range(count)],
        "key": [f"{i:09d}" for i in range(count)],
        "status": status,
        "error_message": [None if s == "success" else "HTTP Error 404" for s in status],
        "width": [16 if s == "success" else None for s in status],
        "sha256": ["of the original" if s == "success" else None for s in status],
        "jpg": pa.array([encoded(first + i) if s == "success" else None for i, s in enumerate(status)], pa.binary()),
        **columns,
    }


def test_rows_are_samples_and_failures_are_counted_by_class(tmp_path, caplog):
    failed = {1: "failed_to_download", 3: "failed_to_download", 4: "failed_to_resize"}
    table(tmp_path / "members" / "00000.parquet", rows(5, failed=failed))
    table(tmp_path / "nonmembers" / "00000.parquet", rows(4, 100, {0: "failed_to_download"}))
    found = {s.id: s for s in Parquet(str(tmp_path)).samples()}
    assert {name: s.member for name, s in found.items()} == {
        "members/000000000": True,
        "members/000000002": True,
        "nonmembers/000000001": False,
        "nonmembers/000000002": False,
        "nonmembers/000000003": False,
    }
    sample = found["members/000000002"]
    assert sample.caption == "picture 2"
    assert sample.labels == {"url": "http://a.example/2.jpg"}
    assert sample.content == hashlib.sha256(encoded(2)).hexdigest()
    assert [shade(s) for s in found.values()] == [0, 2, 101, 102, 103]
    assert [r.getMessage().split(": ", 1)[1] for r in caplog.records] == [
        "4 of 9 rows have no picture and are no samples (2 failed_to_download, 1 failed_to_resize of 5 members; "
        "1 failed_to_download of 4 non-members)"
    ]


def test_columns_named_by_options(tmp_path):
    columns = {
        "img": [encoded(i) for i in range(4)],
        "prompts": [["a", "b"], ["c"], [], None],
        "seen": [True, False, None, True],
        "part": ["", "calibration", "audit", "memorized"],
        "name": ["w", "x", "y", "z"],
        "near": ["g", "g2", None, ""],
        "split": ["train"] * 4,
        "thumb": [b"1"] * 4,
    }
    path = table(tmp_path / "a,b.parquet", columns, image="img")
    options = ",image=img,caption=prompts,member=seen,split_column=part,id=name,group=near"
    found = Parquet(f"{path}{options}").samples()
    assert [(s.id, s.caption, s.member, s.split) for s in found] == [
        ("w", "a", True, "audit"),
        ("x", "c", False, "calibration"),
        ("y", None, None, "audit"),
        ("z", None, True, "memorised"),
    ]
    assert [s.group for s in found] == ["g", "g2", f"sha256:{found[2].content}", f"sha256:{found[3].content}"]
    assert [shade(s) for s in found] == [0, 1, 2, 3]


def test_a_column_that_is_not_ours_is_refused_until_it_is_left_out(tmp_path):
    path = table(tmp_path / "a.parquet", rows(2, split=["train", "train"]))
    refused(Parquet, str(path), "row 000000000", "'train'", fix="split_column=")
    assert len(Parquet(f"{path},split_column=").samples()) == 2
    path = table(tmp_path / "b.parquet", rows(2, member=["perhaps", "no"]))
    refused(Parquet, str(path), "'perhaps'", fix="member=")


def test_the_picture_column(tmp_path):
    two = table(tmp_path / "two.parquet", {"a": [encoded(1)], "b": [encoded(2)], "n": [1]})
    refused(Parquet, str(two), "2 columns hold pictures: a, b", fix=",image=a")
    assert shade(Parquet(f"{two},image=b").samples()[0]) == 2
    refused(Parquet, f"{two},image=n", "'n' holds int64", "a, b", fix="image")
    refused(Parquet, f"{two},image=c", "'c' is not there", fix="image")
    refused(Parquet, f"{two},image=a,caption=c", "no column 'c'; it has n", fix="caption")
    none = table(tmp_path / "none.parquet", {"url": ["x"]})
    refused(Parquet, str(none), "no columns hold pictures", fix="url")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("", ("no path",)),
        ("x,imag=jpg", ("option imag", "did you mean image?")),
        ("x,image=a,image=b", ("option image", "given twice")),
    ],
)
def test_options_that_are_refused(argument, words):
    unusable(Parquet, argument, *words)


def test_places_that_are_refused(tmp_path):
    refused(Parquet, str(tmp_path / "nowhere"), "no such file or folder")
    refused(Parquet, str(tmp_path), "no *.parquet file")
    written(tmp_path / "a.parquet", b"PAR1 but no more")
    refused(Parquet, str(tmp_path), "a.parquet", fix="anew")
    table(tmp_path / "a.parquet", rows(1, failed={0: "failed_to_download"}))
    refused(Parquet, str(tmp_path), "no row has a picture")
    table(tmp_path / "a.parquet", rows(2, key=["k", "k"]))
    refused(Parquet, str(tmp_path), "duplicate id: 'k'")


def test_one_file_on_both_sides_is_refused(tmp_path):
    for side in ("members", "nonmembers"):
        table(tmp_path / side / "0.parquet", rows(1))
    refused(Parquet, str(tmp_path), "labelled both ways", "members/000000000")


def test_a_picture_far_down_a_single_row_group_is_read_alone(tmp_path):
    path = table(tmp_path / "a.parquet", rows(300), rows_each=300)
    assert pq.ParquetFile(path).num_row_groups == 1
    found = Parquet(str(path)).samples()
    assert [shade(found[i]) for i in (299, 0, 150)] == [299, 0, 150]


@pytest.mark.parametrize(("threads", "kept"), [(8, shards.KEPT_BYTES), (1, 0)])
def test_pictures_read_in_their_order_are_decoded_once(tmp_path, monkeypatch, threads, kept):
    monkeypatch.setattr(shards, "KEPT_BYTES", kept)
    found = Parquet(str(table(tmp_path / "a.parquet", rows(600), rows_each=300))).samples()
    opened, real = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda *a, **kw: opened.append(a) or real(*a, **kw))
    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(shade, found)) == list(range(600))
    assert len(opened) == 2  # once for each group of rows
    assert [shade(found[i]) for i in (299, 599, 0, 300)] == [299, 599, 0, 300]
    assert len(opened) == (2 if kept else 4)


def test_a_file_that_changed_is_opened_anew(tmp_path):
    path = table(tmp_path / "a.parquet", rows(3))
    found = Parquet(str(path)).samples()
    assert shade(found[0]) == 0
    table(path, rows(3, 50))
    assert shade(found[0]) == 50
    path.write_bytes(b"no table")
    with pytest.raises(SampleError, match="Parquet"):
        found[0].open()
    table(path, rows(3))
    assert shade(found[0]) == 0


def test_a_damaged_picture_costs_only_its_sample(tmp_path):
    columns = rows(3)
    columns["jpg"] = [encoded(0), b"<html>not found</html>", encoded(2)]
    found = Parquet(str(table(tmp_path / "a.parquet", columns))).samples()
    with pytest.raises(SampleError, match=r"000000001.*not an image"):
        found[1].open()
    assert [shade(found[i]) for i in (0, 2)] == [0, 2]


def test_hashes_are_kept_until_the_file_changes(tmp_path, cache):
    path = table(tmp_path / "a.parquet", rows(3))
    first = [s.content for s in Parquet(str(path)).samples()]
    kept = list((cache / "shards").iterdir())
    assert len(kept) == 1
    index = pq.read_table(kept[0])
    pq.write_table(index.set_column(2, "sha256", [["a", "b", "c"]]), kept[0])
    assert [s.content for s in Parquet(str(path)).samples()] == ["a", "b", "c"]  # so nothing was read again
    kept[0].write_bytes(b"damaged")
    assert [s.content for s in Parquet(str(path)).samples()] == first
    table(path, rows(3, 50))
    assert [s.content for s in Parquet(str(path)).samples()] == [
        hashlib.sha256(encoded(50 + i)).hexdigest() for i in range(3)
    ]


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(written(tmp_path / "file", b"")))
    path = table(tmp_path / "a.parquet", rows(2))
    assert len(Parquet(str(path)).samples()) == 2


@pytest.mark.parametrize(("names", "first"), [(["member", "nonmember"], True), (["nonmember", "member"], False)])
def test_a_class_is_read_by_its_name(tmp_path, names, first):
    label = {"_type": "ClassLabel", "names": names}
    info = json.dumps({"info": {"features": {"member": label, "split": {"_type": "Value"}, "jpg": ["odd"]}}})
    columns = {"jpg": [encoded(i) for i in range(3)], "member": [0, 1, None], "split": ["audit"] * 3}
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": info}), tmp_path / "a.parquet")
    assert [s.member for s in Parquet(str(tmp_path)).samples()] == [first, not first, None]
