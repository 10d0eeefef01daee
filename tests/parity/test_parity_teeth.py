"""The tolerances bite: each common slip moves the numbers further than a parity test lets them."""

import golden
import numpy as np
import pytest

from mia_bench.diffusion.schedule import Schedule
from mia_bench_plugins.attacks.clid import CLiD
from mia_bench_plugins.attacks.loss import Loss
from mia_bench_plugins.attacks.pia import PIA
from mia_bench_plugins.attacks.pian import PIAN

STEP, T = 4, 100  # the last of PIA's recorded steps


def loss_error(sd, captions):
    noise, wanted = golden.load("noise_t1_loss"), golden.load("golden_t1_loss")
    one = np.broadcast_to(noise["eps"], (golden.B, *noise["eps"].shape))
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], ("eps", None, 0): one}, captions)
    found = golden.measure(Loss(Loss.Params(t=450)), made, sd)["loss0"]
    return golden.relative(found, wanted["mean_sq"]) / golden.LOSS


def proximal_error(cls, sd, captions, p=4):
    wanted = golden.load("golden_t1_pia_repo")[f"intended_{cls.meta.name}_p4"][STEP]
    made = golden.batch(sd, {("latent", None, 0): golden.load("noise_t1_pia_repo")["vae"]}, captions)
    found = golden.measure(cls(cls.Params(t=T, p=p)), made, sd)["distance"]
    return golden.relative(found, wanted) / golden.PIA


def clid_error(sd, captions):
    noise, wanted = golden.load("noise_t1_clid_clip"), golden.load("golden_t1_clid_clip")
    ts = tuple(int(t) for t in wanted["t"])
    arrays = {("eps", t, 0): noise["eps"][:, j] for j, t in enumerate(ts)}
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays}, captions)
    losses = golden.measure(CLiD(CLiD.Params(t=ts)), made, sd)["losses"].mean(axis=1)
    names = ["cond1_dif", "cond2_dif", "cond3_dif", "condNull_dif"]
    differences = np.stack([wanted[name] for name in names], axis=1)
    return golden.absolute(losses[:, 1:] - losses[:, :1], differences) / golden.DIFFERENCE


ERRORS = {
    "loss": loss_error,
    "pia": lambda sd, captions: proximal_error(PIA, sd, captions),
    "pian": lambda sd, captions: proximal_error(PIAN, sd, captions),
    "clid": clid_error,
}


def shifted_table(schedule, by):
    """Levels one index off; `by` = 1 is the table that starts with abar = 1."""
    abar = np.concatenate([[1.0], schedule.abar])[:-1] if by == 1 else np.append(schedule.abar[1:], 1e-3)
    return Schedule(np.sqrt(abar), np.sqrt(1 - abar))


def slip(name, sd, monkeypatch):
    """Break the target in one way; returns the captions to use."""
    predict = sd.predict
    if name == "mode for sample":
        monkeypatch.setattr(sd, "latent", "mode")
    elif name == "time + 1":
        monkeypatch.setattr(sd.denoiser, "predict", lambda x, t, **s: predict(x, t + 1, **s))
    elif name == "clean query at t = 1":
        monkeypatch.setattr(sd.denoiser, "predict", lambda x, t, **s: predict(x, t.clamp(min=1), **s))
    elif name == "table starts with 1":
        monkeypatch.setattr(sd, "schedule", shifted_table(sd.schedule, 1))
    elif name == "table one ahead":
        monkeypatch.setattr(sd, "schedule", shifted_table(sd.schedule, -1))
    elif name == "linear betas":
        monkeypatch.setattr(sd, "schedule", Schedule.from_betas(np.linspace(0.00085, 0.012, 1000)))
    elif name == "unscaled latents":
        posterior = sd.posterior
        monkeypatch.setattr(sd, "posterior", lambda pixels: posterior(pixels) / 0.18215)
    return [None] * golden.B if name == "no caption" else golden.CAPTIONS


EVERYWHERE = [
    "mode for sample",
    "time + 1",
    "table starts with 1",
    "table one ahead",
    "linear betas",
    "unscaled latents",
    "no caption",
]
CASES = [(s, a) for s in EVERYWHERE for a in ERRORS] + [("clean query at t = 1", a) for a in ("pia", "pian")]


@pytest.mark.parametrize("attack", sorted(ERRORS))
def test_without_a_slip(sd, attack):
    assert ERRORS[attack](sd, golden.CAPTIONS) < 1


@pytest.mark.parametrize(("name", "attack"), CASES)
def test_slip_shows(sd, monkeypatch, name, attack):
    assert ERRORS[attack](sd, slip(name, sd, monkeypatch)) > 1


@pytest.mark.parametrize("p", [3, 5])
@pytest.mark.parametrize("cls", [PIA, PIAN])
def test_wrong_power_shows(sd, cls, p):
    assert proximal_error(cls, sd, golden.CAPTIONS, p) > 1


def test_wrong_kappa_shows(sd):
    wanted = golden.load("golden_t1_pia_repo")["intended_pian_p4"][STEP]
    made = golden.batch(sd, {("latent", None, 0): golden.load("noise_t1_pia_repo")["vae"]})
    found = golden.measure(PIAN(PIAN.Params(t=T, kappa="paper")), made, sd)["distance"]
    assert golden.relative(found, wanted) > golden.PIA
