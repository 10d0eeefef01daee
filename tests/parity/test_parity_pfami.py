"""PFAMI against the authors' program and CLiD's variant of it."""

import golden
import numpy as np
import pytest

from mia_bench_plugins.attacks.pfami import PFAMI


def test_mia_gen(ddpm):
    noise, wanted = golden.load("noise_t2_miagen_pfami"), golden.load("golden_t2_miagen_pfami")
    ts = tuple(int(t) for t in wanted["steps"])
    for m, strength in enumerate(wanted["strengths"]):
        view = f"eps:crop{strength:.4g}"
        arrays = {("eps", t, 0): noise["eps"][0, j] for j, t in enumerate(ts)}
        arrays |= {(view, t, 0): noise["eps"][1 + m, j] for j, t in enumerate(ts)}
        attack = PFAMI(PFAMI.Params(t=ts, strengths=(float(strength),)))
        measured = golden.measure(attack, golden.batch(ddpm, arrays), ddpm)
        assert golden.relative(measured["original"], wanted["ori_losses"]) < golden.LOSS
        assert golden.relative(measured["crops"][:, :, 0], wanted["per_losses"][:, :, m]) < golden.LOSS
        if m == 5:
            assert golden.absolute(attack.score(measured, None), wanted["stat"]) < golden.DIFFERENCE


def test_clid(sd):
    noise, wanted = golden.load("noise_t1_clid_pfami"), golden.load("golden_t1_clid_pfami")
    view = "crop0.825-8bit"
    arrays = {("latent", None, 0): noise["vae"][0], (f"latent:{view}", None, 0): noise["vae"][1]}
    arrays |= {("eps", None, 0): noise["eps"][0], (f"eps:{view}", None, 0): noise["eps"][1]}
    attack = PFAMI(PFAMI.Params.model_validate(PFAMI.presets["clid"]).resolved("latent"))
    assert list(attack.params.t) == wanted["t"].tolist()
    assert attack.params.strengths == pytest.approx([float(wanted["strength"])])
    measured = golden.measure(attack, golden.batch(sd, arrays), sd)
    assert golden.relative(measured["original"].mean(axis=1), wanted["loss_ori"]) < golden.LOSS
    assert golden.relative(measured["crops"].mean(axis=(1, 2)), wanted["loss_cut"]) < golden.LOSS
    assert golden.absolute(attack.score(measured, None), wanted["score"]) < golden.DIFFERENCE


def test_copymark(sd):
    noise, wanted = golden.load("noise_t1_copymark_pfami"), golden.load("golden_t1_copymark_pfami")
    preset, strengths = PFAMI.presets["copymark"], tuple(float(s) for s in wanted["strengths"])
    ts, views = preset["t"], [f"crop{s:.4g}" for s in strengths]
    assert list(ts) == wanted["t_model"].tolist()
    assert (preset["strengths"][0], preset["strengths"][-1]) == pytest.approx((strengths[0], strengths[-1]))
    arrays = {("latent", None, 0): noise["vae"][0]} | {("eps", t, 0): noise["eps"][0, j] for j, t in enumerate(ts)}
    for m, view in enumerate(views, 1):
        arrays[f"latent:{view}", None, 0] = noise["vae"][m]
        arrays |= {(f"eps:{view}", t, 0): noise["eps"][m, j] for j, t in enumerate(ts)}
    attack = PFAMI(PFAMI.Params.model_validate({**preset, "strengths": strengths}).resolved("latent"))
    measured, size = golden.measure(attack, golden.batch(sd, arrays), sd), 4 * 16 * 16  # their losses are sums
    assert golden.relative(measured["original"] * size, wanted["ori_losses"].T) < golden.LOSS
    assert golden.relative(measured["crops"] * size, wanted["perturb_losses"].transpose(2, 1, 0)) < golden.LOSS
    assert golden.absolute(attack.rises(measured).mean(axis=2), -wanted["all_steps"]) < golden.DIFFERENCE
    assert golden.absolute(len(ts) * attack.score(measured, None), -wanted["score_sum"]) < 10 * golden.DIFFERENCE


def test_crop_is_the_file_that_the_program_made():
    from mia_bench.diffusion.views import centre_crop

    wanted = golden.load("golden_t1_clid_pfami")["pixels_cut_uint8"]
    import torch

    pixels = torch.from_numpy(golden.INPUTS["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = ((centre_crop(pixels, 0.825, eight_bit=True) + 1) * 127.5).round().numpy().astype(np.uint8)
    assert (found == wanted).all()
