"""CLiD's sets from a local copy: two image folders, shadow splits, importance of words, and how to get what is gone."""

from __future__ import annotations

import json

import pytest
from layouts import encoded, refused, shade, unusable, written

from mia_bench_plugins.datasets.clid import CLiDCoco, CLiDFlickr, CLiDPokemon


def side(folder, first, count=2):
    rows = []
    for i in range(count):
        written(folder / f"{i}.jpg", encoded(first + i))
        rows.append({"file_name": f"{i}.jpg", "text": f"a picture {first + i}"})
    written(folder / "metadata.jsonl", "\n".join(map(json.dumps, rows)).encode())


@pytest.mark.parametrize(
    ("members", "nonmembers", "shadows"),
    [
        ("train", "test", ("shadow/train", "shadow/test")),
        ("members", "nonmembers", ("calibration/members", "calibration/nonmembers")),
        ("members", "non_members", ("shadow/Members", "shadow/non_members")),
        ("members", "extra_non-members", ("shadow_members", "shadow non members")),
        ("mia_val17_train", "mia_val17_test", ("mia_val17_split1_train", "mia_val17_split1_test")),
    ],
)
def test_members_nonmembers_and_shadow(tmp_path, members, nonmembers, shadows):
    for number, folder in enumerate((members, nonmembers, *shadows)):
        side(tmp_path / folder, 10 * number)
    written(tmp_path / "logs" / "plot.png", encoded(99))
    found = {s.id: s for s in CLiDCoco(str(tmp_path)).samples()}
    assert {name: (shade(s), s.member, s.split) for name, s in found.items()} == {
        f"{folder}/{i}.jpg": (10 * number + i, number % 2 == 0, "audit" if number < 2 else "calibration")
        for number, folder in enumerate((members, nonmembers, *shadows))
        for i in range(2)
    }
    assert found[f"{members}/1.jpg"].caption == "a picture 1"


@pytest.mark.parametrize("name", ["not_train", "non.train", "train_test", "shadow/not-members", "non_shadow/train"])
def test_a_name_that_contradicts_itself_is_refused(tmp_path, name):
    for number, folder in enumerate(("train", "test", name)):
        side(tmp_path / folder, 10 * number)
    refused(CLiDCoco, str(tmp_path), name.partition("/")[0], "says", fix="rename it")


def test_importance_of_words(tmp_path):
    side(tmp_path / "train", 0)
    side(tmp_path / "test", 10)
    rows = [
        {"ori_texts": "a picture 0", "impts_texts": "a picture 0", "tokens_importance": "0.1 0.7 0.2"},
        {"ori_texts": "a picture 1", "impts_texts": "a picture 1 .", "tokens_importance": "0.1 0.7 0.2 0"},
    ]
    path = written(tmp_path / "impt" / "dealed_coco_imp_metadata.jsonl", "\n".join(map(json.dumps, rows)).encode())
    weights = {s.caption: s.word_weights for s in CLiDFlickr(str(tmp_path)).samples()}
    assert weights["a picture 0"] == (0.1, 0.7, 0.2)
    assert weights["a picture 1"] is weights["a picture 10"] is None
    path.write_text('{"ori_texts": 1}')
    refused(CLiDFlickr, str(tmp_path), "dealed_coco_imp_metadata.jsonl")


@pytest.mark.parametrize(
    ("cls", "how"),
    [(CLiDCoco, "COCO_MIA_ori_split1"), (CLiDFlickr, "ask the authors"), (CLiDPokemon, "taken down")],
)
def test_what_is_missing_says_how_to_ask(cls, how, tmp_path):
    unusable(cls, "", "no path given")
    refused(cls, str(tmp_path / "x"), "no such folder", fix=how)
    side(tmp_path / "train", 0)
    refused(cls, str(tmp_path), "no folder of non-members: test", fix=how)
    (tmp_path / "test").mkdir()
    refused(cls, str(tmp_path), "no images")
