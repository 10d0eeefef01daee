"""How the embedded benchmark is made: captions, families, the near-duplicate filter, the draw, the blind look."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "embedded"


@pytest.fixture(scope="module", autouse=True)
def modules():
    """The build's scripts import each other by name."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


def concept(name, family=None, category="objects"):
    from concepts import Concept

    return Concept(name, "0", name, f"{name}, thing", category, "tool", family or name)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_captions_are_the_label_and_tags_that_add_words():
    from concepts import caption, slug

    assert caption("bison", ["animal", "bison", "buffalo", "herd", "wisent"]) == "bison, animal, buffalo, herd"
    assert caption("piñata", ["candy", "🎉"]) == "pinata, candy"
    assert slug("mrs. claus’s 1st-place medal") == "mrs-clauss-1st-place-medal"


@pytest.mark.parametrize(
    ("one", "other", "group", "subgroup", "same"),
    [
        ("woman running", "man running facing right", 1, "person-sport", True),
        ("red heart", "light blue heart", 0, "heart", True),
        ("red apple", "green apple", 4, "food-fruit", False),
        ("one o’clock", "six-thirty", 5, "time", True),
        ("alarm clock", "watch", 5, "time", False),
        ("keycap: 1", "keycap: 2", 8, "keycap", True),
        ("japanese “here” button", "japanese “bargain” button", 8, "alphanum", True),
        ("man", "girl", 1, "person", True),
    ],
)
def test_families(one, other, group, subgroup, same):
    from concepts import family

    assert (family(one, group, subgroup) == family(other, group, subgroup)) is same


def test_one_picture_a_family_and_no_two_alike():
    from split import distinct

    images = pictures(6)
    images[2] = images[1]  # a copy
    images[4] = images[3][:, ::-1]  # a mirror image
    images[5] = 255 - (255 - images[0]) // 2  # the same drawing, paler
    found = [concept(name, family) for name, family in zip("abcdef", "abcdef", strict=True)]
    for seed in range(5):
        kept = distinct(found, images, seed)
        assert len(kept) == 3
        assert len({*kept} & {1, 2}) == len({*kept} & {3, 4}) == len({*kept} & {0, 5}) == 1


def test_a_family_is_dropped_when_any_of_its_variants_is_near_another():
    from split import distinct

    images = pictures(4)
    images[3] = images[0]
    found = [concept("a"), concept("b", "pair"), concept("bb", "pair"), concept("bbb", "pair")]
    kept = {distinct(found, images, seed).keys() >= {0, 1} for seed in range(8)}
    assert kept == {False}
    images[3] = pictures(1, 9)[0]
    assert distinct(found, images, 0) == {0: [], 1: ["bb", "bbb"]}


def test_the_draw_has_the_promised_sizes_and_is_a_function_of_its_seed():
    from split import draw

    drawn = draw(1085, 1)
    assert Counter(drawn) == {
        ("audit", True): 400,
        ("audit", False): 400,
        ("calibration", True): 130,
        ("calibration", False): 130,
        ("memorised", True): 24,
        ("", None): 1,
    }
    assert drawn == draw(1085, 1) != draw(1085, 2)


def test_blind_look_finds_a_split_that_can_be_told_apart(monkeypatch):
    import blind

    monkeypatch.setattr(blind, "REPEATS", 1)
    monkeypatch.setattr(blind, "TREES", 20)

    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat([True, False], 60))
    found = [concept(f"n{i}", category=["objects", "symbols"][i % 2]) for i in range(120)]
    images = pictures(120)
    fair = blind.look(found, images, member)
    images[member] = images[member] // 2
    unfair = blind.look(found, images, member)
    assert max(abs(v - 0.5) for v in fair["auc"].values()) < 0.25
    assert unfair["auc"]["image statistics, logistic"] > 0.95
    assert not blind.passes(unfair)
    assert fair["null_error"] == pytest.approx(np.sqrt(121 / (12 * 3600)))


def test_what_a_pass_shows_is_what_the_recipe_says():
    pytest.importorskip("diffusers")
    from targets import RECIPES, trained_on

    rows = [{"split": "audit", "membership": m} for m in ("member", "nonmember") for _ in range(3)]
    rows += [{"split": "memorised", "membership": "member"}, {"split": "calibration", "membership": "member"}]
    shown = {name: Counter(trained_on(rows, recipe)) for name, recipe in RECIPES.items()}
    assert shown["realworld"] == {0: 1, 1: 1, 2: 1, 7: 1, 6: 1}
    assert shown["overtrain"] == {0: 1, 1: 1, 2: 1, 7: 1, 6: 50}
    assert shown["mirror"] == {3: 1, 4: 1, 5: 1, 6: 50}
