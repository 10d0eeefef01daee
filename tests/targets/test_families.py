"""Every family against diffusers' own pipeline: what its networks are asked, what they answer, images and texts."""

import pipelines
import pytest
import torch

from mia_bench import TargetOptions
from mia_bench.diffusion.keyed import plain
from mia_bench.engine.named import open_target
from mia_bench.plugins import Registry

TEXTS = ["a red apple", "dog", ""]
ONE = {"num_inference_steps": 1}
FAMILIES = {  # how one step of the pipeline is asked for, and its timestep
    "sd": ({**ONE, "guidance_scale": 1.0}, 1),
    "sd_v": ({**ONE, "guidance_scale": 1.0}, 1),
    "sdxl": ({**ONE, "guidance_scale": 1.0}, 1),
    "sd3": ({"sigmas": [0.5], "guidance_scale": 1.0}, 499),
    "sd3-without-t5": ({"sigmas": [0.5], "guidance_scale": 1.0}, 499),
    "flux": ({"sigmas": [0.5], "guidance_scale": 3.5}, 499),
    "flux-schnell": ({"sigmas": [0.5], "max_sequence_length": 256}, 499),
}
MADE = {"sd3-without-t5": ("sd3", {"with_t5": False}), "flux-schnell": ("flux", {"guidance": False})}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """`opened(name)`: the pipeline, and the target loaded from where it was saved."""
    registry, known = Registry.load(), {}

    def get(name):
        if name not in known:
            function, options = MADE.get(name, (name, {}))
            folder = pipelines.saved(function, tmp_path_factory.mktemp("saved") / name, **options)
            given = TargetOptions(resolution=32) if "flux" in name else TargetOptions()
            target = open_target(registry, str(folder), given)
            target.open(rows=4)
            known[name] = pipelines.made(function, **options), target
        return known[name]

    return get


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asked(pipeline, part, **call):
    """Output of the denoiser in one call of the pipeline."""
    outputs = []
    handle = getattr(pipeline, part).register_forward_hook(lambda _, args, output: outputs.append(output[0]))
    try:
        pipeline(output_type="latent", **call)
    finally:
        handle.remove()
    return outputs[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_predictions_are_the_pipelines(opened, name):
    pipeline, target = opened(name)
    call, t = FAMILIES[name]
    x = normal(3, *target.sample_shape)
    given = x
    if "flux" in name:
        from diffusers import FlowMatchEulerDiscreteScheduler

        pipeline.scheduler = FlowMatchEulerDiscreteScheduler()  # sigma as asked, whatever the size of the image
        given = pipeline._pack_latents(x, *x.shape)
    size = {"height": target.image_size, "width": target.image_size}
    theirs = asked(pipeline, target.denoiser_part, prompt=TEXTS, latents=given, **size, **call)
    if "flux" in name:
        theirs = pipeline._unpack_latents(theirs, *size.values(), pipeline.vae_scale_factor)
    states = target.condition(TEXTS).states
    if name == "sdxl":  # the pipeline has a null condition of its own, which a prompt of "" is not
        states, theirs = {k: v[:2] for k, v in states.items()}, theirs[:2]
    x = x[: len(theirs)]
    found = target.predict(x, torch.full((len(x),), t), **states)
    torch.testing.assert_close(found, theirs, **CLOSE)
    assert not torch.allclose(found, target.predict(x, torch.full((len(x),), t + 300), **states), **CLOSE), (
        "time is read"
    )
    turned = {k: v.flip(0) for k, v in states.items()}
    assert not torch.allclose(found[:1], target.predict(x, torch.full((len(x),), t), **turned)[:1], **CLOSE), (
        "so is text"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_denoiser_hands_out_noise(opened, name):
    pipeline, target = opened(name)
    x, t, given = normal(3, *target.sample_shape), 499, target.condition(TEXTS)
    output = target.predict(x, torch.full((3,), t), **given.states)
    a, b = float(target.schedule.signal[t]), float(target.schedule.noise[t])
    wanted = {"sd_v": a * output + b * x}.get(name, output if name in ("sd", "sdxl") else x + a * output)
    torch.testing.assert_close(plain(target.denoiser(x, t, given)), wanted, **CLOSE)


def states_of(pipeline, name):
    """States and pooled embedding that the pipeline makes of the texts."""
    if name in ("sd", "sd_v"):
        return pipeline.encode_prompt(TEXTS, "cpu", 1, False)[0], None
    if name == "sdxl":
        states, null, pooled, null_pooled = pipeline.encode_prompt(TEXTS, device="cpu")
        return torch.cat([states[:2], null[2:]]), torch.cat([pooled[:2], null_pooled[2:]])
    if "sd3" in name:
        states, _, pooled, _ = pipeline.encode_prompt(TEXTS, TEXTS, TEXTS, do_classifier_free_guidance=False)
        return states, pooled
    states, pooled, _ = pipeline.encode_prompt(TEXTS, TEXTS, max_sequence_length=256 if "schnell" in name else 512)
    return states, pooled


@pytest.mark.parametrize("name", FAMILIES)
def test_text_states_are_the_pipelines(opened, name):
    from mia_bench.diffusion.pooled import unpacked

    pipeline, target = opened(name)
    found = target.condition(TEXTS).states["encoder_hidden_states"]
    with torch.no_grad():
        states, pooled = states_of(pipeline, name)
    assert found.ndim == 3 and target.tokens(TEXTS).dtype == torch.int64
    if pooled is not None:
        found, own = unpacked(found, pooled.shape[-1])
        torch.testing.assert_close(own, pooled, **CLOSE)
    torch.testing.assert_close(found, states, **CLOSE)


@pytest.mark.parametrize("name", [*FAMILIES, "ldm", "ldm-kl"])
def test_images_are_the_vaes(opened, name):
    MADE["ldm-kl"] = ("ldm", {"quantised": False})
    pipeline, target = opened(name)
    vae = getattr(pipeline, target.vae_part)
    pixels = normal(2, 3, 32, 32).clamp(-1, 1)
    shift = vae.config.get("shift_factor") or 0.0
    with torch.no_grad():
        encoded = vae.encode(pixels)
        latents = encoded.latents if name == "ldm" else encoded.latent_dist.mode()
        wanted = (latents - shift) * vae.config.scaling_factor
        found = target.encode(pixels)
        torch.testing.assert_close(found, wanted, **CLOSE)
        noise = normal(*found.shape, seed=1)
        std = torch.zeros_like(found) if name == "ldm" else encoded.latent_dist.std * vae.config.scaling_factor
        torch.testing.assert_close(target.encode(pixels, noise), wanted + std * noise, **CLOSE)
        shown = vae.decode(found / vae.config.scaling_factor + shift).sample
        torch.testing.assert_close(target.decode(found), shown, **CLOSE)
    assert found.shape[1:] == target.sample_shape and target.image_size == 32
    assert (name == "ldm") == (not std.any())


def test_latents_scaled_by_channel(tmp_path):
    """As SDXL's pipeline decodes them."""
    from diffusers import StableDiffusionXLPipeline

    folder = pipelines.saved("sdxl", tmp_path / "pipeline")
    mean, std = [0.5, -1.0, 2.0, 0.0], [0.5, 2.0, 1.0, 3.0]
    pipelines.vae(scaling_factor=0.13025, latents_mean=mean, latents_std=std).save_pretrained(folder / "vae")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    target = open_target(Registry.load(), str(folder))
    target.open(rows=4)
    latents = []

    def keep(_, step, t, values):
        latents.append(values["latents"])
        return {}

    call = {"prompt": "a dog", "height": 32, "width": 32, **ONE, "guidance_scale": 1.0}
    images = pipeline(**call, output_type="pt", callback_on_step_end=keep, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(target.shown(latents[-1]) / 2 + 0.5, images[0], rtol=1e-4, atol=1e-4)
    pixels = normal(2, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        found = pipeline.vae.encode(pixels).latent_dist.mode()
    wanted = (found - torch.tensor(mean).view(4, 1, 1)) / torch.tensor(std).view(4, 1, 1) * 0.13025
    torch.testing.assert_close(target.encode(pixels), wanted, **CLOSE)


@pytest.mark.parametrize(("name", "part"), [("ddpm", "unet"), ("ldm", "unet")])
def test_unconditional_predictions_are_the_pipelines(opened, name, part):
    pipeline, target = opened(name)
    inputs, outputs = [], []

    def keep(_, args, output):
        inputs.append(args)
        outputs.append(output[0])

    handle = getattr(pipeline, part).register_forward_hook(keep)
    pipeline(num_inference_steps=2, batch_size=2, generator=torch.Generator().manual_seed(0), output_type="np")
    handle.remove()
    for (x, t), theirs in zip(inputs, outputs, strict=True):
        found = plain(target.denoiser(x, int(t), target.condition(["x", ""])))
        torch.testing.assert_close(found, theirs, **CLOSE)
    assert target.condition(["x", ""]).states == {} and not target.conditioned


# Classes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path):
    """`classes(id2label)`: a target of four classes, and its pipeline."""

    def get(labels=None, count=4):
        import json

        folder = pipelines.saved("ddpm_class", tmp_path / "pipeline", classes=count)
        if labels:
            index = folder / "model_index.json"
            index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": labels}))
        target = open_target(Registry.load(), str(folder))
        target.open(rows=4)
        return pipelines.made("ddpm_class", classes=count), target

    return get


LABELS = {"0": "tench, Tinca tinca", "1": "goldfish", "2": "cock"}


def test_captions_are_classes(classes):
    pipeline, target = classes(LABELS)
    x, words = normal(6, *target.sample_shape), ["0", "Tinca tinca", "GOLDFISH", "2", "tench, tinca tinca", ""]
    numbers = torch.tensor([0, 0, 1, 2, 0, 3])
    with torch.no_grad():
        wanted = pipeline.unet(x, 500, class_labels=numbers).sample
        other = pipeline.unet(x, 500, class_labels=numbers.flip(0)).sample
    found = plain(target.denoiser(x, 500, target.condition(words)))
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert not torch.allclose(found, other, **CLOSE)
    assert target.conditioned and target.guided and "caption" not in target.capabilities


@pytest.mark.parametrize(
    ("word", "labels", "why"),
    [
        ("", None, "there is no null class"),
        ("", {**LABELS, "3": "hen"}, "there is no null class"),
        ("4", None, "'4' is none of its classes; it has 4"),
        ("gold", LABELS, "'gold' is none of its classes"),
        ("-1", None, "none of its classes"),
    ],
)
def test_what_is_no_class_is_refused(classes, word, labels, why):
    from mia_bench.errors import SampleError

    _, target = classes(labels)
    with pytest.raises(SampleError, match=why):
        target.condition(["1", word])
    assert target.condition(["1"]).states["encoder_hidden_states"].shape == (1, 1, 1)


# Guidance ---------------------------------------------------------------------------------------------------------


def batch_of(target, captions=("0", "1")):
    from PIL import Image

    from mia_bench.batch import Batch
    from mia_bench.diffusion.noise import KeyedNoise

    target.forget()
    side = target.image_size
    images = [Image.new("RGB", (side, side))] * 2
    return Batch(["one", "two"], captions, images, normal(2, 3, side, side).clamp(-1, 1), target, KeyedNoise(0))


def generated(batch, guidance):
    return batch.target.generate(batch, batch.captions, steps=3, guidance=guidance)


def varied(batch, guidance):
    return batch.target.generate(batch, batch.captions, strength=1.0, steps=3, guidance=guidance)


def walked(batch, guidance):
    from mia_bench.diffusion.sampler import levels, walk

    null = batch.null if batch.target.guided else None
    return [*walk(batch.target, batch.x0, levels(batch.target, 3), batch.condition, null, guidance=guidance)][-1]


def restored(batch, guidance, **options):
    from mia_bench.diffusion.repaint import restored

    hidden = torch.ones(2, 1, *batch.x0.shape[-2:], dtype=torch.bool)
    return restored(batch, batch.x0, hidden, batch.condition, steps=3, guidance=guidance, **options)


def repainted(batch, guidance):
    return restored(batch, guidance, jump=1, resamples=2)


def rediffused(batch, guidance):
    from mia_bench_plugins.attacks.rediffuse import ReDiffuse

    attack = ReDiffuse(ReDiffuse.Params(t=30, k=10, n=1, guidance=guidance).resolved("latent"))
    with torch.no_grad():
        return attack.means(batch, batch.target)[-1]


CALLERS = {generated: 3, varied: 3, walked: 3, restored: 3, repainted: 5, rediffused: 3}  # steps
UNGUIDED = ("flux", "flux-schnell", "ldm", "ddpm")  # by a null condition


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", *UNGUIDED])
@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.__name__)
def test_only_steps_with_a_weight_for_both_halves_ask_both(opened, name, caller):
    _, target = opened(name)
    found, asked = {}, {}
    for guidance in (0.0, 1.0, 3.0):
        before = target.denoiser.asked.total(), target.denoiser.executed
        found[guidance] = plain(caller(batch_of(target), guidance))
        asked[guidance] = (target.denoiser.asked.total() - before[0]) / 2
        assert asked[guidance] == (target.denoiser.executed - before[1]) / 2
    halves = 1 if name in UNGUIDED else 2
    assert asked == {0.0: CALLERS[caller], 1.0: CALLERS[caller], 3.0: halves * CALLERS[caller]}
    if name in UNGUIDED:
        assert torch.equal(found[3.0], found[1.0]) and torch.equal(found[0.0], found[1.0])
    else:
        assert not torch.allclose(found[3.0], found[1.0], **CLOSE)


@pytest.mark.parametrize(("labels", "halves"), [(None, 1), (LABELS, 2)], ids=["", "null class"])
def test_classes_are_guided_away_from_the_null_class_where_there_is_one(classes, labels, halves):
    from mia_bench_plugins.attacks.pia import PIA
    from mia_bench_plugins.attacks.structural import Structural

    _, target = classes(labels)
    for caller, steps in CALLERS.items():
        before = target.denoiser.asked.total()
        assert caller(batch_of(target), 3.0).isfinite().all()
        assert (target.denoiser.asked.total() - before) / 2 == halves * steps, caller.__name__
    for attack, queries in ((Structural(), 2), (PIA(PIA.Params(setting="repo-sd").resolved("pixel")), 2 * halves)):
        before = target.denoiser.asked.total()
        with torch.no_grad():
            assert all(term.isfinite().all() for term in attack.measure(batch_of(target), target).values())
        assert (target.denoiser.asked.total() - before) / 2 == queries


# Flow -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "dynamic"), [(1.0, False), (3.0, False), (3.0, True)])
def test_levels_are_those_of_diffusers_flow_scheduler(shift, dynamic):
    from diffusers import FlowMatchEulerDiscreteScheduler

    from mia_bench.diffusion.checkpoint import schedule_of

    theirs = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic)
    ours = schedule_of({"_class_name": "FlowMatchEulerDiscreteScheduler", **theirs.config})
    sigma = torch.from_numpy(ours.noise)
    torch.testing.assert_close(sigma.flip(0).float(), theirs.sigmas, rtol=1e-6, atol=0)
    torch.testing.assert_close((1000 * sigma).flip(0).float(), theirs.timesteps, rtol=1e-6, atol=0)
    x0, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    for t in (0, 449, 999):
        noised = theirs.scale_noise(x0, theirs.timesteps[[999 - t, 999 - t]], eps)
        torch.testing.assert_close(plain(ours.noised(x0, eps, t)), noised, **CLOSE)
    assert ours.prediction == "flow" and 0 < ours.signal[-1] < 1e-12


LIKE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("more", [{}, {"rescale_betas_zero_snr": True}])
@pytest.mark.parametrize("name", ["DDIM", "DDPM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_levels_are_those_of_diffusers_schedulers(name, more):
    import diffusers

    from mia_bench.diffusion.checkpoint import schedule_of

    config = {"_class_name": f"{name}Scheduler", **LIKE, **more}
    theirs = getattr(diffusers, f"{name}Scheduler").from_config(config).alphas_cumprod
    torch.testing.assert_close(torch.from_numpy(schedule_of(config).abar).float(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "scheduler None: diffusers has no scheduler of that name"),
        ({"_class_name": "SomeNewFlowScheduler"}, "no scheduler of that name"),
        ({"_class_name": "FlowMatchSomethingNewScheduler"}, "no scheduler of that name"),
        ({"_class_name": "UNet2DModel"}, "no scheduler of that name"),
        ({"_class_name": "RePaintScheduler"}, "does not say what is predicted"),
        ({"_class_name": "IPNDMScheduler"}, "it has no betas"),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "its noise levels are not those of its betas"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "its timesteps are continuous"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": None}, "scheduler DDIMScheduler: "),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": -5}, "scheduler DDIMScheduler: "),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "new"}, "new is not implemented"),
    ],
)
def test_schedulers_of_another_kind_are_refused(config, why):
    from mia_bench.diffusion.checkpoint import schedule_of
    from mia_bench.errors import UnavailableError

    with pytest.raises(UnavailableError) as caught:
        schedule_of(LIKE | config if "beta_schedule" not in config else config)
    assert why in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("prediction", ["v_prediction", "flow"])
def test_noise_of_gaussian_data(prediction):
    """Data N(m, s^2): the best network's velocity is known, and so is the noise, which is minus b times the score."""
    import numpy as np

    from mia_bench.diffusion.schedule import Schedule

    schedule = Schedule.from_flow(1000, 3.0)
    if prediction == "v_prediction":
        schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000), prediction)
    m, s, t = 0.7, 0.3, 600
    a, b = float(schedule.signal[t]), float(schedule.noise[t])
    x = normal(4, 1, 8, 8)
    score = -(x - a * m) / (a**2 * s**2 + b**2)
    x0 = (x + b**2 * score) / a  # Tweedie
    eps = (x - a * x0) / b
    velocity = a * eps - b * x0 if prediction == "v_prediction" else eps - x0
    found = schedule.epsilon(velocity, x, torch.full((4,), t))
    torch.testing.assert_close(found, -b * score, rtol=1e-5, atol=1e-5)


def test_there_is_no_image_in_pure_noise():
    from mia_bench.diffusion.schedule import Schedule

    schedule, x = Schedule.from_flow(), normal(1, 3, 4, 4)
    with pytest.raises(ValueError, match="pure noise"):
        schedule.jump(x, x, 999, 0)
    assert schedule.jump(x, x, 998, 0).isfinite().all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_object_is_cast_as_a_folder_is_loaded(opened, dtype):
    """Down to T5's weights, which stay in float32 where float16 is asked for."""
    from copy import deepcopy

    pipeline, whole = opened("sd3")
    found = {}
    for spec in (whole.argument, deepcopy(pipeline)):
        target = open_target(Registry.load(), spec)
        target.open(rows=2, dtype=dtype)
        parts = ("text_encoder", "text_encoder_3", "transformer", "vae")
        found[spec] = {f"{p}.{n}": v for p in parts for n, v in getattr(target, p).state_dict().items()}
    wanted, cast = found.values()
    assert {str(v.dtype) for n, v in cast.items() if ".wo." in n} == {
        "torch.float32" if dtype == "float16" else "torch.bfloat16"
    }
    assert wanted.keys() == cast.keys()
    assert all(wanted[n].dtype == cast[n].dtype and torch.equal(wanted[n], cast[n]) for n in wanted)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "ldm", "ddpm"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(opened, name, dtype):
    _, whole = opened(name)
    target = open_target(Registry.load(), whole.argument, whole.options)
    target.open(rows=4, dtype=dtype)
    assert target.denoiser_module.dtype == getattr(torch, dtype)
    assert name != "sdxl" or target.vae.dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)
    x = normal(3, *target.sample_shape)
    found, wanted = (plain(t.denoiser(x, 300, t.condition(TEXTS))) for t in (target, whole))
    assert found.dtype == torch.float32 and (found - wanted).norm() < 0.05 * wanted.norm()
    pixels = normal(1, 3, target.image_size, target.image_size).clamp(-1, 1)
    assert (target.encode(pixels) - whole.encode(pixels)).norm() < 0.05 * whole.encode(pixels).norm()
