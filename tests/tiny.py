"""A benchmark so small that a run takes a moment: a plugin like any other, with a target that needs only torch."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from mia_bench import Access, Attack, Capability, Dataset, DatasetMeta, Meta, Target, TargetMeta, hookimpl, scoring
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.reduce import power_mean
from mia_bench.diffusion.schedule import Schedule
from mia_bench.engine.measure import make_batch
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench_plugins.attacks import clid, loss, pia
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji


class Tiny(Target):
    """A convolution that sees the timestep and the caption; latents are the image, eight pixels a side."""

    meta = TargetMeta(
        name="tiny",
        summary="one convolution",
        kind="latent",
        capabilities=frozenset({Capability.DENOISE, Capability.CAPTION, Capability.GRADIENT}),
        argument="SEED",
    )

    def weights(self):
        return {"kernel": self.argument or "7"}

    def load(self):
        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))
        self.image_size, self.sample_shape = 32, (4, 8, 8)
        source = torch.Generator().manual_seed(int(self.argument or 7))
        self.kernel = torch.randn(4, 4, 3, 3, generator=source) / 6

    def predict(self, x, t, encoder_hidden_states):
        bias = encoder_hidden_states.mean(1) + t[:, None] / 1000
        return torch.tanh(functional.conv2d(x, self.kernel, padding=1) + bias[:, :, None, None])

    def posterior(self, pixels):
        small = functional.avg_pool2d(pixels, 4)
        mean = torch.cat([small, small[:, :1]], dim=1)
        return torch.stack([mean, torch.full_like(mean, 0.1)], dim=1)

    def tokens(self, texts):
        return torch.tensor([[ord(c) for c in text[:24].ljust(24)] for text in texts])

    def text_states(self, tokens):
        return torch.sin(tokens[:, :, None] * torch.arange(1.0, 5.0))


class TinyWithoutCaptions(Tiny):
    """The same without a text encoder."""

    meta = TargetMeta(
        name="tiny-mute", summary="no captions", kind="latent", capabilities=frozenset({Capability.DENOISE})
    )

    def predict(self, x, t):
        return torch.tanh(functional.conv2d(x, self.kernel, padding=1))


class Logged(Attack):
    """The loss, and a line for every sample measured in the file that the environment names."""

    meta = Meta(name="logged", summary="loss, with a log", paper="none", access=Access.LOSS)

    class Params(Attack.Params):
        scale: float = scoring(1.0)

    presets = {"double": {"scale": 2.0}}

    def queries(self):
        return 1

    def measure(self, batch, target):
        if log := os.environ.get("TINY_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.writelines(f"{i}\n" for i in batch.ids)
        eps = batch.eps(300)
        predicted = target.denoiser(target.schedule.noised(batch.x0, eps, 300), 300, batch.condition)
        return {"loss": power_mean(predicted - eps)}

    def score(self, measured, calibration):
        return -self.params.scale * measured["loss"]


class Icons(FluentEmoji):
    """The audit set of the embedded dataset."""

    meta = DatasetMeta(name="icons", summary="an audit set alone", targets=("tiny",))

    def samples(self):
        return [s for s in super().samples() if s.split == "audit"]


class IconsMirror(Icons):
    """The same with members and non-members swapped."""

    meta = DatasetMeta(name="icons-mirror", summary="the mirror of icons")

    def samples(self):
        return [replace(s, member=not s.member) for s in super().samples()]


@hookimpl
def mia_bench_datasets():
    return [Icons, IconsMirror]


@hookimpl
def mia_bench_targets():
    return [Tiny, TinyWithoutCaptions]


@hookimpl
def mia_bench_attacks():
    return [Logged]


def plugin(attacks=(), **events):
    """A plugin of some attacks and event hooks (`batch_measured=function`)."""
    module = ModuleType("plugin")
    module.mia_bench_attacks = hookimpl(lambda: list(attacks))
    module.mia_bench_attacks.__name__ = "mia_bench_attacks"
    for name, function in events.items():
        setattr(module, f"mia_bench_{name}", hookimpl(function))
    return module


def attack(name, measure=None, score=None, base=Logged, **body):
    """An attack class that differs from `logged` in what is given."""
    body["meta"] = Meta(name=name, summary=name, paper="none", access=Access.LOSS, **body.pop("meta", {}))
    body.update({k: v for k, v in (("measure", measure), ("score", score)) if v})
    return type(name, (base,), body)


def registry(*modules, samples=None):
    """The tiny plugin, three bundled attacks, a dataset `given` of these samples, and more modules."""
    made = Registry()
    for module in (sys.modules[__name__], loss, pia, clid, *modules):
        plugin = made.add(module.__name__, "tests", module.__name__, lambda module=module: module)
        assert not plugin.error, plugin.trace
    made.datasets["given"] = dataset(icons(6, 6) if samples is None else samples)
    return made


def batch_of(target, samples, noise=None):
    """A batch as the engine makes it."""
    return make_batch(samples, [s.open() for s in samples], target, noise or KeyedNoise(0))


def dataset(samples, targets=("tiny",), preset=""):
    class Given(Dataset):
        meta = DatasetMeta(name="given", summary="given", targets=targets, preset=preset)

        def samples(self):
            return list(samples)

    return Given


def icons(members, others, calibration=(0, 0), unknown=0, **changes):
    """Samples of the embedded dataset under other labels."""
    kinds = [("audit", True)] * members + [("audit", False)] * others + [("audit", None)] * unknown
    kinds += [("calibration", True)] * calibration[0] + [("calibration", False)] * calibration[1]
    samples = FluentEmoji().samples()
    return [replace(s, split=k, member=m, **changes) for s, (k, m) in zip(samples, kinds, strict=False)]


def go(folder, made=None, attacks="loss,pia", **options):
    """A run on one thread with four rows and batches of four."""
    defaults = {"dataset": "given", "threads": 1, "rows": 4, "batch": 4}
    return run(made or registry(), RunOptions(attacks=attacks, out=folder, **{**defaults, **options}))


def scores(folder):
    """(label, sample id) -> score, from `scores.parquet`."""
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    return {(r["attack"] + (r["preset"] and "@" + r["preset"]), r["sample_id"]): r["score"] for r in rows}


def row(result, label):
    return next(r for r in result.rows if r.label == label)
