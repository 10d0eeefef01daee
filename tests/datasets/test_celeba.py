"""CelebA as PFAMI and DRC split it."""

from __future__ import annotations

import random

import pytest
from layouts import encoded, refused, shade, unusable, written

from mia_bench_plugins.datasets.celeba import CelebA


@pytest.fixture
def root(tmp_path):
    for number in reversed(range(30)):
        written(tmp_path / "celeba" / "img_align_celeba" / f"{number + 1:06d}.jpg", encoded(number))
    written(tmp_path / "celeba" / "list_attr_celeba.txt", b"202599\n")
    return tmp_path / "celeba"


def test_members_come_first_by_file_name(root):
    found = CelebA(f"{root},members=12,nonmembers=6,each=0").samples()
    assert [(s.id, shade(s), s.member) for s in found] == [(f"{n + 1:06d}.jpg", n, n < 12) for n in range(18)]


def test_the_draw_is_that_of_the_published_program(root):
    random.seed(0)
    members = sorted(random.sample(range(0, 12), 5))
    others = sorted(random.sample(range(12, 18), 5))
    found = CelebA(f"{root},members=12,nonmembers=6,each=5").samples()
    assert [shade(s) for s in found if s.member] == members
    assert [shade(s) for s in found if not s.member] == others
    assert [s.id for s in CelebA(f"{root},members=12,nonmembers=6,each=5,seed=1").samples()] != [s.id for s in found]


def test_halves(root):
    dataset = CelebA(f"{root},protocol=drc,each=0,seed=3")
    found = dataset.samples()
    assert sorted(shade(s) for s in found) == list(range(30))
    members = {s.id for s in found if s.member}
    assert len(members) == 15 and members != {f"{n + 1:06d}.jpg" for n in range(15)}
    assert {s.id for s in CelebA(f"{root},protocol=drc,each=4,seed=3").samples() if s.member} < members
    before = dataset.revision
    assert before.startswith("files ") and "seed=3" in before
    (root / "img_align_celeba" / "000001.jpg").unlink()
    assert CelebA(f"{root},protocol=drc,each=0,seed=3").revision != before


def test_what_is_refused(root, tmp_path):
    refused(CelebA, str(root), "30 images", "60,000 are split", fix="img_align_celeba.zip")
    refused(CelebA, f"{root},members=12,nonmembers=6", "each=1000 of 6 images")
    unusable(CelebA, f"{root},protocol=gan", "protocol")
    unusable(CelebA, f"{root},members=many", "members")
    unusable(CelebA, "", "no path")
    (tmp_path / "empty").mkdir()
    refused(CelebA, f"{tmp_path / 'empty'},protocol=drc", "no images")
