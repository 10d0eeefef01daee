"""SecMI against the authors' programs."""

import golden
import numpy as np
import pytest
import torch

from mia_bench_plugins.attacks.secmi import SecMI


def error(target, made, **params):
    attack = SecMI(SecMI.Params(**params))
    return golden.measure(attack, made, target)["error"]


def test_ldm_code(sd):
    noise, wanted = golden.load("noise_t1_secmi_ldm"), golden.load("golden_t1_secmi_ldm")
    made = golden.batch(sd, {("latent", None, 0): noise["vae"]})
    for row, t in enumerate(wanted["t_all_steps"]):
        found = error(sd, made, t=int(t))
        assert golden.relative(found, wanted["all_steps"][:, row]) < golden.SECMI, t
    attack = SecMI(SecMI.Params.model_validate(SecMI.presets["ldm-code"]))
    assert golden.relative(-attack.score(golden.measure(attack, made, sd), None), wanted["score"]) < golden.SECMI


def test_cifar_code(ddpm):
    wanted = golden.load("golden_t2_secmi")
    made = golden.batch(ddpm, {})
    attack = SecMI(SecMI.Params().resolved("pixel"))
    assert attack.params.t == int(wanted["t_effective"])
    assert golden.relative(-attack.score(golden.measure(attack, made, ddpm), None), wanted["secmi_stat"]) < golden.SECMI


@pytest.mark.parametrize("p", [2, 4])
def test_pia_repository_on_latents(sd, p):
    noise, wanted = golden.load("noise_t1_pia_repo"), golden.load("golden_t1_pia_repo")
    made, step = golden.batch(sd, {("latent", None, 0): noise["vae"]}), int(wanted["interval"])
    for k, t in enumerate(wanted["t_secmi"]):
        found = error(sd, made, t=int(t), stride=step, ahead=step, p=p)
        assert golden.relative(found, wanted[f"intended_secmi_p{p}"][k]) < golden.SECMI, t


def test_pia_repository_on_pixels(ddpm):
    wanted = golden.load("golden_t2_pia")
    made, step = golden.batch(ddpm, {}), int(wanted["interval"])
    for k, t in enumerate(wanted["t_secmi"]):
        assert golden.relative(error(ddpm, made, t=int(t), stride=step, ahead=step), wanted["secmi"][k]) < golden.SECMI


def test_closed_form_is_the_two_jumps_in_float64(ddpm):
    """Without rounding both are the same; the closed form is computed in float32 and agrees to its precision."""
    schedule, t, on = ddpm.schedule, 90, 100
    source = np.random.default_rng(0)
    x, here, there = (torch.from_numpy(source.normal(size=(2, 3, 8, 8))) for _ in range(3))
    ahead = schedule.jump(x, here, t, on)
    back = schedule.jump(ahead, there, on, t)
    ratio = schedule.noise / schedule.signal
    closed = float(schedule.signal[t] * (ratio[on] - ratio[t])) * (here - there)
    assert torch.allclose(back - x, closed, rtol=1e-10, atol=1e-12)
