"""STROLL: pairs of a training image and its look-alike."""

from __future__ import annotations

import pytest
from layouts import encoded, refused, shade, unusable, written

from mia_bench_plugins.datasets.stroll import REVISION, Stroll

HEADER = (
    "image-file-intraining,image-file-outoftraining,image-caption-base-intraining,"
    "image-caption-base-outoftraining,image-caption-alternate-intraining\n"
)


def copied(root, rows="in/0.png,out/0.png,a gate,another gate,the gate again\nin/1.png,out/1.png,a pole,,\n"):
    for number in range(2):
        written(root / "data" / "in" / f"{number}.png", encoded(number))
        written(root / "data" / "images" / "out" / f"{number}.png", encoded(10 + number))
    written(root / "data" / "annotations.csv", (HEADER + rows).encode())
    return root


def test_pairs(tmp_path):
    found = Stroll(str(copied(tmp_path))).samples()
    assert [(s.id, shade(s), s.member, s.caption, s.group) for s in found] == [
        ("000-intraining", 0, True, "a gate", "pair-000"),
        ("000-outoftraining", 10, False, "another gate", "pair-000"),
        ("001-intraining", 1, True, "a pole", "pair-001"),
        ("001-outoftraining", 11, False, None, "pair-001"),
    ]
    assert found[0].labels == {"alternate caption": "the gate again"}


def test_alternate_captions(tmp_path):
    found = Stroll(f"{copied(tmp_path)},captions=alternate").samples()
    assert [s.caption for s in found] == ["the gate again", "another gate", "a pole", None]
    unusable(Stroll, f"{tmp_path},captions=none", "captions")


def test_from_the_hubs_cache_at_the_pinned_revision(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(
        Stroll,
        "",
        "not whole in the hub's cache",
        fix=f"hf download faridlab/stroll --repo-type dataset --revision {REVISION}",
    )
    copied(tmp_path / "datasets--faridlab--stroll" / "snapshots" / REVISION)
    dataset = Stroll(",captions=alternate")
    assert [shade(s) for s in dataset.samples()] == [0, 10, 1, 11]
    assert dataset.revision == REVISION


@pytest.mark.parametrize("row", [",out/0.png,a,b,c\n", "../x.png,out/0.png,a,b,c\n", "/x.png,out/0.png,a,b,c\n"])
def test_rows_that_are_refused(tmp_path, row):
    refused(Stroll, str(copied(tmp_path, row)), "line 2", "intraining")


def test_copies_that_are_refused(tmp_path):
    refused(Stroll, str(tmp_path), "no annotations.csv")
    refused(Stroll, str(copied(tmp_path, "")), "no rows")
    refused(Stroll, str(tmp_path / "nowhere"), "no such folder")
