"""Loss, M.C. (as CLiD's L), PIA and PIAN against the authors' programs."""

import golden
import numpy as np
import pytest
import torch

from mia_bench_plugins.attacks.loss import Loss
from mia_bench_plugins.attacks.mc import MonteCarlo
from mia_bench_plugins.attacks.pia import PIA
from mia_bench_plugins.attacks.pian import PIAN

LATENT_SIZE, PIXEL_SIZE = 4 * 16 * 16, 3 * 32 * 32


def test_loss(sd):
    noise, wanted = golden.load("noise_t1_loss"), golden.load("golden_t1_loss")
    # The program draws one noise for the whole batch; a record without t serves the t that is asked for.
    one = np.broadcast_to(noise["eps"], (golden.B, *noise["eps"].shape))
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], ("eps", None, 0): one})
    measured = golden.measure(Loss(Loss.Params(t=int(wanted["t"]))), made, sd)
    assert golden.relative(measured["loss0"], wanted["mean_sq"]) < golden.LOSS
    assert golden.relative(measured["loss0"] * LATENT_SIZE, wanted["sum_sq"]) < golden.LOSS
    assert (Loss(Loss.Params(t=450)).score(measured, None) == -measured["loss0"]).all()


@pytest.mark.parametrize("name", ["t1_clid_impt", "t1_clid_clip"])
def test_monte_carlo_is_clids_likelihood(sd, name):
    noise, wanted = golden.load(f"noise_{name}"), golden.load(f"golden_{name}")
    ts = tuple(int(t) for t in wanted["t"])
    arrays = {("eps", t, 0): noise["eps"][:, j] for j, t in enumerate(ts)}
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays})
    attack = MonteCarlo(MonteCarlo.Params(t=ts))
    assert golden.relative(-attack.score(golden.measure(attack, made, sd), None), wanted["cond0"]) < golden.LOSS


@pytest.fixture(scope="module")
def latent_steps(sd):
    noise, wanted = golden.load("noise_t1_pia_repo"), golden.load("golden_t1_pia_repo")
    ts = [int(t) for t in wanted["t"]]
    arrays = {("eps", t, 0): noise["eps"][k] for k, t in enumerate(ts)}
    return golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays}), ts, wanted


@pytest.fixture(scope="module")
def pixel_steps(ddpm):
    noise, wanted = golden.load("noise_t2_pia"), golden.load("golden_t2_pia")
    ts = [int(t) for t in wanted["t"]]
    return golden.batch(ddpm, {("eps", t, 0): noise["eps"][k] for k, t in enumerate(ts)}), ts, wanted


@pytest.mark.parametrize("p", [2, 4])
def test_naive_on_latents(sd, latent_steps, p):
    made, ts, wanted = latent_steps
    for k, t in enumerate(ts):
        found = golden.measure(Loss(Loss.Params(t=t, p=p)), made, sd)["loss0"] * LATENT_SIZE
        assert golden.relative(found, wanted[f"intended_naive_p{p}"][k]) < golden.LOSS, t


@pytest.mark.parametrize("p", [2, 4])
@pytest.mark.parametrize("cls", [PIA, PIAN])
@pytest.mark.parametrize(("setting", "row"), [("paper", "intended"), ("repo-sd", "published")])
def test_proximal_on_latents(sd, latent_steps, cls, p, setting, row):
    made, ts, wanted = latent_steps
    for k, t in enumerate(ts):
        found = golden.measure(cls(cls.Params(t=t, p=p, setting=setting)), made, sd)["distance"]
        assert golden.relative(found, wanted[f"{row}_{cls.meta.name}_p{p}"][k]) < golden.PIA, t


def test_on_pixels(ddpm, pixel_steps):
    made, ts, wanted = pixel_steps
    assert wanted["lp_pia"] == PIA.Params().p
    for k, t in enumerate(ts):
        naive = golden.measure(Loss(Loss.Params(t=t)), made, ddpm)["loss0"] * PIXEL_SIZE
        assert golden.relative(naive, wanted["naive"][k]) < golden.LOSS, t
        for cls in (PIA, PIAN):
            found = golden.measure(cls(cls.Params(t=t)), made, ddpm)["distance"]
            assert golden.relative(found, wanted[cls.meta.name][k]) < golden.PIA, (cls, t)


def inversion(target, made, ts, step):
    """SecMI's walk: one step on and back from each state, as far as `Schedule.jump` and the denoiser go."""
    x, schedule, e = made.x0, target.schedule, target.denoiser
    for t in ts:
        ahead = schedule.jump(x, e(x, t, made.condition), t, t + step)
        back = schedule.jump(ahead, e(ahead, t + step, made.condition), t + step, t)
        yield (torch.Tensor(back) - torch.Tensor(x)).double().abs()
        x = ahead


def test_jumps_on_latents(sd, latent_steps):
    made, _, wanted = latent_steps
    steps = inversion(sd, made, [int(t) for t in wanted["t_secmi"]], int(wanted["interval"]))
    for k, difference in enumerate(steps):
        for p in (2, 4):
            found = (difference**p).sum(dim=(1, 2, 3))
            assert golden.relative(found, wanted[f"intended_secmi_p{p}"][k]) < golden.SECMI, (k, p)


def test_jumps_on_pixels(ddpm, pixel_steps):
    made, _, wanted = pixel_steps
    steps = inversion(ddpm, made, [int(t) for t in wanted["t_secmi"]], int(wanted["interval"]))
    for k, difference in enumerate(steps):
        assert golden.relative((difference**2).sum(dim=(1, 2, 3)), wanted["secmi"][k]) < golden.SECMI, k
