"""What every attack and preset asks of the denoiser: the figures of the papers, one table.

Queries per image on latents; a guided step is two.
"""

import numpy as np
import pytest
import tiny
from able import Able
from stub_encoder import Stub

from mia_bench.attack import Control
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.images import to_pixels
from mia_bench.plugins import Registry

TABLE = {
    "clid": {"": 15, "null": 6, "importance": 15, "gaussian": 15, "clip-script": 15},
    "clid-vec": {"": 15, "null": 6, "importance": 15, "gaussian": 15, "clip-script": 15},
    "drc": {"": 50, "quick": 50, "guided": 100, "hidden": 50, "repaint": 2410},
    "gsa": {"": 10, "quick": 10, "gsa2": 10, "copymark": 20, "copymark-gsa2": 20},
    "iip": {
        **dict.fromkeys(["", "d", "m", "lambda-objective"], 580),
        **dict.fromkeys(["random", "string", "string-d", "string-m", "quick", "quick-d", "quick-m"], 60),
    },
    "loss": {"": 1},
    "mc": {"": 3, "copymark-pia": 50, "copymark-pian": 50},
    "noise-probe": {"": 300, "latent": 300},
    "pfami": {"": 20, "difference": 20, "paired-noise": 20, "clid": 20, "calibrated": 40, "copymark": 110},
    "pfami-nns": {"": 110, "calibrated": 220, "logit-difference": 110, "quick": 55},
    "pia": {"": 2, "p5": 2, "t200": 2, "t400": 2, "repo-sd": 4},
    "pian": {"": 2, "paper": 2, "t200": 2, "repo-sd": 4},
    "rediffuse": {"": 10, "resnet": 10, "repo-sd": 2, "quick": 10},
    "secmi": {"": 12, "paper": 12, "cifar-code": 11, "ldm-code": 16, "clid-baseline": 12, "copymark": 2},
    "secmi-nns": {
        **dict.fromkeys(["", "quick", "paper", "clid-baseline"], 12),
        **{"cifar-code": 11, "ldm-code": 16, "copymark": 2},
    },
    "sima": {"": 1, "mc": 30},
    "structural": {"": 2, "null": 2, "source": 2},
    "sweep": {**dict.fromkeys(["", "highest", "mean", "autoencoder", "course"], 1208), "quick": 62},
    "wen": {"": 2, "steps10": 20, "steps50": 100, "steps50x4": 400},
    **{f"wu-{name}": {"": 100, "captioned": 100, "quick": 50} for name in ("ip", "is", "iip", "iv")},
    **{
        f"wu-{name}": {"": 100, "captioned": 100, "training-free": 100, "quick": 50, "quick-training-free": 50}
        for name in ("iis", "iii")
    },
}
STOPS_EARLY = {("iip", preset) for preset in ("", "d", "m", "lambda-objective")}  # asks at most so many
ATTACKS = {name: cls for name, cls in Registry.load().attacks.items() if not issubclass(cls, Control)}
SUITE = ("loss", "mc", "pia", "pian", "secmi", "pfami", "clid")


def attack_of(name, preset=""):
    cls = ATTACKS[name]
    return cls(cls.Params.model_validate(cls.presets.get(preset, {})).resolved("latent"))


@pytest.fixture(scope="module")
def made():
    """Two samples on a target that can do everything."""
    import torch

    target = Able()
    target.reference = Able("8")
    every = {spec for name, row in TABLE.items() for preset in row for spec in attack_of(name, preset).encoders()}
    target.encoders = {spec: Stub() for spec in every}
    target.open(rows=16)
    samples = tiny.icons(2, 0)
    images = [sample.open() for sample in samples]
    pixels = torch.from_numpy(np.stack([to_pixels(image, 32) for image in images]))
    captions = [sample.caption for sample in samples]
    weights = [tuple(range(len(caption.split(" ")))) for caption in captions]
    return Batch([s.id for s in samples], captions, images, pixels, target, KeyedNoise(0), weights), target


def ask(made, name, preset=""):
    """Queries per image that `measure` asks."""
    import torch

    batch, target = made
    before = target.denoiser.asked.total()
    with torch.no_grad():
        attack_of(name, preset).measure(batch, target)
    return (target.denoiser.asked.total() - before) / len(batch)


def test_every_attack_and_preset_is_in_the_table():
    assert {name: {"", *cls.presets} for name, cls in ATTACKS.items()} == {n: set(p) for n, p in TABLE.items()}


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name, row in TABLE.items() for preset in row])
def test_queries_declared_and_asked(made, name, preset):
    declared, asked = attack_of(name, preset).queries(), ask(made, name, preset)
    assert declared == TABLE[name][preset]
    assert asked <= declared if (name, preset) in STOPS_EARLY else asked == declared


def test_the_suite_shares_49_of_55_queries(made):
    batch, target = made
    target.forget()
    before = target.denoiser.executed
    assert sum(ask(made, name) for name in SUITE) == 55
    assert (target.denoiser.executed - before) / len(batch) == 49
    for preset in ("cifar-code", "ldm-code", "clid-baseline"):
        ask(made, "secmi", preset)
    assert (target.denoiser.executed - before) / len(batch) == 49 + 5
