"""The models are loaded right: VAE, text encoder, denoiser and schedule give the recorded outputs."""

import golden
import numpy as np
import pytest
import torch

from mia_bench.diffusion.keyed import keyed

WANTED = {"sd": golden.load("golden_t1_model"), "ddpm": golden.load("golden_t2_model")}


def test_vae_moments(sd):
    made, scale = golden.batch(sd, {}), sd.vae.config.scaling_factor
    with torch.inference_mode():
        moments = sd.vae_rows(sd.posterior, made.pixels)
        # The record was made channels-last; means reach 26, where the layout alone changes them by 1.2e-4.
        same_layout = sd.posterior(made.pixels.contiguous(memory_format=torch.channels_last))
    assert golden.absolute(same_layout[:, 0] / scale, WANTED["sd"]["vae_mean"]) < golden.MODEL
    assert golden.absolute(moments[:, 0], WANTED["sd"]["vae_mean"] * scale) < golden.MODEL
    assert golden.absolute(2 * (moments[:, 1] / scale).log(), WANTED["sd"]["vae_logvar"]) < golden.MODEL


def test_text_states(sd):
    states = sd.condition(golden.CAPTIONS).states["encoder_hidden_states"]
    assert golden.absolute(states, WANTED["sd"]["text_hidden"]) < golden.MODEL


def test_tokens(sd):
    assert (sd.tokens(golden.CAPTIONS).numpy() == golden.INPUTS["input_ids"]).all()


def test_noise_predictions_of_latents(sd):
    made = golden.batch(sd, {})
    x = torch.from_numpy(WANTED["sd"]["vae_mean"] * np.float32(sd.vae.config.scaling_factor))
    for t, wanted in zip(WANTED["sd"]["t"], WANTED["sd"]["eps_of_mode_latents_t0_t1_t450"], strict=True):
        found = sd.denoiser(keyed(x, "mode"), int(t), made.condition)
        assert golden.absolute(found, wanted) < golden.MODEL


def test_noise_predictions_of_pixels(ddpm):
    made = golden.batch(ddpm, {})
    for t, wanted in zip(WANTED["ddpm"]["t"], WANTED["ddpm"]["eps_of_clean_images_t0_t100_t450"], strict=True):
        assert golden.absolute(ddpm.denoiser(made.x0, int(t), made.condition), wanted) < golden.MODEL


@pytest.mark.parametrize("name", ["sd", "ddpm"])
def test_alpha_bar(name, request):
    assert golden.absolute(request.getfixturevalue(name).schedule.abar, WANTED[name]["alphas_cumprod"]) < 1e-6


def test_published_levels(sd, ddpm):
    # Stable Diffusion's scaled-linear and DDPM's linear schedule at the timesteps the attacks use.
    assert sd.schedule.abar[[0, 100, 140, 450, 500]] == pytest.approx(
        [0.99915, 0.8942, 0.8418, 0.3470, 0.2763], abs=5e-5
    )
    assert ddpm.schedule.abar[[0, 100, 200]] == pytest.approx([0.9999, 0.8951, 0.6563], abs=5e-5)


@pytest.mark.parametrize("name", ["t1_loss", "t1_pia_repo", "t1_clid_impt", "t1_clid_clip"])
def test_posterior_sample(sd, name):
    made = golden.batch(sd, {("latent", None, 0): golden.load(f"noise_{name}")["vae"]})
    assert golden.absolute(made.x0, golden.load(f"golden_{name}")["latents"]) < golden.MODEL
