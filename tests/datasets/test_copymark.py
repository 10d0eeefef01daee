"""CopyMark's layout: folders say membership and split, caption.json says the rest."""

from __future__ import annotations

import json

import pytest
from layouts import encoded, refused, shade, unusable, written

from mia_bench_plugins.datasets.copymark import SETUPS, CopyMark


def unpacked(root, name, first, count=2):
    entries = {}
    for i in range(count):
        written(root / name / "images" / f"{i:012d}.jpg", encoded(first + i))
        captions = [f"first {first + i}", "second"]
        entries[str(i)] = {"path": f"{i:012d}.jpg", "height": 16, "width": 16, "caption": captions}
    written(root / name / "caption.json", json.dumps(entries).encode())
    return entries


@pytest.mark.parametrize("setup", SETUPS)
def test_each_setup(tmp_path, setup):
    made = SETUPS[setup]
    for number, name in enumerate(n.format(part) for part in ("eval", "test") for n in (made.members, made.nonmembers)):
        unpacked(tmp_path, name, 10 * number)
    dataset = CopyMark(f"{tmp_path},setup={setup}")
    found = {s.id: s for s in dataset.samples()}
    assert len(found) == 8
    assert {(s.split, s.member, shade(s) // 10) for s in found.values()} == {
        ("calibration", True, 0),
        ("calibration", False, 1),
        ("audit", True, 2),
        ("audit", False, 3),
    }
    sample = found[f"{made.members.format('test')}/1"]
    assert (sample.caption, shade(sample)) == ("first 21", 21)
    assert dataset.targets == (made.target,)


def test_a_setup_is_named(tmp_path):
    unusable(CopyMark, str(tmp_path), "no setup named", "laion-coco")
    unusable(CopyMark, f"{tmp_path},setup=laion-cocoo", "did you mean laion-coco")
    unusable(CopyMark, "", "no path")
    assert CopyMark().targets == ()


def test_folders_that_are_refused(tmp_path):
    argument = f"{tmp_path},setup=laion-coco"
    refused(CopyMark, argument, "no folder laion-aesthetic-2-5k-test", fix="datasets.zip")
    refused(CopyMark, f"{tmp_path},setup=laion-mi", "no folder laion-mi-member-test", fix="not in the zip")
    unpacked(tmp_path, "laion-aesthetic-2-5k-test", 0)
    entries = unpacked(tmp_path, "coco2017-val-2-5k-test", 10)
    assert len(CopyMark(argument).samples()) == 4  # the calibration folders may be absent
    listing = tmp_path / "coco2017-val-2-5k-test" / "caption.json"
    for text, words in (
        ("{", "cannot be read"),
        ("{}", "lists no images"),
        ("[1]", "lists no images"),
        (json.dumps({**entries, "7": {"caption": []}}), "key '7': no `path`"),
        (json.dumps({**entries, "7": {"path": "../../x.jpg"}}), "leaves the folder"),
    ):
        listing.write_text(text)
        refused(CopyMark, argument, str(listing), words)
    listing.unlink()
    refused(CopyMark, argument, str(listing), "cannot be read")


def test_captions_may_be_missing(tmp_path):
    unpacked(tmp_path, "ffhq-2-5k-test", 10)
    entries = unpacked(tmp_path, "celeba-hq-2-5k-test", 0)
    entries["0"]["caption"], entries["1"]["caption"] = [], "alone"
    written(tmp_path / "celeba-hq-2-5k-test" / "caption.json", json.dumps(entries).encode())
    found = CopyMark(f"{tmp_path},setup=celebahq-ffhq").samples()
    assert [s.caption for s in found] == [None, "alone", "first 10", "first 11"]
