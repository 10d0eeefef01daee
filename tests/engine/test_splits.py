"""A calibration set is set apart fairly, once for all, and never holds the like of what is audited."""

from collections import Counter
from dataclasses import replace

import pytest
import tiny
from PIL import Image

from mia_bench.engine import hashes
from mia_bench.engine.hashes import hashes_of
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.splits import divide, joined
from mia_bench.errors import UsageError
from mia_bench.images import read_image
from mia_bench.store import Store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))


def made(members, others, unknown=0, **changes):
    """Samples far from each other, whose hashes are known."""
    kinds = [True] * members + [False] * others + [None] * unknown
    far = 0x9E3779B97F4A7C15  # multiples of the golden ratio have nothing in common
    return [
        replace(tiny.icons(1, 0)[0], id=f"s{i}", group="", member=m, near=(i + 1) * far % 2**64, **changes)
        for i, m in enumerate(kinds)
    ]


def split(samples, fraction=0.25, balance=False, seed=None):
    return divide(samples, fraction, balance, seed, "given")


def apart(samples, **options):
    return {s.id for s in split(samples, **options)[0] if s.split == "calibration"}


def counts(samples):
    return Counter((s.split, s.member) for s in samples)


def test_each_class_gives_its_share():
    divided, division = split(made(40, 80))
    assert counts(divided) == {
        ("calibration", True): 10,
        ("calibration", False): 20,
        ("audit", True): 30,
        ("audit", False): 60,
    }
    assert (division.calibration, division.members, division.nonmembers, division.seed) == (0.25, 10, 20, 0)


def test_the_samples_and_the_seed_decide_and_nothing_else():
    samples = made(40, 40)
    assert apart(samples) == apart(samples[::-1]) == apart(samples, seed=0)
    assert apart(samples) != apart(samples, seed=1)
    assert split(samples)[1].digest == split(samples[::-1])[1].digest
    assert split(samples)[1].digest != split(samples, seed=1)[1].digest
    assert len(apart(samples) & apart(samples[:-1])) > 15, "another list, nearly the same division"


def test_a_larger_share_holds_the_smaller():
    samples = made(40, 40)
    assert apart(samples, fraction=0.1) < apart(samples, fraction=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_near_duplicates_and_groups_never_straddle(seed):
    samples = made(60, 60)
    for i in range(0, 30, 3):  # a chain: the ends are farther apart than near
        base = samples[i].near
        samples[i + 1] = replace(samples[i + 1], near=base ^ 0b1111)
        samples[i + 2] = replace(samples[i + 2], near=base ^ 0b11111111)
        samples[i + 70] = replace(samples[i + 70], group=samples[i].id)
    divided, division = split(samples, 0.5, seed=seed)
    by_id = {s.id: s for s in divided}
    for i in range(0, 30, 3):
        group = [by_id[f"s{j}"] for j in (i, i + 1, i + 2, i + 70)]
        assert len({s.split for s in group}) == len({s.group for s in group}) == 1
    assert division.together == 40
    assert counts(divided)["calibration", True] == counts(divided)["calibration", False] == 30
    assert {s.split for s in divided if s.id in {f"s{i}" for i in range(30)}} == {"audit", "calibration"}


def test_what_is_memorised_or_unlabelled_stays_and_keeps_its_like():
    samples = made(40, 40, unknown=5)
    samples[0] = replace(samples[0], split="memorised")
    samples[1] = replace(samples[1], near=samples[0].near ^ 1)
    samples[41] = replace(samples[41], near=samples[82].near ^ 1)
    for seed in range(10):
        divided = {s.id: s for s in split(samples, 0.5, seed=seed)[0]}
        assert divided["s0"].split == "memorised"
        assert divided["s1"].split == divided["s41"].split == "audit"
        assert {s.split for s in divided.values() if s.member is None} == {"audit"}


def test_a_group_larger_than_the_share_stays_in_the_audit_set():
    samples = [replace(s, near=7) if i < 30 else s for i, s in enumerate(made(40, 40))]
    divided, division = split(samples, 0.25)
    assert counts(divided)["calibration", True] == 10
    assert not {s.id for s in divided if s.near == 7 and s.split == "calibration"}
    assert division.together == 30


def test_balance_cuts_the_larger_class_of_each_split():
    samples = made(40, 90)
    divided, division = split(samples, None, balance=True)
    assert counts(divided) == {("audit", True): 40, ("audit", False): 40}
    assert division.calibration is None and division.balance
    again, _ = split(samples[::-1], None, balance=True)
    assert {s.id for s in again} == {s.id for s in divided}
    assert {s.id for s in split(samples, None, balance=True, seed=1)[0]} != {s.id for s in divided}
    both, _ = split(samples, 0.2, balance=True)
    assert counts(both) == {
        ("calibration", True): 8,
        ("calibration", False): 8,
        ("audit", True): 32,
        ("audit", False): 32,
    }


def test_balance_keeps_the_unlabelled_and_a_calibration_set_of_its_own():
    samples = made(10, 4, unknown=3) + [replace(s, id=f"c{s.id}", split="calibration") for s in made(3, 6)]
    divided, _ = split(samples, None, balance=True)
    assert counts(divided) == {
        ("audit", True): 4,
        ("audit", False): 4,
        ("audit", None): 3,
        ("calibration", True): 3,
        ("calibration", False): 3,
    }


@pytest.mark.parametrize(
    ("samples", "options", "why"),
    [
        ([*made(9, 9), replace(made(1, 0)[0], id="c", split="calibration")], {}, "has a calibration set of its own"),
        (made(9, 0), {}, "no labelled non-members"),
        (made(0, 0, unknown=9), {}, "no labelled members"),
        (made(9, 9), {"fraction": 0.01}, "of 9 members it leaves none"),
        (made(9, 9), {"fraction": 0.99}, "leaves none on one side"),
        ([replace(s, near=5) for s in made(9, 9)], {}, "near-duplicates link them all"),
        (made(9, 0), {"fraction": None, "balance": True}, "no labelled non-members"),
        (made(9, 9), {"fraction": None, "seed": 3}, "nothing is split"),
    ],
)
def test_what_cannot_be_done_is_said(samples, options, why):
    with pytest.raises(UsageError, match=why) as caught:
        split(samples, **options)
    assert caught.value.fix


def test_nothing_asked_for_nothing_done():
    samples = made(3, 3)
    assert divide(samples, None, False, None, "given") == (samples, None)


# Hashes ----------------------------------------------------------------------------------------------------------


def test_images_are_read_once_and_remembered(monkeypatch):
    opened = []
    monkeypatch.setattr("mia_bench.images.read_image", lambda *a: opened.append(a) or read_image(*a))
    samples = tiny.icons(4, 4)
    twin = replace(samples[0], id="twin")
    first = hashes_of([*samples, twin])
    assert len(opened) == 8 and len(first) == 9 and first["twin"] == first[samples[0].id]
    assert hashes_of(samples) == {s.id: first[s.id] for s in samples} and len(opened) == 8
    known = [replace(s, near=3, content=f"{i}") for i, s in enumerate(samples)]
    assert set(hashes_of(known).values()) == {3} and len(opened) == 8


def test_a_damaged_image_costs_itself_alone(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    samples = tiny.icons(10, 10)
    bad = replace(samples[0], id="bad", image=tmp_path / "bad.png", content="missing")
    divided, division = split([*samples, bad])
    assert division.unread == 1
    assert len(divided) == 21


def test_long_readings_say_how_far_they_are(monkeypatch, caplog):
    monkeypatch.setattr(hashes, "EVERY_S", 0.0)
    monkeypatch.setattr(hashes, "PORTION", 5)
    hashes_of(tiny.icons(6, 6))
    assert caplog.records[0].getMessage().split(",")[0] == "5 of 12 images read"


def test_what_shares_a_group_or_a_near_duplicate_is_joined():
    samples = made(6, 0)
    samples[1] = replace(samples[1], group="s0")
    near = {s.id: s.near for s in samples if s.id != "s5"} | {"s2": samples[1].near ^ 3}
    assert joined(samples, near).tolist() == [0, 0, 0, *joined(samples, near)[3:]]
    assert len(set(joined(samples, near))) == 4


# A run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_calibrated_on_what_was_set_apart_whatever_its_limit(tmp_path):
    registry = tiny.registry(samples=tiny.icons(20, 20))
    few, all_ = (
        prepare(registry, RunOptions(attacks="loss", dataset="given", calibration=0.3, limit=limit)).plan
        for limit in (3, None)
    )
    assert few.division == all_.division
    splits = dict(zip(all_.samples.id, all_.samples.split, strict=True))
    assert all(splits[i] == s for i, s in zip(few.samples.id, few.samples.split, strict=True))
    assert Counter(few.samples.split) == {"audit": 6, "calibration": 6}
    assert few.calibration is None and all_.samples.digest_of_all != few.samples.digest_of_all

    result = tiny.go(tmp_path / "run", registry, attacks="loss", calibration=0.3, limit=5, split_seed=4)
    assert result.division == read_plan(Store(tmp_path / "run")).division
    assert result.division.seed == 4
    assert tiny.row(result, "loss").evaluation.asr_calibrated.value is not None
    again = tiny.go(tmp_path / "run", registry, attacks="loss", limit=5)
    assert again.division is None and tiny.row(again, "loss").evaluation.asr_calibrated.value is None


def test_a_copy_of_a_picture_stays_with_it(tmp_path):
    """Through files: a picture and its smaller copy, one labelled a member."""
    rows = []
    for i, sample in enumerate(tiny.icons(30, 0)):
        picture = sample.open().resize((96, 96), Image.Resampling.BICUBIC)
        for name, image in ((f"{i}.png", picture), (f"{i}-small.png", picture.resize((64, 64)))):
            image.save(tmp_path / name)
            rows.append(replace(sample, id=name, group="", image=tmp_path / name, content=name, member=i % 2 == 0))
    divided = {s.id: s.split for s in split(rows, 0.4)[0]}
    assert all(divided[f"{i}.png"] == divided[f"{i}-small.png"] for i in range(30))
    assert Counter(divided.values())["calibration"] == 24
