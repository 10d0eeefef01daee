"""SecMI's splits over the datasets' own files: order, halves, refusals, nothing pickled."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from layouts import encoded, refused, table, unusable, written
from PIL import Image

from mia_bench_plugins.datasets.raw import CIFAR10, CIFAR100
from mia_bench_plugins.datasets.secmi import Cifar10, Cifar100, Stl10Unlabeled, TinyImageNet

EACH = 4  # records of a batch


def halves(path, count, members=None, **changes):
    """A split file; members are every other index from 1 on."""
    members = np.arange(1, count, 2) if members is None else np.asarray(members)
    others = np.setdiff1d(np.arange(count), members)
    np.savez(path, **{"mia_train_idxs": members, "mia_eval_idxs": others, "ratio": np.float64(0.5), **changes})
    return path


def pixels(seed, side=32):
    return np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    for batch in range(1, 6):
        first = (batch - 1) * EACH
        records = [bytes([i % 10]) + pixels(i).tobytes() for i in range(first, first + EACH)]
        written(folder / f"data_batch_{batch}.bin", b"".join(records))
    written(folder / "test_batch.bin", bytes([9]) + pixels(999).tobytes())
    written(folder / "batches.meta.txt", b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n")
    halves(tmp_path / "CIFAR10_train_ratio0.5.npz", 5 * EACH)
    return tmp_path


def test_cifar10_counts_through_the_training_batches(cifar10, caplog):
    dataset = Cifar10(str(cifar10))
    found = {s.id: s for s in dataset.samples()}
    assert sorted(found) == [f"{i:06d}" for i in range(20)]
    for i in range(20):
        sample = found[f"{i:06d}"]
        assert (sample.member, sample.split, sample.caption) == (i % 2 == 1, "audit", str(i % 10))
        assert np.array_equal(np.asarray(sample.open()), pixels(i).transpose(1, 2, 0))
        assert sample.content == hashlib.sha256(pixels(i).tobytes()).hexdigest()
    assert found["000006"].labels == {"class": "frog"}
    assert "is not the file that SecMI published" in caplog.text
    split = hashlib.sha256((cifar10 / "CIFAR10_train_ratio0.5.npz").read_bytes()).hexdigest()[:16]
    assert dataset.revision.startswith(f"split {split}, files ")


def test_class_names_as_captions(cifar10):
    found = {s.id: s.caption for s in Cifar10(f"{cifar10},caption=name").samples()}
    assert found["000006"] == "frog"
    unusable(Cifar10, f"{cifar10},caption=label", "option caption")


def test_a_split_file_elsewhere(cifar10, tmp_path_factory):
    other = halves(tmp_path_factory.mktemp("elsewhere") / "mine.npz", 20, [0, 1, 2])
    found = Cifar10(f"{cifar10},splits={other}").samples()
    assert [s.id for s in found if s.member] == ["000000", "000001", "000002"]
    (cifar10 / "CIFAR10_train_ratio0.5.npz").unlink()
    refused(Cifar10, str(cifar10), "no split file", fix="mia_evals/member_splits")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mia_train_idxs": np.arange(25)}, ("indices",)),
        ({"mia_train_idxs": np.array([0, 0, 1])}, ("each once",)),
        ({"mia_train_idxs": np.arange(0, 18, 2)}, ("19 indices (0 to 18)", "20 training images")),
        ({"mia_train_idxs": np.arange(10.0)}, ("mia_train_idxs", "whole numbers")),
        ({"mia_train_idxs": np.array([[1]])}, ("mia_train_idxs", "whole numbers")),
        ({"mia_eval_idxs": np.array([{}], dtype=object)}, ("cannot be read", "allow_pickle=False")),
    ],
)
def test_split_files_that_are_refused(cifar10, changes, words):
    halves(cifar10 / "CIFAR10_train_ratio0.5.npz", 20, **changes)
    refused(Cifar10, str(cifar10), *words)


def test_damaged_split_files_are_refused(cifar10):
    path = cifar10 / "CIFAR10_train_ratio0.5.npz"
    path.write_bytes(path.read_bytes()[:100])
    refused(Cifar10, str(cifar10), "cannot be read", fix="SecMI")
    np.savez(path, mia_train_idxs=np.arange(20))
    refused(Cifar10, str(cifar10), "mia_eval_idxs", fix="SecMI")
    np.savez_compressed(path, mia_train_idxs=np.zeros(2**24, dtype=np.int64), mia_eval_idxs=np.arange(3))
    assert path.stat().st_size < 2**20
    refused(Cifar10, str(cifar10), "more than a split can hold")


def test_damaged_batches_are_refused(cifar10):
    batch = cifar10 / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    refused(Cifar10, str(cifar10), "data_batch_3.bin is cut short", fix="cifar-10-binary.tar.gz")
    batch.write_bytes(whole[: -(1 + 3072)])
    refused(Cifar10, str(cifar10), "19 training images")
    batch.unlink()
    refused(Cifar10, str(cifar10), "no data_batch_3.bin", fix="cifar-10-binary.tar.gz")


class Hostile:
    """What a pickle may do when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_read(tmp_path):
    trap = tmp_path / "trap"
    for name in ("data_batch_1", "batches.meta"):
        written(tmp_path / "cifar-10-batches-py" / name, pickle.dumps({b"data": Hostile(trap)}))
    halves(tmp_path / "CIFAR10_train_ratio0.5.npz", 2, mia_train_idxs=np.array([Hostile(trap)], dtype=object))
    trap.unlink(missing_ok=True)
    refused(Cifar10, str(tmp_path), "cifar-10-batches-py is made of pickles", fix="cifar-10-binary.tar.gz")
    refused(Cifar10, str(tmp_path / "cifar-10-batches-py"), "made of pickles")
    batches = {f"data_batch_{i}.bin": bytes(1 + 3072) for i in range(1, 6)}
    for name, data in batches.items():
        written(tmp_path / name, data)
    refused(Cifar10, str(tmp_path), "allow_pickle=False")
    assert not trap.exists()


def hub_table(path, batches, label, image="img"):
    """50,000 rows as the hub ships CIFAR: each batch begins with its known labels, then its number."""
    length = 50_000 // len(batches)
    labels = [n for batch, first in batches for n in (*first, *[batch % 10] * (length - len(first)))]
    pictures = {batch: encoded(batch, 32) for batch, _ in batches}
    columns = {image: [pictures[batch] for batch, _ in batches for _ in range(length)], label: labels}
    return table(path, columns, 5000, image)


def test_the_hubs_batches_are_put_in_order(tmp_path):
    as_on_the_hub = [(number, CIFAR10[number - 1]) for number in (4, 3, 2, 5, 1)]
    path = hub_table(tmp_path / "plain_text" / "train-00000-of-00001.parquet", as_on_the_hub, "label")
    halves(tmp_path / "CIFAR10_train_ratio0.5.npz", 50_000)
    found = {s.id: s for s in Cifar10(str(tmp_path)).samples()}
    assert len(found) == 50_000
    for index, batch, caption in ((0, 1, "6"), (10_001, 2, "6"), (20_000, 3, "8"), (39_999, 4, "4"), (40_004, 5, "5")):
        sample = found[f"{index:06d}"]
        assert np.asarray(sample.open())[0, 0, 0] == batch
        assert (sample.caption, sample.member) == (caption, index % 2 == 1)
    hub_table(path, [(number, CIFAR10[0]) for number in range(5)], "label")
    refused(Cifar10, str(tmp_path), "order that is known", fix="binary")


def test_the_hubs_cifar100(tmp_path):
    hub_table(tmp_path / "train-00000-of-00001.parquet", [(7, CIFAR100[0])], "fine_label")
    halves(tmp_path / "CIFAR100_train_ratio0.5.npz", 50_000)
    found = {s.id: s.caption for s in Cifar100(str(tmp_path)).samples()}
    assert [found[f"{i:06d}"] for i in range(3)] == ["19", "29", "0"]


def test_cifar100_has_two_labels_before_the_pixels(tmp_path):
    records = [bytes([90 + i, i]) + pixels(i).tobytes() for i in range(6)]
    written(tmp_path / "cifar-100-binary" / "train.bin", b"".join(records))
    written(tmp_path / "cifar-100-binary" / "fine_label_names.txt", b"apple\naquarium_fish\nbaby\n")
    halves(tmp_path / "CIFAR100_train_ratio0.5.npz", 6)
    found = {s.id: s for s in Cifar100(str(tmp_path)).samples()}
    assert [found[f"{i:06d}"].caption for i in range(6)] == list("012345")
    assert found["000001"].labels == {"class": "aquarium_fish"}
    assert np.array_equal(np.asarray(found["000004"].open()), pixels(4).transpose(1, 2, 0))


def test_stl10_is_stored_by_columns_and_resized(tmp_path):
    written(tmp_path / "stl10_binary" / "unlabeled_X.bin", b"".join(pixels(i, 96).tobytes() for i in range(4)))
    halves(tmp_path / "STL10_Unlabeled_train_ratio0.5.npz", 4)
    found = {s.id: s for s in Stl10Unlabeled(str(tmp_path)).samples()}
    for i in range(4):
        upright = Image.fromarray(pixels(i, 96).transpose(2, 1, 0))
        expected = upright.resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(found[f"{i:06d}"].open()), np.asarray(expected))
        assert found[f"{i:06d}"].caption is None
    refused(Stl10Unlabeled, str(tmp_path / "stl10_binary"), "no split file")


def test_tiny_imagenet_counts_in_the_order_of_torchvisions_image_folder(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    order = [
        ("n01", "images/n01_0.JPEG"),
        ("n01", "images/n01_1.JPEG"),
        ("n01", "images/n01_10.JPEG"),
        ("n01", "images/n01_2.JPEG"),
        ("n02", "images/n02_0.JPEG"),
        ("n02", "images/n02_3.JPEG"),
    ]
    for number, (folder, name) in reversed(list(enumerate(order))):
        written(root / "train" / folder / name, encoded(30 * number, 64, "JPEG"))
        written(root / "train" / folder / "n01_boxes.txt", b"")
    written(root / "words.txt", b"n01\tgoldfish, Carassius auratus\nn09\tother\n")
    halves(tmp_path / "TINY-IN_train_ratio0.5.npz", 6)
    dataset = TinyImageNet(str(tmp_path))
    found = {s.id: s for s in dataset.samples()}
    for number in range(6):
        image = found[f"{number:06d}"].open()
        assert image.size == (32, 32)
        assert abs(int(np.asarray(image)[0, 0, 0]) - 30 * number) <= 3
    assert [found[f"{i:06d}"].caption for i in (3, 4)] == ["0", "1"]
    assert found["000000"].labels == {"class": "goldfish, Carassius auratus"}

    listed = hashlib.sha256("\n".join(f"{folder}/{name}" for folder, name in order).encode()).hexdigest()[:16]
    assert dataset.revision.endswith(f"files {listed}")
    assert len(TinyImageNet(f"{tmp_path},files={listed[:8]}").samples()) == 6
    (root / "train/n01/images/n01_10.JPEG").rename(root / "train/n01/images/n01_3.JPEG")
    refused(TinyImageNet, f"{tmp_path},files={listed[:8]}", "indices would mean others")
    written(root / "train/n01/images/._n01_0.JPEG", b"")
    refused(TinyImageNet, str(tmp_path), "7 training images")
    refused(TinyImageNet, str(root / "train"), "no images")


@pytest.mark.parametrize("cls", [Cifar10, Cifar100, Stl10Unlabeled, TinyImageNet])
def test_data_that_is_not_there(cls, tmp_path):
    unusable(cls, "", "no path")
    refused(cls, str(tmp_path / "nowhere"), "no such folder", fix="unpack")
    (tmp_path / "empty").mkdir()
    refused(cls, str(tmp_path / "empty"), "empty", fix="unpack it into PATH")
