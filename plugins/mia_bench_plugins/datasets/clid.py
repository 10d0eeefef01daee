"""CLiD's fine-tuning sets, from your own copy: `--dataset clid-coco:PATH`, `clid-flickr:PATH`, `clid-pokemon:PATH`.

None can be fetched: the hub's zip of COCO is gated, Flickr was not released, and the Pokemon captions were taken down.
How the zip is laid out inside is not known to us. What is read is what its authors' programs read: image folders with
`metadata.jsonl` or `metadata.csv` (columns `file_name` and `text`), one for members and one for non-members, here in
PATH and called `train` and `test`, `members` and `nonmembers`, or with such a word at an end of a longer name
(`mia_coco_train`). Those of the shadow model lie in `shadow` or `split1`, or have that word in their names; they are
the calibration set.

Importance of words, that CLiD_impt reads, is taken from any `*imp_metadata.jsonl` in PATH (`ori_texts`,
`tokens_importance`) where it has as many numbers as the caption has words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError, brief
from mia_bench_plugins.datasets import imagefolder
from mia_bench_plugins.datasets.labels import LABELS, check, said_in
from mia_bench_plugins.datasets.options import folder_of

PAPER = "Zhai et al., NeurIPS 2024 (arXiv:2405.14800)"
SIDES = {"train": True, "test": False, **LABELS}
SHADOW = dict.fromkeys(("shadow", "split1", "calibration"), True)


class CLiDSet(Dataset):
    """One of CLiD's fine-tuning sets, from a local copy."""

    how = ""

    def samples(self) -> Sequence[Sample]:
        name = self.meta.name
        root = folder_of(name, self.argument, self.how)
        what = f"dataset {name}:{root}"
        samples: list[Sample] = []
        found: set[tuple[bool, Split]] = set()
        for folder in sorted(p for p in (*root.glob("*/"), *root.glob("*/*/")) if p.is_dir()):
            try:
                said = _said(folder.relative_to(root).parts)
            except ValueError as error:
                raise UnavailableError(f"{what}, folder {folder}", str(error), "rename it") from error
            if said is None:
                continue
            found.add(said)
            prefix = folder.relative_to(root).as_posix()
            for sample in imagefolder.read(folder, what):
                one = replace(sample, id=f"{prefix}/{sample.id}", member=said[0], split=said[1])
                samples.append(one)
        for member, word in ((True, "members: train or members"), (False, "non-members: test or nonmembers")):
            if (member, "audit") not in found:
                raise UnavailableError(what, f"no folder of {word}", f"rename it; {self.how}")
        samples = _weighted(samples, root, what)
        check(samples, what)
        return samples


def _said(parts: Sequence[str]) -> tuple[bool, Split] | None:
    """What a folder is, by the words in its name and in the one above it; None if it is no folder of images.

    Raises:
        ValueError: A name contradicts itself.
    """
    *above, member = (said_in(part, SIDES) for part in parts)
    if member is None or any(side is not None for side in above):
        return None
    return member, "calibration" if any(said_in(part, SHADOW) for part in parts) else "audit"


def _weighted(samples: list[Sample], root: Path, what: str) -> list[Sample]:
    """With the importance of each word, where a file has it."""
    weights: dict[str, tuple[float, ...]] = {}
    for path in sorted(root.rglob("*imp_metadata.jsonl")):
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                weights[row["ori_texts"]] = tuple(map(float, row["tokens_importance"].split()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnavailableError(what, f"{path}: {brief(error)}", "correct it, or remove it") from error
    return [
        replace(s, word_weights=found)
        if (found := weights.get(s.caption or "")) and len(found) == len((s.caption or "").split(" "))
        else s
        for s in samples
    ]


class CLiDCoco(CLiDSet):
    """2,500 + 2,500 images of MS-COCO with captions, for Stable Diffusion v1-4 tuned on the first half."""

    meta = DatasetMeta(
        name="clid-coco",
        summary="2,500 + 2,500 images of MS-COCO, for Stable Diffusion v1-4 tuned on half of them; your own copy",
        construction="random images of MS-COCO, one half to fine-tune on; a second such split for a shadow model. No "
        "tuned checkpoint is public: name your own with --target",
        biases="members and non-members come from one set; at 150,000 steps each image was seen 240 times: an attack "
        "that fails here fails everywhere, one that succeeds shows little",
        licence="MS-COCO images: Flickr terms of use; captions CC-BY-4.0",
        citation=PAPER,
        argument="FOLDER",
    )
    how = (
        "ask for access at https://huggingface.co/datasets/zsf/COCO_MIA_ori_split1 (gated; a request in May 2026 was "
        "refused) and unpack its zip, or draw 2,500 + 2,500 images of COCO and tune your own target on half"
    )


class CLiDFlickr(CLiDSet):
    """10,000 + 10,000 images of Flickr30k with captions, for Stable Diffusion v1-4 tuned on the first half."""

    meta = DatasetMeta(
        name="clid-flickr",
        summary="10,000 + 10,000 images of Flickr30k, for Stable Diffusion v1-4 tuned on half of them; your own copy",
        construction="random images of Flickr30k, one half to fine-tune on. Other papers use 2,500 or 1,000 under the "
        "same name: never compare rows across papers",
        biases="members and non-members come from one set; over-training (150,000 steps) exaggerates every attack",
        licence="Flickr30k images: research only, on request from its authors",
        citation=PAPER,
        argument="FOLDER",
    )
    how = (
        "its split was not released: ask the authors of arXiv:2405.14800, or get Flickr30k from "
        "https://shannon.cs.illinois.edu/DenotationGraph, draw 10,000 + 10,000 and tune your own target on half"
    )


class CLiDPokemon(CLiDSet):
    """416 + 417 Pokemon with BLIP captions, for Stable Diffusion v1-4 tuned on the first half."""

    meta = DatasetMeta(
        name="clid-pokemon",
        summary="416 + 417 Pokemon with BLIP captions, for Stable Diffusion v1-4 tuned on half of them; your own copy",
        construction="random halves of lambdalabs/pokemon-blip-captions",
        biases="833 images cannot resolve a false-positive rate of 1%; captions were generated by BLIP",
        licence="the images belong to The Pokemon Company; taken down from the hub in spring 2024",
        citation=PAPER,
        argument="FOLDER",
    )
    how = (
        "lambdalabs/pokemon-blip-captions was taken down in spring 2024 and cannot be had from its source any more: "
        "only a copy that you already have can be read"
    )


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [CLiDCoco, CLiDFlickr, CLiDPokemon]
