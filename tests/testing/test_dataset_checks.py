"""Each check of datasets passes a sound one and catches a planted fault."""

import hashlib
import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from broken import caught
from PIL import Image

from mia_bench import Dataset, DatasetMeta, Sample
from mia_bench.near import dhash
from mia_bench.testing import checks

SIDE = 16


def drawn(number):
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def opened(number):
    return Image.fromarray(drawn(number))


def listed():
    return [
        Sample(
            id=f"s{n}",
            image=partial(opened, n),
            content=hashlib.sha256(drawn(n)).hexdigest(),
            caption="a b",
            member=n % 2 == 0,
            split="calibration" if n > 5 else "audit",
            group=f"pair-{n // 2}",
            word_weights=(1.0, 2.0),
        )
        for n in range(10)
    ]


class Sound(Dataset):
    """Noise."""

    meta = DatasetMeta(
        name="sound",
        summary="noise",
        targets=("emoji-realworld",),
        construction="every other one",
        biases="none",
        licence="none needed",
    )

    def samples(self):
        return listed()


def changed(samples=None, each=None, **meta):
    """As `Sound` but for its metadata, or the samples that a function makes of its own."""
    body = {"__doc__": "Broken.", "__module__": __name__}
    if each:
        body["samples"] = lambda self: [each(s) for s in listed()]
    if samples:
        body["samples"] = lambda self: samples()
    return type("Changed", (Sound,), {**body, "meta": Sound.meta.model_copy(update=meta)})


@pytest.mark.parametrize("check", checks(Sound), ids=lambda check: check.name)
def test_a_sound_dataset_passes(check):
    check.run()


def test_loads():
    class Unfinished(Dataset):
        meta = Sound.meta

    caught("loads", Unfinished, "does not implement samples")


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"name": "So,und"}, "the name 'So,und'"),
        ({"summary": ""}, "a summary of 0"),
        ({"construction": ""}, "meta.construction is empty"),
        ({"biases": " "}, "meta.biases is empty"),
        ({"licence": ""}, "meta.licence is empty"),
        ({"targets": ("sd-v9",)}, "'sd-v9', which no plugin brings"),
    ],
)
def test_metadata(meta, words):
    caught("metadata", changed(**meta), words)


def test_ids():
    caught("ids", changed(samples=list), "no samples")
    caught("ids", changed(each=lambda s: replace(s, id="s1")), "the id 's1' occurs 10 times")
    caught("ids", changed(each=lambda s: replace(s, id=" ")), "the id ' '")
    counter = itertools.count()
    caught("ids", changed(each=lambda s: replace(s, id=f"s{next(counter)}")), "is there once only")


def test_digests():
    for field, fresh in {
        "content": lambda: hashlib.sha256(np.random.bytes(8)).hexdigest(),
        "caption": lambda: f"caption {np.random.rand()}",
        "group": lambda: f"group {np.random.rand()}",
    }.items():
        broken = changed(each=lambda s, field=field, fresh=fresh: replace(s, **{field: fresh()}))
        caught("digests", broken, f"{field} of sample 's0' is")
    caught("digests", changed(each=lambda s: replace(s, content=s.id)), "content of sample 's0' is 's0'", "sha256")


def test_splits():
    caught("splits", changed(each=lambda s: replace(s, group="one")), "the group 'one' is in audit ('s0'), calibration")
    caught("splits", changed(each=lambda s: replace(s, split="train")), "the split 'train'")
    caught("splits", changed(each=lambda s: replace(s, member="yes")), "member of sample 's0' is 'yes'")


def test_laziness(tmp_path):
    def eager(sample):
        image = sample.open()
        return replace(sample, image=lambda: image)

    caught("laziness", changed(each=eager), "10 images were decoded")
    path = tmp_path / "x.png"
    opened(0).save(path)

    def measured(sample):
        with Image.open(path) as file:
            file.load()
        return replace(sample, image=path)

    caught("laziness", changed(each=measured), "10 images were decoded")


def test_images():
    caught("images", changed(each=lambda s: replace(s, image=lambda: opened(None))), "opens as another image")
    caught("images", changed(each=lambda s: replace(s, content="0" * 64)), "has the content hash of another image")
    caught("images", changed(each=lambda s: replace(s, near=dhash(s.open()) ^ 1)), "near of sample")
    caught("images", changed(each=lambda s: replace(s, image=lambda: b"no image")), "not an image")


def test_word_weights():
    caught("word-weights", changed(each=lambda s: replace(s, word_weights=(1.0,))), "has 1 weights for 2 words")
    caught(
        "word-weights", changed(each=lambda s: replace(s, word_weights=(1.0, float("nan")))), "2 weights for 2 words"
    )


def test_a_copy_is_made_once_and_a_missing_one_says_so():
    made = []

    class Placed(Sound):
        """Read from a folder."""

        def samples(self):
            from pathlib import Path

            from mia_bench.errors import UnavailableError

            if not self.argument:
                raise UnavailableError("dataset sound", "no folder", "write sound:FOLDER")
            return [replace(s, id=f"{Path(self.argument).read_text()}{s.id}") for s in listed()]

    def place(folder):
        made.append(folder)
        (folder / "x").write_text("copied-")
        return str(folder / "x")

    for check in checks(Placed, argument=place):
        check.run()
    assert len(made) == 1
    caught("ids", Placed, "dataset sound: no folder", "write sound:FOLDER")
