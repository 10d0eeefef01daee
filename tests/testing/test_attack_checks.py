"""Each check of attacks and controls passes a sound one and catches a planted fault."""

import hashlib
import sys

import numpy as np
import pytest
from broken import caught, the
from pydantic import Field

from mia_bench import Access, Attack, Capability, Control, Meta
from mia_bench.diffusion.reduce import power_mean
from mia_bench.errors import SampleError
from mia_bench.testing import checks


def meta(**changes):
    given = {"name": "sound", "summary": "loss", "paper": "none: a test", "access": Access.LOSS}
    return Meta(**{**given, **changes})


class Sound(Attack):
    """The loss at one timestep."""

    meta = meta()

    class Params(Attack.Params):
        """t: Timestep."""

        t: int = Field(300, ge=0, le=999)

    presets = {"late": {"t": 600}}

    def queries(self):
        return 1

    def measure(self, batch, target):
        t, eps = self.params.t, batch.eps(self.params.t)
        return {"loss": power_mean(target.denoiser(target.schedule.noised(batch.x0, eps, t), t, batch.condition) - eps)}

    def score(self, measured, calibration):
        return -measured["loss"]


def digits(sample_id):
    """A number below 100 that has nothing to do with membership."""
    return int(hashlib.sha256(sample_id.encode()).hexdigest(), 16) % 100


def changed(measure=None, score=None, base=Sound, **body):
    """As `base` but for what is given; `measure` and `score` get what the base's gave."""
    if measure:
        body["measure"] = lambda self, batch, target: {
            "loss": measure(base.measure(self, batch, target)["loss"], self, batch, target)
        }
    if score:
        body["score"] = lambda self, measured, calibration: score(measured, calibration)
    return type("Changed", (base,), {"__doc__": "Broken.", "__module__": __name__, **body})


@pytest.mark.parametrize("check", checks(Sound), ids=lambda check: check.name)
def test_a_sound_attack_passes(check):
    check.run()


def test_loads():
    caught("loads", changed(presets={"late": {"t": 6000}}), "Changed.queries() fails with preset 'late'")
    caught("loads", changed(meta="sound"), "Changed.meta is not a Meta")

    class Unfinished(Attack):
        meta = meta()

    caught("loads", Unfinished, "does not implement measure, queries, score")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"summary": ""}, "a summary of 0 characters"),
        ({"summary": "two\nlines"}, "in 2 lines"),
        ({"summary": "long " * 30}, "a summary of 150 characters"),
        ({"paper": "Kong et al."}, "the paper 'Kong et al.'"),
        ({"paper": "arXiv:2305.18355"}, "the citation ''"),
        ({"paper": "arXiv:2305.18355", "citation": "Kong et al."}, "the citation 'Kong et al.'"),
        ({"needs": frozenset({Capability.DENOISE, Capability.GRADIENT})}, "its access is loss"),
    ],
)
def test_metadata(changes, words):
    caught("metadata", changed(meta=meta(**changes)), words)


def test_more_metadata():
    caught("metadata", changed(__doc__=None), "no docstring")
    caught("metadata", changed(aliases={"other": "loss@late"}), "the alias 'other' stands for 'loss@late'")


class Silent(Attack.Params):
    """Nothing."""

    t: int = 300


class Doubling(Attack.Params):
    """t: Timestep."""

    t: int = 300

    def model_post_init(self, context):
        object.__setattr__(self, "t", self.t + 1)


class Soft(Attack.Params, frozen=False):
    """t: Timestep."""

    t: int = 300


def test_parameters():
    caught("parameters", changed(Params=Silent), "nothing is said of the parameter 't'")

    class Local(Attack.Params):
        """t: Timestep."""

        t: int = 300

    caught("parameters", changed(Params=Local), "the defaults cannot be stored and read again")
    caught("parameters", changed(Params=Doubling), "come back changed")
    caught("parameters", changed(Params=Soft), "can be changed after they are planned")


def test_determinism():
    import torch

    text = caught("determinism", changed(lambda loss, *_: loss + torch.rand(len(loss))), "term 'loss' of sample")
    assert "batch.eps" in text
    caught(
        "determinism", changed(score=lambda m, _: -m["loss"] + np.random.rand(len(m["loss"]))), "the score of sample"
    )


@pytest.mark.parametrize(
    "measure",
    [
        lambda loss, *_: loss - loss.mean(),  # of the batch
        lambda loss, *_: loss.flip(0),  # by place, not by sample
        lambda loss, self, batch, target: loss + target.denoiser.share,
    ],
)
def test_batches(measure):
    caught("batches", changed(measure))


def test_resume():
    def first_kept(loss, self, batch, target):
        self.__dict__.setdefault("centre", float(loss.mean()))
        return loss - self.centre

    caught("resume", changed(first_kept), "term 'loss'", "a new one")


def test_rows():
    caught(
        "rows", changed(lambda loss, self, batch, target: loss + target.denoiser.rows.rows), "5 rows a call", "rtol="
    )
    wide = changed(lambda loss, self, batch, target: loss * (1 + 1e-4 * target.denoiser.rows.rows))
    caught("rows", wide)
    the("rows", wide, rtol=0.01).run()


def test_finite():
    caught("finite", changed(lambda loss, *_: loss / 0 * 0), "not finite")
    caught("finite", changed(score=lambda m, _: np.log(np.zeros(len(m["loss"])))), "scores -inf")
    caught("finite", changed(score=lambda m, _: np.zeros(len(m["loss"]))), "all samples score the same")
    caught("finite", changed(score=lambda m, _: m["los"]), "KeyError", __file__)

    def choosy(loss, self, batch, target):
        if len(batch) > 1 or digits(batch.ids[0]) % 2:
            raise SampleError("sample", "not to my taste", "")
        return loss

    caught("finite", changed(choosy), "samples are lost", "not to my taste")


def test_label_blindness():
    def peeking(measured, calibration):
        scorer = sys._getframe(3)
        while "plan" not in scorer.f_locals:
            scorer = scorer.f_back
        known = dict(zip(scorer.f_locals["plan"].samples.id, scorer.f_locals["plan"].samples.is_member, strict=True))
        return np.array([known[i] for i in measured.ids]) - measured["loss"]

    caught("label-blindness", changed(score=peeking), "the score of sample", "Control")


def test_queries():
    caught("queries", changed(queries=lambda self: 2), "the defaults ask 1 an image of tiny, and say 2")
    one_preset = changed(queries=lambda self: 1 + (self.params.t == 600))
    caught("queries", one_preset, "preset 'late' ask 1")
    more = changed(lambda loss, self, batch, target: (target.denoiser(batch.x0, 5, batch.condition), loss)[1])
    caught("queries", more, "ask 2 an image of tiny, and say 1")

    def by_kind(loss, self, batch, target):
        return (target.denoiser(batch.x0, 5, batch.condition), loss)[1] if target.meta.kind == "pixel" else loss

    caught("queries", changed(by_kind), "an image of tiny-pixels")


class Drawn(Attack):
    """Distance from one generated image."""

    meta = meta(access=Access.IMAGES, needs=frozenset({Capability.GENERATE}))

    def queries(self):
        return 10

    def measure(self, batch, target):
        made = target.generate(batch, [c or "" for c in batch.captions], steps=5, guidance=7.5)
        return {"distance": power_mean(made - batch.pixels)}

    def score(self, measured, calibration):
        return -measured["distance"]


def test_images_of_a_target_that_only_generates_are_counted():
    the("queries", Drawn).run()
    caught("queries", changed(base=Drawn, generations=lambda self: 3), "ask 1 an image of tiny-generator, and say 3")


def test_captions():
    caught("captions", changed(meta=meta(caption="unused")), "with other captions term 'loss'")

    def deaf(self, batch, target):
        return {"loss": power_mean(target.denoiser(batch.x0, 5, batch.null))}

    caught(
        "captions", type("Deaf", (Sound,), {"__module__": __name__, "measure": deaf}), "other captions change nothing"
    )

    def demanding(loss, self, batch, target):
        if None in batch.captions:
            raise SampleError("sample", "no caption", "give it one")
        return loss

    caught("captions", changed(demanding), "samples without captions are refused")
    the("captions", changed(demanding, meta=meta(caption="required"))).run()


def test_orientation():
    reversed_ = changed(score=lambda measured, _: measured["loss"])
    text = caught("orientation", reversed_, "AUC 0.", "negate")
    assert float(text.split("found: AUC ")[1][:5]) < 0.2
    caught("orientation", changed(score=lambda m, _: np.array([digits(i) for i in m.ids])), "AUC 0.")


class Fair(Control):
    """Distance to the mean thumbnail of the other samples' members."""

    meta = meta(name="fair", access=Access.NONE, needs=frozenset(), caption="unused")
    modality = "image"

    def measure(self, batch, target):
        return {"loss": np.stack([np.asarray(image.resize((2, 2)), dtype=float).ravel() for image in batch.images])}

    def score(self, measured, calibration):
        values, member = measured["loss"], measured.member
        alone = np.eye(len(values), dtype=bool)
        return np.array([-np.abs(v - values[member & ~me].mean(0)).sum() for v, me in zip(values, alone, strict=True)])


@pytest.mark.parametrize("check", checks(Fair), ids=lambda check: check.name)
def test_a_fair_control_passes(check):
    check.run()


def test_out_of_fold():
    told = changed(base=Fair, score=lambda m, _: m.member + m["loss"][:, 0] / 1e6)
    caught("out-of-fold", told, "AUC 1.000 on random labels", "cross-validate")
    assert "label-blindness" not in {check.name for check in checks(Fair)}
