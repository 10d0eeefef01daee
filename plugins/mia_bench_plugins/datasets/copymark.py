"""CopyMark's five setups, from your own copy: `--dataset copymark:PATH,setup=NAME`.

PATH is the unpacked `datasets.zip` (https://huggingface.co/datasets/chumengl/copymark, 5.66 GB): folders such as
`coco2017-val-2-5k-eval`, each with `images/` and `caption.json`, which maps a key to `{path, height, width, caption:
[...]}`. Folders alone say what is a member. `eval` is the calibration set, `test` the audit set; of several captions
the first is taken.

    celebahq-ffhq      LDM CelebA-HQ-256     CelebA-HQ / FFHQ                    known bad: a control
    laion-coco         SD v1-5               LAION-Aesthetics / COCO 2017 val    known bad: a control
    laion-mi           SD v1-5               LAION-mi                            not in the zip: folders by yourself
    commoncatalog      CommonCanvas-XL-C     CommonCatalog / COCO 2017 val
    hakubooru          Kohaku-XL-Epsilon     HakuBooru by id

In the two known-bad setups a ConvNeXt that never sees the model beats every attack: they show what a shifted split
does, not what an attack can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import suggest
from mia_bench_plugins.datasets.labels import check_ids, content_of, group_of
from mia_bench_plugins.datasets.options import Options, folder_of, parse

HOW = "get datasets.zip (5.66 GB, CC-BY-NC-SA-4.0) from https://huggingface.co/datasets/chumengl/copymark and unpack it"
SPLITS: dict[str, Split] = {"test": "audit", "eval": "calibration"}


@dataclass(frozen=True)
class Setup:
    """One setup: folders of members and non-members (`{}` is eval or test), and the model."""

    members: str
    nonmembers: str
    target: str


SETUPS = {
    "celebahq-ffhq": Setup("celeba-hq-2-5k-{}", "ffhq-2-5k-{}", "CompVis/ldm-celebahq-256"),
    "laion-coco": Setup("laion-aesthetic-2-5k-{}", "coco2017-val-2-5k-{}", "sd-v1-5"),
    "laion-mi": Setup("laion-mi-member-{}", "laion-mi-nonmember-{}", "sd-v1-5"),
    "commoncatalog": Setup("commoncatalog-2-5k-{}", "coco2017-val-2-5k-{}", "common-canvas/CommonCanvas-XL-C"),
    "hakubooru": Setup("hakubooru-2-5k-{}-member", "hakubooru-2-5k-{}-nonmember", "KBlueLeaf/Kohaku-XL-Epsilon"),
}


class CopyMarkOptions(Options):
    """Options of `copymark`.

    Attributes:
        setup: Which of the five.
    """

    setup: str = ""


class CopyMark(Dataset):
    """Five setups of 2,500 + 2,500 images, twice; option setup: celebahq-ffhq, laion-coco, laion-mi, commoncatalog or
    hakubooru.
    """

    meta = DatasetMeta(
        name="copymark",
        summary="CopyMark: five setups of 2,500 + 2,500 images to audit and as many to calibrate on; your own copy",
        construction="members from a model's training set, non-members from another set; eval -> calibration, test -> "
        "audit",
        biases="celebahq-ffhq and laion-coco are known bad, kept as controls: members and non-members come from "
        "different sets, and a ConvNeXt that never sees the model beats every attack; commoncatalog too takes its "
        "non-members from COCO",
        licence="CC-BY-NC-SA-4.0; the images belong to their owners",
        citation="Liang et al., 2024 (arXiv:2410.03640)",
        argument="PATH,setup=NAME",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, options = parse("copymark", argument, CopyMarkOptions)
        self.setup = options.setup
        if self.place and self.setup not in SETUPS:
            why = suggest(self.setup, SETUPS) if self.setup else f"it has {', '.join(SETUPS)}"
            what = f"dataset copymark, setup {self.setup!r}" if self.setup else "dataset copymark: no setup named"
            raise UsageError(what, why, f"write --dataset copymark:{self.place},setup=laion-coco")

    @property
    def targets(self) -> tuple[str, ...]:
        return (SETUPS[self.setup].target,) if self.setup else ()

    def samples(self) -> Sequence[Sample]:
        root = folder_of("copymark", self.place, HOW)
        what = f"dataset copymark:{root}"
        setup, samples = SETUPS[self.setup], list[Sample]()
        for part, split in SPLITS.items():
            for pattern, member in ((setup.members, True), (setup.nonmembers, False)):
                folder = root / pattern.format(part)
                if folder.is_dir():
                    samples += _samples(folder, member, split)
                elif split == "audit":
                    own = "its images are not in the zip: lay them out like the others, or use --dataset laion-mi"
                    raise UnavailableError(what, f"no folder {folder.name}", own if self.setup == "laion-mi" else HOW)
        if not samples:
            raise UnavailableError(what, "no images", HOW)
        check_ids(samples, what)
        return samples


def _samples(folder: Path, member: bool, split: Split) -> Iterator[Sample]:
    """One sample for each entry of a folder's `caption.json`."""
    listing = folder / "caption.json"
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnavailableError(str(listing), f"cannot be read: {error}", f"unpack it anew; {HOW}") from error
    if not isinstance(entries, dict) or not entries:
        raise UnavailableError(str(listing), "lists no images", f"unpack it anew; {HOW}")
    for key, entry in entries.items():
        path, caption = _entry(entry, f"{listing}, key {key!r}")
        content = content_of(folder / "images" / path)
        name = f"{folder.name}/{key}"
        yield Sample(
            id=name,
            image=folder / "images" / path,
            content=content,
            caption=caption,
            member=member,
            split=split,
            group=group_of(name, content),
        )


def _entry(entry: Mapping[str, Any], what: str) -> tuple[str, str | None]:
    """File name and first caption."""
    try:
        path, captions = PurePosixPath(entry["path"]), entry.get("caption") or []
    except (KeyError, TypeError, AttributeError) as error:
        raise UnavailableError(what, "no `path` in it", "correct that entry") from error
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise UnavailableError(what, f"path {str(path)!r} leaves the folder", "correct that entry")
    first = captions if isinstance(captions, str) else next(iter(captions), None)
    return str(path), str(first).strip() or None if first is not None else None


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [CopyMark]
