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
        attack = PFAMI(PFAMI.Params(t=ts, strength=float(strength)))
        measured = golden.measure(attack, golden.batch(ddpm, arrays), ddpm)
        assert golden.relative(measured["original"], wanted["ori_losses"]) < golden.LOSS
        assert golden.relative(measured["crop"], wanted["per_losses"][:, :, m]) < golden.LOSS
        if m == 5:
            assert golden.absolute(attack.score(measured, None), wanted["stat"]) < golden.DIFFERENCE


def test_clid(sd):
    noise, wanted = golden.load("noise_t1_clid_pfami"), golden.load("golden_t1_clid_pfami")
    view = "crop0.825-8bit"
    arrays = {("latent", None, 0): noise["vae"][0], (f"latent:{view}", None, 0): noise["vae"][1]}
    arrays |= {("eps", None, 0): noise["eps"][0], (f"eps:{view}", None, 0): noise["eps"][1]}
    attack = PFAMI(PFAMI.Params.model_validate(PFAMI.presets["clid"]).resolved("latent"))
    assert list(attack.params.t) == wanted["t"].tolist()
    assert attack.params.strength == pytest.approx(float(wanted["strength"]))
    measured = golden.measure(attack, golden.batch(sd, arrays), sd)
    assert golden.relative(measured["original"].mean(axis=1), wanted["loss_ori"]) < golden.LOSS
    assert golden.relative(measured["crop"].mean(axis=1), wanted["loss_cut"]) < golden.LOSS
    assert golden.absolute(attack.score(measured, None), wanted["score"]) < golden.DIFFERENCE


def test_crop_is_the_file_that_the_program_made():
    from mia_bench.diffusion.views import centre_crop

    wanted = golden.load("golden_t1_clid_pfami")["pixels_cut_uint8"]
    import torch

    pixels = torch.from_numpy(golden.INPUTS["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = ((centre_crop(pixels, 0.825, eight_bit=True) + 1) * 127.5).round().numpy().astype(np.uint8)
    assert (found == wanted).all()
