"""What every attack and preset asks of the denoiser: the figures of the papers, one table.

Queries per image on latents; a guided step is two.
"""

import pytest

from mia_bench.attack import Control
from mia_bench.plugins import Registry

TABLE = {
    "clid": {"": 15, "null": 6, "importance": 15, "gaussian": 15, "clip-script": 15},
    "clid-vec": {"": 15, "null": 6, "importance": 15, "gaussian": 15, "clip-script": 15},
    "drc": {"": 50, "quick": 50, "guided": 100, "hidden": 50, "repaint": 2410},
    "ensemble": {"": 0, "caption": 0, "all-cheap": 0},  # what it requires is asked by that
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
ATTACKS = {name: cls for name, cls in Registry.load().attacks.items() if not issubclass(cls, Control)}


def attack_of(name, preset=""):
    cls = ATTACKS[name]
    return cls(cls.Params.model_validate(cls.presets.get(preset, {})).resolved("latent"))


def test_every_attack_and_preset_is_in_the_table():
    assert {name: {"", *cls.presets} for name, cls in ATTACKS.items()} == {n: set(p) for n, p in TABLE.items()}


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name, row in TABLE.items() for preset in row])
def test_queries_are_the_papers(name, preset):
    """That the denoiser counts as many, the conformance suite checks."""
    assert attack_of(name, preset).queries() == TABLE[name][preset]
