"""Any image dataset of the Hugging Face hub: `--dataset hf:OWNER/NAME,OPTION=VALUE,...`, or a copy of one in a folder.

Parquet files with an image column, or image files with metadata tables (imagefolder). Columns are named by options,
none of which is needed where the usual names are used:

    image, caption, member, split_column, id, group   columns, as of `parquet:`
    revision       branch, tag or commit; the commit is recorded
    config         one of the repository's configurations
    split          the hub's splits to read, joined by +; all by default
    members, nonmembers, calibration, memorised       what whole splits are, joined by +

    hf:lambdalabs/naruto-blip-captions,caption=text
    hf:uoft-cs/cifar10,image=img,caption=label,members=train,nonmembers=test

Splits that are called `members`, `nonmembers` or `calibration` are taken for what they say. Without labels the images
are scored, and nothing else. What the hub's cache lacks is fetched into it, unless HF_HUB_OFFLINE is set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.plugins import suggest
from mia_bench_plugins.datasets import imagefolder
from mia_bench_plugins.datasets.hub import snapshot
from mia_bench_plugins.datasets.labels import SPLITS as SAYS
from mia_bench_plugins.datasets.labels import check, labels_of
from mia_bench_plugins.datasets.options import parse
from mia_bench_plugins.datasets.parquet import visible
from mia_bench_plugins.datasets.tables import Columns, Lost, Place, pictures

T = TypeVar("T")
SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<of>\d{5})(-[0-9a-f]{16})?")
SPLITS = ("calibration", "memorised")
UNSAID = labels_of([])  # what a folder says that says nothing
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


class HubColumns(Columns):
    """Options of `hf`.

    Attributes:
        revision: Branch, tag or commit.
        config: Configuration of the repository.
        split: Splits to read.
        members: Splits of members.
        nonmembers: Splits of non-members.
        calibration: Splits to calibrate on.
        memorised: Splits of memorised images.
    """

    revision: str = ""
    config: str = ""
    split: str = ""
    members: str = ""
    nonmembers: str = ""
    calibration: str = ""
    memorised: str = ""

    def named(self, option: str) -> set[str]:
        """The splits that an option names."""
        return set(filter(None, getattr(self, option).split("+")))


class HuggingFace(Dataset):
    """An image dataset of the hub, or a copy in a folder; options: columns (image, caption, member, split_column, id,
    group), revision, config, and the hub's splits (split, members, nonmembers, calibration, memorised).
    """

    meta = DatasetMeta(
        name="hf",
        summary="any image dataset of the Hugging Face hub, by id or folder, columns named by options",
        construction="as its columns and the options say",
        biases="unknown: look at the blind control's row; a train and a test split may differ in more than membership",
        licence="the dataset's own: see its card",
        argument="ID_OR_PATH[,OPTION=VALUE,...]",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.options = parse("hf", argument, HubColumns)
        if not self.place:
            raise UsageError("dataset hf", "no dataset given", "write --dataset hf:OWNER/NAME or hf:PATH")

    @cached_property
    def found(self) -> tuple[Path, str]:
        """The folder, and the commit that it holds if it came from the hub."""
        local = Path(self.place).expanduser()
        return (local, "") if local.is_dir() else snapshot("hf", self.place, self.options.revision)

    @property
    def revision(self) -> str:
        """Commit on the hub, or nothing for a folder."""
        return self.found[1]

    def samples(self) -> Sequence[Sample]:
        root, what = self.found[0], f"dataset hf:{self.place}"
        splits = tables(root, self.options.config, what)
        samples: list[Sample] = []
        if splits:
            lost = Lost()
            for split in self._chosen(list(splits), what):
                member, part = self._labels(split)
                for path in splits[split]:
                    samples += pictures(path, Place(split, member, part), self.options, what, lost)
            lost.tell(what)
        else:
            names = {k: v for k in ("caption", "member", "id", "group") if (v := getattr(self.options, k)) is not None}
            if self.options.split_column is not None:
                names["split"] = self.options.split_column
            found = imagefolder.read(root, what, names)
            of = _default({s.id: self._folder(s, root) for s in found})
            chosen = set(self._chosen(list(dict.fromkeys(of.values())), what))
            samples = [self._relabelled(s, of[s.id]) for s in found if of[s.id] in chosen]
        if not samples:
            raise UnavailableError(what, "no images", "see the dataset's page for what it holds")
        check(samples, what)
        return samples

    def _chosen(self, known: list[str], what: str) -> list[str]:
        """The splits to read: those asked for, else those that an option labels, else all."""
        labelled = {s for option in ("members", "nonmembers", *SPLITS) for s in self._named(option)}
        asked = self._named("split") or labelled
        if absent := sorted((asked | labelled) - set(known)):
            raise UnavailableError(what, f"no split {absent[0]!r}; {suggest(absent[0], known)}", "correct the option")
        return [split for split in known if not asked or split in asked]

    def _named(self, option: str) -> set[str]:
        return self.options.named(option)

    def _labels(self, split: str) -> tuple[bool | None, Split]:
        """What a split of the hub holds."""
        member, part = labels_of(split.split("/"))
        if split in self._named("members") & self._named("nonmembers"):
            raise UsageError(f"dataset hf, split {split}", "both members and non-members", "keep one")
        member = True if split in self._named("members") else False if split in self._named("nonmembers") else member
        return member, next((SAYS[option] for option in SPLITS if split in self._named(option)), part)

    def _folder(self, sample: Sample, root: Path) -> str | None:
        """The split that an image file lies in, by the first folder below `root`; None if it names none."""
        parts = (sample.image.relative_to(root) if isinstance(sample.image, Path) else Path(sample.id)).parts
        top = parts[0] if len(parts) > 1 else ""
        named = any(top in self._named(option) for option in ("split", "members", "nonmembers", *SPLITS))
        return top if named or labels_of([top]) != UNSAID else _split_of(Path(top))

    def _relabelled(self, sample: Sample, split: str) -> Sample:
        member, part = self._labels(split)
        folders = [folder for folder in Path(sample.id).parts[1:-1] if labels_of([folder]) != UNSAID]
        if sample.member is None and member is not None and labels_of(folders)[0] is (not member):
            why = f"its split {split} is labelled otherwise than its folder {'/'.join(folders)}"
            raise UnavailableError(f"dataset hf, sample {sample.id!r}", why, "keep them apart, or name other splits")
        return replace(
            sample,
            member=member if sample.member is None else sample.member,
            split=part if sample.split == "audit" else sample.split,
        )


def tables(root: Path, config: str, what: str) -> dict[str, list[Path]]:
    """Parquet files by split: as the card says, else as their names say.

    Raises:
        UnavailableError: The card is damaged, or has no such configuration.
    """
    configs = _card(root, what)
    if configs:
        return _declared(root, configs, config, what)
    base = root / config if config and (root / config).is_dir() else root
    found = [path for path in visible(base, ".parquet") if path.name not in imagefolder.METADATA]
    splits: dict[str, list[Path]] = {}
    for path, split in _default({path: _split_of(path.relative_to(base)) for path in found}).items():
        splits.setdefault(split, []).append(path)
    if config and base == root:
        raise UnavailableError(what, f"no configuration {config!r}", "leave out the option config")
    _check_whole(found, what)
    return splits


def _check_whole(files: Iterable[Path], what: str) -> None:
    """Shards say how many there are in their folder."""
    found = [(path.parent, match) for path in files if (match := SHARD.fullmatch(path.stem))]
    lots = Counter((folder, match["split"], int(match["of"])) for folder, match in found)
    for (_, split, total), count in lots.items():
        if count < total:
            why = f"{count} of {total} files of {split} are here"
            raise UnavailableError(what, why, "fetch the whole repository: `hf download ID --repo-type dataset`")


def _default(splits: Mapping[T, str | None]) -> dict[T, str]:
    """What names no split is `train` where nothing does, else `rest`: nobody should take a stray file for a member."""
    default = "train" if not any(splits.values()) else "rest"
    return {key: split or default for key, split in splits.items()}


def _split_of(path: Path) -> str | None:
    """By folders and names that are labels, else by the words that the hub looks for, else the name of a shard.

    Labels are joined, `calibration/members`; None if it names no split.
    """
    match = SHARD.fullmatch(path.stem)
    parts = [*path.parts[:-1], match["split"] if match else path.stem]
    if labels := [part for part in parts if labels_of([part]) != UNSAID]:
        return "/".join(dict.fromkeys(labels))
    for split, words in WORDS.items():
        word = rf"(?<![a-z])(?<!non[^a-z])(?<!not[^a-z])({'|'.join(words)})(?![a-z])"
        if any(re.search(word, part.lower()) for part in parts):
            return split
    return parts[-1] if match else None


def _card(root: Path, what: str) -> list[Mapping[str, Any]]:
    """Configurations that the card lists with their files."""
    card = root / "README.md"
    if not card.is_file():
        return []
    from huggingface_hub import metadata_load

    try:
        configs = list((metadata_load(card) or {}).get("configs") or [])
    except Exception as error:  # yaml's own kinds, and what a strange card makes of them
        raise UnavailableError(what, f"{card}: {brief(error)}", "correct the card, or remove it") from error
    return [c for c in configs if isinstance(c, Mapping) and c.get("data_files")]


def _patterns(files: Any) -> list[tuple[str, str]]:
    """Split and pattern of each of a configuration's files.

    Raises:
        ValueError: It means nothing.
    """
    if isinstance(files, Mapping):
        files = [{"split": split, "path": path} for split, path in files.items()]
    if isinstance(files, str) or (isinstance(files, list) and all(isinstance(f, str) for f in files)):
        files = [{"split": "train", "path": files}]
    found = []
    for entry in files if isinstance(files, list) else [files]:
        split, path = (entry.get("split"), entry.get("path")) if isinstance(entry, Mapping) else (None, None)
        paths: list[Any] = path if isinstance(path, list) else [path]
        if not isinstance(split, str | int) or split == "" or not all(isinstance(p, str) and p for p in paths):
            raise ValueError(f"{entry!r} needs a split, and a path that is a text or a list of them")
        found += [(str(split), pattern) for pattern in paths]
    return found


def _declared(root: Path, configs: list[Mapping[str, Any]], config: str, what: str) -> dict[str, list[Path]]:
    names = [str(c.get("config_name", "default")) for c in configs]
    marked = [name for name, entry in zip(names, configs, strict=True) if entry.get("default")]
    default = marked or [name for name in names if name == "default"]
    if config and config not in names:
        raise UnavailableError(what, f"no configuration {config!r}; {suggest(config, names)}", "correct the option")
    name = config or (default or names)[0]
    if not config and not default and len(names) > 1:
        raise UnavailableError(what, f"several configurations: {', '.join(names)}", f"name one: ,config={names[0]}")
    splits: dict[str, list[Path]] = {}
    try:
        for split, pattern in _patterns(configs[names.index(name)]["data_files"]):
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise UnavailableError(what, f"its card names files outside it: {pattern}", "correct the card")
            splits.setdefault(split, []).extend(p for p in sorted(root.glob(pattern)) if p.suffix == ".parquet")
    except (ValueError, IndexError, NotImplementedError) as error:  # what `glob` makes of strange patterns
        why = f"{root / 'README.md'}, configuration {name}, data_files: {brief(error)}"
        raise UnavailableError(what, why, "correct the card, or remove it") from error
    if any(splits.values()) and (empty := sorted(split for split, found in splits.items() if not found)):
        why = f"no file of its split {empty[0]!r} is here"
        raise UnavailableError(what, why, "fetch the whole repository, or name others with split=")
    _check_whole([path for found in splits.values() for path in found], what)
    return splits if any(splits.values()) else {}


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [HuggingFace]
