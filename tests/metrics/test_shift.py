"""Two sets are as far apart as they are: by analytic cases, by equal sets, by planted differences."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from mia_bench.metrics.shift import frechet, frechet_shift, word_shift, words_of


def normal(n, d, seed, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_a_shift_of_the_mean_is_its_square():
    left = normal(200, 5, 0)
    assert frechet(left, left) == pytest.approx(0, abs=1e-9)
    assert frechet(left, left + np.array([3, 0, 0, 0, 4])) == pytest.approx(25)


def test_spreads_of_one_axis():
    """Of one dimension: (m1 - m2)^2 + (s1 - s2)^2."""
    left, right = normal(50, 1, 0), normal(80, 1, 1, 2.0, 3.0)
    expected = (left.mean() - right.mean()) ** 2 + (left.std(ddof=1) - right.std(ddof=1)) ** 2
    assert frechet(left, right) == pytest.approx(expected)


def test_against_the_matrix_square_root():
    from scipy.linalg import sqrtm

    left = normal(90, 6, 0) @ normal(6, 6, 1)
    right = normal(70, 6, 2) @ normal(6, 6, 3) + 1
    a, b = np.cov(left.T), np.cov(right.T)
    mean = left.mean(0) - right.mean(0)
    assert frechet(left, right) == pytest.approx(mean @ mean + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_more_dimensions_than_samples():
    left, right = normal(20, 50, 0), normal(20, 50, 1)
    padded = [np.pad(x, ((0, 0), (0, 30))) for x in (left, right)]
    assert frechet(left, right) > 0
    assert frechet(*padded) == pytest.approx(frechet(left, right)), "axes without spread say nothing"


def test_equal_classes_are_no_farther_apart_than_members_are():
    found = frechet_shift(normal(400, 16, 0), np.arange(400) < 200)
    assert found.half == 100
    assert found.low <= found.floor_high and found.value == pytest.approx(found.floor, rel=0.2)


def test_a_planted_shift_clears_the_floor():
    member = np.arange(300) < 200
    found = frechet_shift(normal(300, 16, 0) + 0.7 * member[:, None], member)
    assert found.half == 100
    assert found.low > 2 * found.floor_high
    assert found.floor_low <= found.floor <= found.floor_high
    assert found == frechet_shift(normal(300, 16, 0) + 0.7 * member[:, None], member), "seeded"


@pytest.mark.parametrize(("members", "others"), [(19, 50), (50, 9), (0, 50)])
def test_too_few_is_said(members, others):
    with pytest.raises(ValueError, match=f"{members} members and {others} non-members"):
        frechet_shift(normal(members + others, 3, 0), np.arange(members + others) < members)


def test_words():
    assert words_of("A Löwe's 2nd snake_case, naïve—test") == [
        "a",
        "löwe",
        "s",
        "2nd",
        "snake",
        "case",
        "naïve",
        "test",
    ]


def test_a_word_of_one_class_is_found_with_its_exact_p_value():
    ours = ["stock photo of a cat"] * 30 + ["a cat"] * 10
    others = ["a cat, stock stock"] * 5 + ["a dog"] * 35
    found, tested = word_shift(ours, others)
    by_word = {row.word: row for row in found}
    assert tested == 6
    assert "a" not in by_word and {"stock", "photo", "dog", "cat"} <= by_word.keys()
    stock = by_word["stock"]
    assert (stock.members, stock.nonmembers) == (30, 5), "captions, not occurrences"
    exact = fisher_exact([[30, 5], [10, 35]]).pvalue
    assert exact <= stock.p_value <= 6 * 2 * exact
    assert [row.p_value for row in found] == sorted(row.p_value for row in found)


def test_equal_captions_differ_in_no_word():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    named = 0
    for _ in range(20):
        captions = [" ".join(rng.choice(words, 6)) for _ in range(200)]
        found, tested = word_shift(captions[:100], captions[100:])
        assert tested == 60
        named += bool(found)
    assert named <= 3


def test_rare_words_and_empty_classes_are_not_tested():
    assert word_shift(["rare"] * 4, ["other"] * 4) == ([], 0)
    assert word_shift([], ["word"] * 9) == ([], 0)
