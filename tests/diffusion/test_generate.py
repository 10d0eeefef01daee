"""What targets generate is what diffusers' pipelines generate, on the two small models with random weights.

Where a pipeline cannot be told otherwise the comparison says so: an image goes in as latents, because a pipeline would
draw them from the posterior, and the pipelines' noise is the sample's own.
"""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img
from PIL import Image

from mia_bench.batch import Batch
from mia_bench.diffusion.keyed import plain
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.sampler import levels, path
from mia_bench_plugins.targets.ddpm import DDPM
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

MODELS = Path(__file__).parents[1] / "parity" / "fixtures" / "models"
CAPTIONS = ["a red disc", "two green squares", ""]
CLOSE = {"rtol": 0, "atol": 1e-4}  # of values in [-1, 1]; levels are float64 here, float32 in the pipelines


def opened(family, name, **options):
    target = family(str(MODELS / name))
    target.open(rows=3, **options)
    return target


@pytest.fixture(scope="module")
def sd():
    return opened(StableDiffusion, "tiny_sd")


@pytest.fixture(scope="module")
def ddpm():
    return opened(DDPM, "tiny_ddpm")


@pytest.fixture(scope="module")
def pipeline():
    made = StableDiffusionPipeline.from_pretrained(str(MODELS / "tiny_sd"), low_cpu_mem_usage=False)
    made.scheduler = DDIMScheduler.from_pretrained(str(MODELS / "tiny_sd"), subfolder="scheduler")
    made.set_progress_bar_config(disable=True)
    return made


def batch_of(target, ids=("one", "two", "three"), captions=CAPTIONS):
    """Images that belong to their ids."""
    target.forget()
    side = target.image_size
    seeds = [torch.Generator().manual_seed(sum(i.encode())) for i in ids]
    pixels = torch.stack([torch.rand(3, side, side, generator=seed) * 2 - 1 for seed in seeds])
    return Batch(ids, captions, [Image.new("RGB", (side, side))] * len(ids), pixels, target, KeyedNoise(0))


def pictures(found):
    """What a pipeline returns, in [-1, 1]."""
    images = found.images
    images = images if isinstance(images, torch.Tensor) else torch.from_numpy(images).permute(0, 3, 1, 2)
    return images * 2 - 1


def start(batch, target, steps, strength=1.0, draw=0):
    return plain(batch.eps(path(target, steps, strength)[0], draw, "start")).clone()


def differs(found, wanted):
    return float((found - wanted).abs().max()) > 1e-3


# The pipelines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "guidance", "draw"), [(10, 7.5, 0), (10, 1.0, 0), (10, 0.0, 2), (50, 7.5, 1)])
def test_text_to_image(sd, pipeline, steps, guidance, draw):
    """A pipeline takes guidance of 1 or less for none at all: without the caption, it is given empty ones."""
    batch = batch_of(sd)
    found = sd.generate(batch, CAPTIONS, steps=steps, guidance=guidance, draw=draw)
    options = {"num_inference_steps": steps, "guidance_scale": guidance, "latents": start(batch, sd, steps, draw=draw)}
    wanted = pictures(pipeline(CAPTIONS if guidance else [""] * 3, output_type="pt", **options))
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert differs(found, sd.generate(batch, CAPTIONS[::-1], steps=steps, guidance=guidance, draw=draw + 1))


@pytest.mark.parametrize(("steps", "strength"), [(10, 0.1), (10, 0.35), (10, 1.0), (50, 0.02), (50, 0.5), (49, 0.8)])
def test_image_to_image(sd, pipeline, monkeypatch, steps, strength):
    batch, captions = batch_of(sd), [*CAPTIONS[1:], "three blue rings"]
    found = sd.generate(batch, captions, strength=strength, steps=steps, guidance=4.5)
    noise = start(batch, sd, steps, strength)
    monkeypatch.setattr(img2img, "randn_tensor", lambda *_, **__: noise)
    other = StableDiffusionImg2ImgPipeline(**pipeline.components)
    other.set_progress_bar_config(disable=True)
    with torch.no_grad():
        latents = pipeline.vae.encode(batch.pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
    options = {"num_inference_steps": steps, "strength": strength, "guidance_scale": 4.5, "output_type": "pt"}
    wanted = pictures(other(captions, image=latents, **options))
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize(("clip", "to_one"), [(False, False), (True, False), (False, True)])
def test_without_text(ddpm, monkeypatch, steps, clip, to_one):
    """The schedule is the checkpoint's; two settings of diffusers' scheduler are not, and change what it makes.

    `clip_sample`, true in many a DDPM's configuration, clamps the predicted image at every step, and
    `set_alpha_to_one`, DDIM's default, ends at a noise level that no checkpoint has. Walks here do neither.
    """
    batch = batch_of(ddpm)
    config = DDIMScheduler.load_config(str(MODELS / "tiny_ddpm"), subfolder="scheduler")
    scheduler = DDIMScheduler.from_config(config, clip_sample=clip, set_alpha_to_one=to_one)
    other = DDIMPipeline(ddpm.unet, scheduler)
    other.set_progress_bar_config(disable=True)
    noise = start(batch, ddpm, steps)
    monkeypatch.setattr(pipeline_ddim, "randn_tensor", lambda *_, **__: noise)
    wanted = pictures(other(batch_size=3, num_inference_steps=steps, eta=0.0, output_type="np"))
    found = ddpm.generate(batch, CAPTIONS, steps=steps)
    if clip or to_one:
        assert differs(found, wanted)
    else:
        torch.testing.assert_close(found, wanted, **CLOSE)


# The path -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [10, 49, 50])
def test_the_least_strength_is_one_step(sd, steps):
    assert path(sd, steps, 0.02) == path(sd, steps, 0.0) == [1, 0]
    batch, asked = batch_of(sd), sd.denoiser.asked.copy()
    assert sd.generate(batch, CAPTIONS, strength=0.02, steps=steps, guidance=1.0).isfinite().all()
    assert (sd.denoiser.asked - asked).total() == len(batch)


def test_steps_of_a_strength_are_not_lost_to_rounding(sd):
    assert int(0.29 * 100) == 28 and len(path(sd, 100, 0.29)) - 1 == 29
    assert [len(path(sd, 50, s)) - 1 for s in (0.02, 0.2, 0.4, 0.6, 0.8, 1.0)] == [1, 10, 20, 30, 40, 50]
    assert path(sd, 50) == path(sd, 50, 1.0) == levels(sd, 50)[::-1]


# Counting and sharing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guidance", "queries"), [(0.0, 4), (1.0, 4), (0.5, 8), (7.5, 8)])
def test_a_guided_step_is_two_queries(sd, guidance, queries):
    batch, asked = batch_of(sd), sd.denoiser.asked.copy()
    sd.generate(batch, CAPTIONS, strength=0.4, steps=10, guidance=guidance)
    assert (sd.denoiser.asked - asked).total() == queries * len(batch)


def test_without_text_no_step_is_guided(ddpm):
    batch, asked = batch_of(ddpm), ddpm.denoiser.asked.copy()
    found = ddpm.generate(batch, CAPTIONS, steps=5, guidance=7.5)
    assert (ddpm.denoiser.asked - asked).total() == 5 * len(batch)
    assert torch.equal(found, ddpm.generate(batch, [""] * 3, steps=5, guidance=1.0))


@pytest.fixture
def counted(sd, monkeypatch):
    """Calls of the denoiser and of the decoder so far."""
    calls, picture = [], sd.picture
    monkeypatch.setattr(sd, "picture", lambda latents: calls.append(1) or picture(latents))
    before = sd.denoiser.executed
    return lambda: (sd.denoiser.executed - before, len(calls))


@pytest.mark.parametrize("strength", [None, 0.5])
def test_equal_requests_are_answered_once(sd, counted, strength):
    batch, options = batch_of(sd), {"strength": strength, "steps": 6, "guidance": 3.0}
    first = sd.generate(batch, CAPTIONS, **options)
    once = counted()
    assert once == ((3 if strength else 6) * 2 * len(batch), 1)
    assert torch.equal(sd.generate(batch, CAPTIONS, **options), first) and counted() == once
    for other in ({"draw": 1}, {"guidance": 2.0}, {"steps": 7}, {"strength": 0.7}):
        before = counted()
        assert differs(sd.generate(batch, CAPTIONS, **{**options, **other}), first), other
        assert counted()[0] > before[0] and counted()[1] == before[1] + 1


def test_without_guidance_by_them_captions_are_not_read(sd, counted):
    batch = batch_of(sd)
    found = sd.generate(batch, CAPTIONS, steps=4, guidance=0.0)
    once = counted()
    assert torch.equal(sd.generate(batch, CAPTIONS[::-1], steps=4, guidance=0.0), found) and counted() == once


def test_the_next_batch_is_answered_anew(sd, counted):
    sd.generate(batch_of(sd), CAPTIONS, steps=2, guidance=1.0)
    before = counted()
    sd.generate(batch_of(sd), CAPTIONS, steps=2, guidance=1.0)
    assert counted() == (2 * before[0], 2 * before[1])


@pytest.mark.parametrize("name", ["sd", "ddpm"])
@pytest.mark.parametrize("ask", ["generate", "decode"])
def test_changing_a_picture_in_place_changes_no_other(name, ask, request):
    target = request.getfixturevalue(name)
    batch = batch_of(target)

    def picture():
        return target.decode(batch.x0) if ask == "decode" else target.generate(batch, CAPTIONS, steps=3)

    found = picture()
    kept = found.clone()
    for _ in range(2):  # the first is made, the others are remembered
        found.mul_(0).add_(5)
        found = picture()
        assert torch.equal(found, kept)
    batch.check_unchanged()


@pytest.mark.parametrize(("family", "name"), [(StableDiffusion, "tiny_sd"), (DDPM, "tiny_ddpm")])
def test_sharing_and_companions_change_no_bit(family, name):
    ids, captions = tuple("abcdefg"), [f"caption {i}" for i in range(7)]
    shared, alone = opened(family, name), opened(family, name, share=False)
    kinds = [{"strength": s, "guidance": w} for s in (None, 0.6) for w in (1.0, 3.0)]
    wanted = [
        shared.generate(whole, captions, steps=5, **k) for whole in [batch_of(shared, ids, captions)] for k in kinds
    ]
    batch = batch_of(alone, ids, captions)
    assert all(
        torch.equal(alone.generate(batch, captions, steps=5, **k), w) for k, w in zip(kinds, wanted, strict=True)
    )
    rows = [5, 3, 1, 0]
    some = [captions[i] for i in rows]
    batch = batch_of(shared, [ids[i] for i in rows], some)
    for k, w in zip(kinds, wanted, strict=True):
        assert torch.equal(shared.generate(batch, some, steps=5, **k), w[rows])


def test_pictures_are_plain_and_in_range(sd):
    batch = batch_of(sd)
    found = sd.generate(batch, CAPTIONS, steps=3, guidance=30.0)
    assert type(found) is torch.Tensor and found.dtype == torch.float32 and not found.requires_grad
    assert found.shape == batch.pixels.shape and found.abs().max() <= 1
