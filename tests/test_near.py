"""Near-duplicates are found, other pictures are not, and many hashes take no time."""

import io
import time

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mia_bench.near import NEAR, dhash, near_groups


@pytest.fixture(scope="module")
def photographs():
    """Parts of two photographs, none overlapping."""
    whole = [Image.fromarray(pixels) for pixels in sklearn.datasets.load_sample_images().images]
    corners = [(x, y) for x in range(0, 600, 120) for y in range(0, 400, 120)]
    return [image.crop((x, y, x + 120, y + 120)) for image in whole for x, y in corners if x + 120 <= 640]


@pytest.fixture(scope="module")
def icons(emoji_samples):
    return [s.open() for s in emoji_samples]


def jpeg(image, quality=75):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def bits(left, right):
    return (left ^ right).bit_count()


def found(images, changed):
    """Share of images whose changed copy is taken for them."""
    return np.mean([bits(dhash(i), dhash(changed(i))) <= NEAR for i in images])


def half(image):
    return image.resize((image.width // 2, image.height // 2))


def test_the_hash_says_where_brightness_rises():
    ramp = np.tile(np.arange(0, 180, 5, dtype=np.uint8), (16, 1))
    assert dhash(Image.fromarray(ramp)) == 2**64 - 1
    assert dhash(Image.fromarray(ramp[:, ::-1].copy())) == 0
    top = dhash(Image.fromarray(np.concatenate([ramp, np.zeros_like(ramp)])))
    assert top >> 40 == 0xFFFFFF and top & 0xFFFFFF == 0, "rows from the top, the first in the high bits"
    assert dhash(Image.fromarray(100 + ramp // 20)) == 0, "a plain ground has no direction"


def test_copies_of_photographs_are_found(photographs):
    assert found(photographs, jpeg) > 0.95
    assert found(photographs, half) > 0.95
    assert found(photographs, lambda i: jpeg(half(i))) > 0.9
    assert len(set(near_groups([dhash(i) for i in photographs]))) > 0.8 * len(photographs), "all but the sky"


def test_a_large_crop_is_another_picture(photographs):
    assert found(photographs, lambda i: i.crop((12, 12, 108, 108))) < 0.2


def test_icons_are_the_hard_case(icons):
    assert found(icons, half) > 0.95
    assert found(icons, jpeg) > 0.9
    groups = near_groups([dhash(i) for i in icons])
    assert len(set(groups)) > 0.97 * len(icons), "icons that no two are alike"


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 10), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_linked_ones(hashes, within, random):
    for hash_ in hashes[:6]:  # some neighbours, up to a few bits away
        for _ in range(2):
            hashes = [
                *hashes,
                hash_ ^ sum(1 << random.randrange(64) for _ in range(random.randrange(5)) if True) % 2**64,
            ]
    expected = list(range(len(hashes)))
    for i, a in enumerate(hashes):
        for j, b in enumerate(hashes):
            if bits(a, b) <= within:
                expected = [expected[j] if e == expected[i] else e for e in expected]
    got = near_groups(hashes, within)
    assert len(set(zip(expected, got.tolist(), strict=True))) == len(set(expected)) == len(set(got.tolist()))


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_forty_thousand_take_a_moment(share):
    """Also where most bits are alike, as of pictures on a plain ground."""
    rng = np.random.default_rng(0)
    drawn = rng.random((40_000, 64)) < share
    hashes = (drawn.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(1, dtype=np.uint64)
    hashes[1::100] = hashes[::100] ^ np.uint64(0b1011)
    began = time.process_time()
    groups = near_groups(hashes)
    assert time.process_time() - began < 60, "all pairs take minutes"
    assert (groups[1::100] == groups[::100]).all()


def test_few_or_none():
    assert near_groups([]).tolist() == []
    assert near_groups([7]).tolist() == [0]
    assert near_groups([2**64 - 1, 0, 2**64 - 1]).tolist() == [1, 0, 1]
