"""What attacks take for captions: chosen without a look at membership, the same for any part of the dataset."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from mia_bench.dataset import Sample
from mia_bench.engine import captions
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.testing import StubEncoder


def picture(i):
    return lambda: Image.new("RGB", (16, 16), (i * 8, 0, 0))


def samples(count=12):
    return [
        Sample(
            id=f"s{i}",
            image=picture(i),
            content=f"{i:064x}",
            caption=f"thing {i}",
            member=i % 2 == 0,
            split="audit" if i < 8 else "calibration",
            word_weights=(float(i), 1.0),
        )
        for i in range(count)
    ]


def recaptioned(some, *given):
    return captions.recaptioned(some, some, *given)


def nobody(name):
    raise AssertionError(f"asked for {name}")


def by_id(found):
    return {s.id: s.caption for s in found}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))


def test_true_null_and_neutral():
    own = samples()
    assert recaptioned(own, "true", nobody) == own
    assert {(s.caption, s.word_weights) for s in recaptioned(samples(), "null", nobody)} == {(None, None)}
    assert {(s.caption, s.word_weights) for s in recaptioned(samples(), "neutral", nobody)} == {("an image", None)}
    assert set(by_id(recaptioned(samples(), "neutral:a photo: one", nobody)).values()) == {"a photo: one"}


def test_shuffled_stays_within_its_split_and_gives_nobody_its_own():
    own, found = by_id(samples()), recaptioned(samples(), "shuffled", nobody)
    for split in ("audit", "calibration"):
        ids = [s.id for s in samples() if s.split == split]
        assert sorted(by_id(found)[i] for i in ids) == sorted(own[i] for i in ids)
    assert all(by_id(found)[i] != own[i] for i in own)
    assert all(s.word_weights[0] == int(s.caption.split()[1]) for s in found)
    assert by_id(recaptioned(samples(), "shuffled:1", nobody)) != by_id(found)


def test_shuffling_sees_neither_order_nor_membership():
    found = by_id(recaptioned(samples(), "shuffled", nobody))
    assert by_id(recaptioned(samples()[::-1], "shuffled", nobody)) == found
    assert by_id(recaptioned([replace(s, member=None) for s in samples()], "shuffled", nobody)) == found


def test_a_sample_without_a_caption_neither_gives_nor_takes_one():
    bare = [replace(samples()[0], caption=None), *samples()[1:]]
    found = by_id(recaptioned(bare, "shuffled", nobody))
    assert found["s0"] is None and None not in [found[f"s{i}"] for i in range(1, 12)]


class Counting(StubEncoder):
    asked = 0

    def captioned(self, images):
        type(self).asked += 1
        return super().captioned(images)


def test_generated_captions_are_of_the_image_and_remembered():
    Counting.asked = 0
    first = by_id(recaptioned(samples(), "generated:stub", lambda name: Counting(), "cpu"))
    assert len(set(first.values())) == 12 and Counting.asked == 12
    assert by_id(recaptioned(samples(), "generated:stub", lambda name: Counting(), "cpu")) == first
    assert Counting.asked == 12


def test_only_what_a_run_takes_is_described():
    Counting.asked = 0
    found = captions.recaptioned(samples()[:2], samples(), "generated:stub", lambda name: Counting(), "cpu")
    assert len(found) == Counting.asked == 2


def test_a_part_is_given_the_captions_of_the_whole():
    whole = by_id(recaptioned(samples(), "shuffled", nobody))
    assert by_id(captions.recaptioned(samples()[:3], samples(), "shuffled", nobody)) == {
        f"s{i}": whole[f"s{i}"] for i in range(3)
    }


def test_an_image_that_cannot_be_read_gets_no_caption(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    found = by_id(
        recaptioned([Sample("x", tmp_path / "x.png", "f" * 64), *samples(2)], "generated", lambda n: StubEncoder())
    )
    assert found["x"] is None and all(found[f"s{i}"] for i in range(2))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("own", "true, null, neutral, shuffled, generated"), ("null:x", "takes no argument"), ("neutral:", "nothing")],
)
def test_what_means_nothing_is_refused(wanted, why):
    with pytest.raises(UsageError, match=why):
        recaptioned(samples(), wanted, nobody)


def test_equal_captions_cannot_be_shuffled():
    with pytest.raises(UsageError, match="no two captions that differ"):
        recaptioned([replace(s, caption="same") for s in samples()], "shuffled", nobody)


def test_the_choice_is_part_of_a_runs_identity(tmp_path):
    def planned(choice, limit=4):
        options = RunOptions(attacks="loss", limit=limit, captions=choice, out=tmp_path)
        return prepare(Registry.load(), options).plan

    plans = {c: planned(c) for c in ("true", "null", "neutral", "shuffled")}
    assert all(plan.captions == choice for choice, plan in plans.items())
    assert len({plan.samples.digest_of_all for plan in plans.values()}) == 4
    few, more = planned("shuffled", 2).samples, plans["shuffled"].samples
    assert set(few.pairs) < set(more.pairs)  # measured once, used for both
    assert not plans["null"].uses_captions


def test_an_attack_that_needs_captions_cannot_run_without(tmp_path):
    with pytest.raises(UsageError, match="needs captions"):
        prepare(Registry.load(), RunOptions(attacks="clid", limit=4, captions="null", out=tmp_path))


def test_a_captioner_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnavailableError, match="blip"):
        prepare(Registry.load(), RunOptions(attacks="loss", limit=4, captions="generated", out=tmp_path))
    with pytest.raises(UsageError, match="emoji-clip offers no caption"):
        prepare(Registry.load(), RunOptions(attacks="loss", limit=4, captions="generated:emoji-clip", out=tmp_path))
