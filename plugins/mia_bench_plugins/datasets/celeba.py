"""CelebA as PFAMI and DRC split it, from your own copy: `--dataset celeba:PATH,OPTION=VALUE,...`.

PATH holds `img_align_celeba/`, or the images themselves. No checkpoint of either paper is public: name your own target,
trained on the members as listed here.

    protocol   `pfami` (default) or `drc`
    pfami      members are the first 50,000 images by file name, non-members the next 10,000. Of each, 1,000 are drawn
               by the generator and the seed (0) of the published program
    drc        random halves of all images. The paper's lists are not published: these are drawn by `seed`
    members, nonmembers   images of each class (pfami)
    each       images of each class that are drawn to be evaluated, 0 for all
    seed       of the draws
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.labels import SUFFIXES, content_of, group_of
from mia_bench_plugins.datasets.options import Options, folder_of, parse

HOW = "get img_align_celeba.zip from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack it"


class CelebAOptions(Options):
    """Options of `celeba`.

    Attributes:
        protocol: Whose split.
        members: First images by file name.
        nonmembers: Images after them.
        each: Drawn of each class to be evaluated; 0 for all.
        seed: Of the draws.
    """

    protocol: Literal["pfami", "drc"] = "pfami"
    members: int = Field(50_000, gt=0)
    nonmembers: int = Field(10_000, gt=0)
    each: int = Field(1000, ge=0)
    seed: int = Field(0, ge=0)


class CelebA(Dataset):
    """Faces as PFAMI or DRC split them; options: protocol (pfami, drc), members, nonmembers, each, seed."""

    meta = DatasetMeta(
        name="celeba",
        summary="CelebA: 1,000 + 1,000 of PFAMI's 50,000 members and 10,000 non-members, or DRC's halves; your copy",
        construction="pfami: by file position, the first 50,000 are members, the next 10,000 are not. drc: random "
        "halves, drawn here since the paper's are not published",
        biases="file order in CelebA is random with respect to identity, but one person's pictures are on both sides "
        "of any split by image",
        licence="CelebA: non-commercial research only",
        citation="Liu et al., ICCV 2015; splits of PFAMI (arXiv:2308.12143) and DRC (arXiv:2403.08487)",
        argument="PATH[,OPTION=VALUE,...]",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.options = parse("celeba", argument, CelebAOptions)

    @cached_property
    def files(self) -> tuple[Path, list[str]]:
        """The folder of the images, and their names in order."""
        root = folder_of("celeba", self.place, HOW)
        folder = next(p for p in (root / "img_align_celeba", root) if p.is_dir())
        if (folder / "img_align_celeba").is_dir():  # the zip, unpacked into a folder of its own name
            folder /= "img_align_celeba"
        return folder, sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)

    @property
    def revision(self) -> str:
        """Hash of the list of files that positions count in, and how they were drawn."""
        listed = hashlib.sha256("\n".join(self.files[1]).encode()).hexdigest()[:16]
        drawn = " ".join(f"{name}={value}" for name, value in self.options.model_dump().items())
        return f"files {listed}, {drawn}"

    def samples(self) -> Sequence[Sample]:
        what, options = f"dataset celeba:{self.place}", self.options
        folder, names = self.files
        draw = random.Random(options.seed)
        if options.protocol == "drc":
            order = draw.sample(range(len(names)), len(names))
            sides = [sorted(order[: len(names) // 2]), sorted(order[len(names) // 2 :])]
        else:
            last = options.members + options.nonmembers
            if len(names) < last:
                why = f"{len(names):,} images in {folder}, {last:,} are split"
                raise UnavailableError(what, why, f"give the whole set: {HOW}")
            sides = [list(range(options.members)), list(range(options.members, last))]
        if not all(sides):
            raise UnavailableError(what, f"no images in {folder}", HOW)
        if options.each > min(map(len, sides)):
            why = f"each={options.each} of {min(map(len, sides)):,} images"
            raise UnavailableError(what, why, "lower the option each, or give the whole set")
        chosen = [draw.sample(side, options.each) if options.each else side for side in sides]
        return [
            Sample(
                id=names[index],
                image=folder / names[index],
                content=(content := content_of(folder / names[index])),
                member=member,
                group=group_of(names[index], content),
            )
            for member, side in zip((True, False), chosen, strict=True)
            for index in sorted(side)
        ]


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [CelebA]
