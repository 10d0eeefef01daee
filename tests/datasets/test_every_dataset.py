"""Every bundled dataset passes the conformance suite, those of a user's own copy in a small one."""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile

import pytest
from layouts import encoded, table, written
from test_clid_sets import side
from test_copymark import unpacked
from test_hf import part
from test_parquet import rows
from test_secmi_splits import halves, pixels
from test_stroll import copied
from test_webdataset import written_by_img2dataset

from mia_bench.fetch.images import Images
from mia_bench.fetch.ledger import Row
from mia_bench.fetch.survivors import freeze
from mia_bench.plugins import Registry
from mia_bench.testing import checks
from mia_bench_plugins.datasets.copymark import SETUPS
from mia_bench_plugins.datasets.laion_mi import LaionMi
from mia_bench_plugins.datasets.webster import Webster

KEPT = tempfile.TemporaryDirectory(prefix="mia-bench-fetched-")  # of fetched images, for as long as these tests run


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", KEPT.name)


def celeba(folder):
    for number in range(18):
        written(folder / "img_align_celeba" / f"{number + 1:06d}.jpg", encoded(number))
    return f"{folder},members=12,nonmembers=6,each=5"


def cifar10(folder):
    for batch in range(1, 6):
        records = [bytes([i]) + pixels(10 * batch + i).tobytes() for i in range(4)]
        written(folder / f"data_batch_{batch}.bin", b"".join(records))
    halves(folder / "CIFAR10_train_ratio0.5.npz", 20)
    return str(folder)


def cifar100(folder):
    written(folder / "train.bin", b"".join(bytes([1, i]) + pixels(i).tobytes() for i in range(6)))
    halves(folder / "CIFAR100_train_ratio0.5.npz", 6)
    return str(folder)


def stl10(folder):
    written(folder / "stl10_binary" / "unlabeled_X.bin", b"".join(pixels(i, 96).tobytes() for i in range(4)))
    halves(folder / "STL10_Unlabeled_train_ratio0.5.npz", 4)
    return str(folder)


def tiny_imagenet(folder):
    for number in range(6):
        place = folder / "tiny-imagenet-200" / "train" / f"n0{number % 2}" / "images"
        written(place / f"n0{number % 2}_{number}.JPEG", encoded(30 * number, 64, "JPEG"))
    halves(folder / "TINY-IN_train_ratio0.5.npz", 6)
    return str(folder)


def clid(folder):
    for number, name in enumerate(("train", "test", "shadow/train", "shadow/test")):
        side(folder / name, 10 * number)
    weights = {"ori_texts": "a picture 0", "tokens_importance": "0.1 0.7 0.2"}
    written(folder / "impt" / "dealed_imp_metadata.jsonl", json.dumps(weights).encode())
    return str(folder)


def copymark(folder):
    setup, made = next(iter(SETUPS.items()))
    names = [name.format(split) for split in ("eval", "test") for name in (made.members, made.nonmembers)]
    for number, name in enumerate(names):
        unpacked(folder, name, 10 * number)
    return f"{folder},setup={setup}"


def own(folder):
    with (folder / "metadata.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file_name", "caption", "member", "split", "group", "word_weights"])
        for n in range(8):
            written(folder / f"{n}.png", encoded(n))
            split = "calibration" if n > 3 else "audit"
            out.writerow([f"{n}.png", f"picture {n}", n % 2 == 0, split, f"pair {n // 2}", "1 0.5"])
    return str(folder)


def hub(folder):
    part(folder / "data" / "members-00000-of-00001.parquet", 0)
    part(folder / "data" / "nonmembers-00000-of-00001.parquet", 10)
    return str(folder)


def parquet(folder):
    table(folder / "members" / "00000.parquet", rows(5, failed={1: "failed_to_download"}))
    table(folder / "nonmembers" / "00000.parquet", rows(4, 100))
    return str(folder)


def stroll(folder):
    return str(copied(folder))


def webdataset(folder):
    written_by_img2dataset(folder / "members", 3, failed=[1])
    written_by_img2dataset(folder / "nonmembers", 2, 20)
    return str(folder)


def fetched(dataset):
    """As if the images of a list had been fetched."""
    found = []
    for n, link in enumerate(dataset.links):
        data = encoded(n)
        digest = hashlib.sha256(data).hexdigest()
        written(Images(dataset.folder / "images").path(digest), data)
        found.append(Row(id=link.id, kind=link.kind, url=link.url, sha256=digest))
    freeze(dataset.folder, found, {row.id: "" for row in found}, {})


def laion_mi(folder):
    for kind in ("members", "nonmembers"):
        links = {"url": [f"http://{kind}.test/{n}" for n in range(4)], "caption": ["a"] * 4}
        table(folder / f"{kind}.parquet", links)
    fetched(LaionMi(str(folder)))
    return str(folder)


def webster(folder):
    lines = [json.dumps({"caption": f"c {n}", "index": n, "url": f"https://a.test/{n}.jpg"}) for n in range(4)]
    path = written(folder / "list.jsonl", "\n".join(lines).encode())
    fetched(Webster(str(path)))
    return str(path)


COPIES = {
    "celeba": celeba,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "stl10-unlabeled": stl10,
    "tiny-imagenet": tiny_imagenet,
    **dict.fromkeys(["clid-coco", "clid-flickr", "clid-pokemon"], clid),
    "copymark": copymark,
    "folder": own,
    "hf": hub,
    "parquet": parquet,
    "stroll": stroll,
    "webdataset": webdataset,
    "laion-mi": laion_mi,
    "webster": webster,
}
DATASETS = Registry.load().datasets
CHECKS = [check for name, cls in sorted(DATASETS.items()) for check in checks(cls, argument=COPIES.get(name, ""))]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_conformance(check):
    check()


def test_each_that_takes_an_argument_has_a_copy():
    assert {name for name, cls in DATASETS.items() if cls.meta.argument} == set(COPIES)


def test_published_ones_are_cited():
    own_images = {"folder", "hf", "parquet", "webdataset"}
    assert all(cls.meta.citation for name, cls in DATASETS.items() if name not in own_images)
