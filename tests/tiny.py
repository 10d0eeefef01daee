"""A benchmark so small that a run takes a moment: a plugin like any other, around the package's own tiny target."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import torch
from torch.nn import functional

from mia_bench import Access, Attack, Capability, Dataset, DatasetMeta, Meta, TargetMeta, hookimpl, scoring
from mia_bench.diffusion.reduce import power_mean
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench.testing import TinyTarget
from mia_bench.testing import batch_of as batch_of
from mia_bench.testing import icons as icons
from mia_bench_plugins.attacks import clid, loss, pia
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji


class Tiny(TinyTarget):
    """The tiny target of `mia_bench.testing` that does no more than most: it generates nothing."""

    meta = TinyTarget.meta.model_copy(
        update={"capabilities": frozenset({Capability.DENOISE, Capability.CAPTION, Capability.GRADIENT})}
    )


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


def dataset(samples, targets=("tiny",), preset=""):
    class Given(Dataset):
        meta = DatasetMeta(name="given", summary="given", targets=targets, preset=preset)

        def samples(self):
            return list(samples)

    return Given


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
