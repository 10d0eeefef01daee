"""SecMI's splits: `--dataset cifar10:PATH`, `cifar100:PATH`, `stl10-unlabeled:PATH`, `tiny-imagenet:PATH`.

Half of each *training* part are members, the other half are not; the official test parts are not used. The halves are
in npz files (`mia_train_idxs`, `mia_eval_idxs`) of https://github.com/jinhaoduan/SecMI, folder
`mia_evals/member_splits`: put the one of the dataset into PATH, or name it. Options:

    splits     the npz file
    caption    `number` (default): the class, as class-conditional models count it; `name`: its name
    files      the start of the hash of the file list that `describe`d results were made with; others are refused

PATH holds the data as their authors ship them: `cifar-10-batches-bin/` and `cifar-100-binary/` (the *binary* versions;
the Python ones are pickles, which could run anything and are not read) or the hub's parquet of the train split;
`stl10_binary/`; `tiny-imagenet-200/`. Everything is 32x32: STL-10 and Tiny-ImageNet are resized as SecMI does.

Where the published DDPM checkpoints are not at hand, name your own target, trained on the members.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError, brief
from mia_bench.hashing import sha256_of
from mia_bench_plugins.datasets.labels import group_of
from mia_bench_plugins.datasets.options import Options, folder_of, parse
from mia_bench_plugins.datasets.raw import (
    CIFAR10,
    CIFAR100,
    Item,
    cifar,
    cifar_table,
    image_folder,
    stl10,
)

SPLIT_PAGE = "https://github.com/jinhaoduan/SecMI/tree/main/mia_evals/member_splits"
SECMI = "splits of Duan et al., ICML 2023 (arXiv:2302.01316), MIT"
HALVES = "random halves of the training part, as SecMI published them: members are what its DDPMs were trained on"
NO_SHIFT = "none between members and non-members: one random split"
KEYS = {True: "mia_train_idxs", False: "mia_eval_idxs"}
MAX_SPLIT = 2**26  # bytes that a split file may unpack to
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class SecMIOptions(Options):
    """Options of SecMI's datasets.

    Attributes:
        splits: The npz file.
        caption: What of the class is the caption.
        files: Start of the hash of the file list.
    """

    splits: str = ""
    caption: Literal["number", "name"] = "number"
    files: str = ""


class SecMISet(Dataset):
    """A training part, halved by a published list of indices."""

    how: ClassVar[str]
    split_file: ClassVar[str]
    known: ClassVar[str] = ""  # start of the published split file's sha256

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.options = parse(self.meta.name, argument, SecMIOptions)

    @abstractmethod
    def items(self, root: Path, what: str) -> list[Item]:
        """The training part, in the order in which the indices count."""

    @cached_property
    def root(self) -> Path:
        return folder_of(self.meta.name, self.place, self.how)

    @property
    def what(self) -> str:
        return f"dataset {self.meta.name}:{self.place}"

    @cached_property
    def listed(self) -> list[Item]:
        return self.items(self.root, self.what)

    @cached_property
    def split(self) -> Path:
        """The split file."""
        path = Path(self.options.splits).expanduser() if self.options.splits else self.root / self.split_file
        if not path.is_file():
            fix = f"get {self.split_file} from {SPLIT_PAGE} into PATH, or name it: ,splits=FILE"
            raise UnavailableError(self.what, f"no split file {path}", fix)
        return path

    @property
    def revision(self) -> str:
        """Hashes of the split file and of the list of files that its indices count in."""
        return f"split {sha256_of(self.split)[:16]}, files {self.file_list}"

    @property
    def file_list(self) -> str:
        """Hash of the names of the files, in the order in which indices count."""
        names = "\n".join(f"{item.file}" for item in self.listed)
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    def samples(self) -> Sequence[Sample]:
        items, what = self.listed, self.what
        if self.options.files and not self.file_list.startswith(self.options.files):
            why = f"its file list has the hash {self.file_list}, not {self.options.files}: indices would mean others"
            raise UnavailableError(what, why, self.how)
        digest = sha256_of(self.split)
        if self.known and not digest.startswith(self.known):
            text = "%s: %s is not the file that SecMI published (sha256 %s..., not %s...): results are of another split"
            logging.getLogger("mia_bench").warning(text, what, self.split.name, digest[:16], self.known)
        halves = read_split(self.split, len(items), what)
        return [
            Sample(
                id=f"{index:06d}",
                image=items[index].image,
                content=(content := items[index].content()),
                caption=self._caption(items[index]),
                member=member,
                group=group_of(f"{index:06d}", content),
                labels={"class": items[index].name} if items[index].name else {},
            )
            for member in KEYS
            for index in halves[member].tolist()
        ]

    def _caption(self, item: Item) -> str | None:
        if item.number is None:
            return None
        return str(item.number) if self.options.caption == "number" else item.name or None


def read_split(path: Path, count: int, what: str) -> Mapping[bool, NDArray[np.int64]]:
    """Indices of members and of non-members.

    Args:
        path: npz file with `mia_train_idxs` and `mia_eval_idxs`.
        count: Images that they must divide among them.
        what: Names the dataset in messages.

    Raises:
        UnavailableError: It is damaged, holds objects, or its halves are not exactly `range(count)`.
    """
    split = f"split file {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_SPLIT:
                raise UnavailableError(split, "unpacks to more than a split can hold", f"get it from {SPLIT_PAGE}")
        with np.load(path, allow_pickle=False) as file:
            halves = {member: np.asarray(file[key]) for member, key in KEYS.items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        why = f"cannot be read: {brief(error)}"
        raise UnavailableError(split, why, f"get it from {SPLIT_PAGE}; it holds arrays and no objects") from error
    for member, key in KEYS.items():
        if halves[member].ndim != 1 or not np.issubdtype(halves[member].dtype, np.integer):
            raise UnavailableError(split, f"{key} is no list of whole numbers", f"get it from {SPLIT_PAGE}")
    both = np.sort(np.concatenate([halves[True], halves[False]]))
    if len(both) != count or not np.array_equal(both, np.arange(count)):
        span = f"{both[0]:,} to {both[-1]:,}" if len(both) else "none"
        why = f"its {len(both):,} indices ({span}) are not those of the {count:,} training images found, each once"
        raise UnavailableError(f"{what}, {split}", why, "use the whole training part (not the test part) that it is of")
    return {member: half.astype(np.int64) for member, half in halves.items()}


def _pickled(root: Path, folder: str, what: str, how: str) -> None:
    """Refuse the Python version."""
    if (root / folder).is_dir() or root.name == folder:
        raise UnavailableError(what, f"{folder} is made of pickles, which could run anything", how)


class Cifar10(SecMISet):
    """50,000 images of ten classes, 32x32; options: splits (npz file), caption (number, name), files."""

    meta = DatasetMeta(
        name="cifar10",
        summary="CIFAR-10's training part, 25,000 + 25,000 by SecMI's split, for its DDPM; your own copy",
        construction=HALVES,
        biases=NO_SHIFT + "; near-duplicates within CIFAR-10 lie on both sides",
        licence="CIFAR-10: none stated; " + SECMI,
        citation="Krizhevsky, 2009; Duan et al., ICML 2023",
        argument="PATH[,OPTION=VALUE,...]",
    )
    how = "get https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and unpack it into PATH"
    split_file = "CIFAR10_train_ratio0.5.npz"
    known = "aca922ecee25ef00"

    def items(self, root: Path, what: str) -> list[Item]:
        if tables := sorted(root.rglob("train-*.parquet")):
            return cifar_table(tables[0], what, "label", CIFAR10, CIFAR10_NAMES)
        folder = root / "cifar-10-batches-bin" if (root / "cifar-10-batches-bin").is_dir() else root
        files = [f"data_batch_{number}.bin" for number in range(1, 6)]
        if not (folder / files[0]).is_file():
            _pickled(root, "cifar-10-batches-py", what, self.how)
        return cifar(folder, what, "batches.meta.txt", files, 1, self.how)


class Cifar100(SecMISet):
    """50,000 images of a hundred classes, 32x32; options: splits (npz file), caption (number, name), files."""

    meta = DatasetMeta(
        name="cifar100",
        summary="CIFAR-100's training part, 25,000 + 25,000 by SecMI's split, for its DDPM; your own copy",
        construction=HALVES,
        biases=NO_SHIFT + "; near-duplicates within CIFAR-100 lie on both sides",
        licence="CIFAR-100: none stated; " + SECMI,
        citation="Krizhevsky, 2009; Duan et al., ICML 2023",
        argument="PATH[,OPTION=VALUE,...]",
    )
    how = "get https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz and unpack it into PATH"
    split_file = "CIFAR100_train_ratio0.5.npz"

    def items(self, root: Path, what: str) -> list[Item]:
        if tables := sorted(root.rglob("train-*.parquet")):
            return cifar_table(tables[0], what, "fine_label", CIFAR100, ())
        folder = root / "cifar-100-binary" if (root / "cifar-100-binary").is_dir() else root
        if not (folder / "train.bin").is_file():
            _pickled(root, "cifar-100-python", what, self.how)
        return cifar(folder, what, "fine_label_names.txt", ["train.bin"], 2, self.how)


class Stl10Unlabeled(SecMISet):
    """The unlabelled part of STL-10, resized to 32x32; options: splits (npz file), files."""

    meta = DatasetMeta(
        name="stl10-unlabeled",
        summary="STL-10's unlabelled part at 32x32, 50,000 + 50,000 by SecMI's split; your own copy",
        construction=HALVES + ". The split file is the same, byte for byte, as Tiny-ImageNet's",
        biases=NO_SHIFT,
        licence="STL-10: images of ImageNet, research only; " + SECMI,
        citation="Coates, Ng, Lee, AISTATS 2011; Duan et al., ICML 2023",
        argument="PATH[,OPTION=VALUE,...]",
    )
    how = "get https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz and unpack it into PATH"
    split_file = "STL10_Unlabeled_train_ratio0.5.npz"
    known = "14a06133f36c74e7"

    def items(self, root: Path, what: str) -> list[Item]:
        folder = root / "stl10_binary" if (root / "stl10_binary").is_dir() else root
        return stl10(folder / "unlabeled_X.bin", what, self.how)


class TinyImageNet(SecMISet):
    """Tiny-ImageNet's training part at 32x32; options: splits (npz file), caption (number, name), files (hash)."""

    meta = DatasetMeta(
        name="tiny-imagenet",
        summary="Tiny-ImageNet's training part at 32x32, 50,000 + 50,000 by SecMI's split; your own copy",
        construction=HALVES + ". Indices count in the order of torchvision's ImageFolder, which depends on the files: "
        "the hash of their list is part of the revision",
        biases=NO_SHIFT,
        licence="ImageNet: non-commercial research; " + SECMI,
        citation="Le, Yang, 2015; Duan et al., ICML 2023",
        argument="PATH[,OPTION=VALUE,...]",
    )
    how = "get http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it into PATH"
    split_file = "TINY-IN_train_ratio0.5.npz"
    known = "14a06133f36c74e7"

    def items(self, root: Path, what: str) -> list[Item]:
        folder = root / "tiny-imagenet-200" if (root / "tiny-imagenet-200").is_dir() else root
        return image_folder(folder / "train", folder / "words.txt", what, self.how)


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Cifar10, Cifar100, Stl10Unlabeled, TinyImageNet]
