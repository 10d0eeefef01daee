"""Walks agree with diffusers, and do and undo each other, on the two small models with random weights."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from mia_bench.diffusion.keyed import keyed, keys_of, plain
from mia_bench.diffusion.sampler import guided, levels, walk
from mia_bench_plugins.targets.ddpm import DDPM
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

MODELS = Path(__file__).parents[1] / "parity" / "fixtures" / "models"
CAPTIONS = ["a red disc", "two green squares", ""]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def sd():
    target = StableDiffusion(str(MODELS / "tiny_sd"))
    target.open(rows=3)
    return target


@pytest.fixture(scope="module")
def ddpm():
    target = DDPM(str(MODELS / "tiny_ddpm"))
    target.open(rows=3)
    return target


@pytest.fixture(params=["sd", "ddpm"])
def target(request):
    found = request.getfixturevalue(request.param)
    found.forget()
    return found


@pytest.fixture(scope="module")
def pipeline():
    made = StableDiffusionPipeline.from_pretrained(str(MODELS / "tiny_sd"), low_cpu_mem_usage=False)
    made.set_progress_bar_config(disable=True)
    return made


def scheduler(target, steps):
    config = DDIMScheduler.load_config(str(Path(target.argument) / "scheduler"))
    made = DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading")
    made.set_timesteps(steps)
    return made


def start(target, seed=0, b=3):
    return torch.randn(b, *target.sample_shape, generator=torch.Generator().manual_seed(seed))


def conditions(target, captions=CAPTIONS):
    return target.condition(captions), target.condition([""] * len(captions))


def last(*args, **options):
    *_, state = walk(*args, **options)
    return plain(state)


# The grid -----------------------------------------------------------------------------------------------------------


def test_levels_with_the_offset_of_stable_diffusion(sd):
    assert levels(sd, 50) == [0, *range(1, 982, 20)]
    assert levels(sd, 3) == [0, 1, 334, 667]
    assert levels(sd, 1) == [0, 1]


def test_levels_without_offset(ddpm):
    assert levels(ddpm, 50) == [0, *range(0, 981, 20)]
    assert levels(ddpm, 1000) == [0, *range(1000)]


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 50, 100, 300, 999])
def test_levels_are_the_schedulers(target, steps):
    assert levels(target, steps)[:0:-1] == scheduler(target, steps).timesteps.tolist()


@pytest.mark.parametrize(("name", "steps"), [("sd", 1000), ("sd", 1001), ("ddpm", 1001)])
def test_too_many_steps_are_refused(name, steps, request):
    with pytest.raises(ValueError, match=f"{steps} steps.*1000"):
        levels(request.getfixturevalue(name), steps)


# Generation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 4.5])
def test_generation_is_the_schedulers(target, steps, guidance):
    given, null = conditions(target)
    wanted, by = start(target), scheduler(target, steps)
    with torch.no_grad():
        for t in by.timesteps:
            rows = torch.full((len(CAPTIONS),), int(t))
            full, empty = (target.predict(wanted, rows, **c.states) for c in (given, null))
            wanted = by.step(empty + guidance * (full - empty), t, wanted, eta=0.0).prev_sample
    found = last(target, start(target), levels(target, steps)[::-1], given, null, guidance=guidance)
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_generation_is_the_pipelines(sd, pipeline, guidance):
    options = {"num_inference_steps": 10, "guidance_scale": guidance, "latents": start(sd)}
    found = last(sd, start(sd), levels(sd, 10)[::-1], *conditions(sd), guidance=guidance)
    wanted = pipeline(CAPTIONS, output_type="latent", **options).images
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    images = torch.from_numpy(pipeline(CAPTIONS, output_type="np", **options).images).permute(0, 3, 1, 2)
    torch.testing.assert_close((sd.decode(found) / 2 + 0.5).clamp(0, 1), images, **TOLERANCE)


def test_states_come_one_by_one(sd):
    path, (given, null) = levels(sd, 5)[::-1], conditions(sd)
    states = list(walk(sd, start(sd), path, given, null))
    assert len(states) == 5
    x = start(sd)
    for state, (t, to) in zip(states, pairwise(path), strict=True):
        x = sd.schedule.jump(x, sd.denoiser(x, t, given), t, to)
        assert torch.equal(plain(state), plain(x))


# Inversion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["source", "destination"])
def test_inversion_is_undone_by_generation(target, label):
    """Up and down again: the finer the steps, the nearer to the start, and far nearer than up alone."""
    given, null = conditions(target)
    x, errors = start(target), []
    for steps in (5, 20):
        path = [300 * k // steps for k in range(steps + 1)]
        up = last(target, x, path, given, null, label=label)
        down = last(target, up, path[::-1], given, null)
        errors.append(float((down - x).norm() / (up - x).norm()))
    assert errors[0] > 2.5 * errors[1] and errors[1] < 0.25, errors


@pytest.mark.parametrize(("label", "told"), [("source", [0, 1, 334]), ("destination", [1, 334, 667])])
def test_what_the_network_is_told(sd, monkeypatch, label, told):
    seen, predict = [], sd.denoiser.predict
    monkeypatch.setattr(
        sd.denoiser, "predict", lambda x, t, **states: seen.append(int(t[0])) or predict(x, t, **states)
    )
    last(sd, start(sd), levels(sd, 3), *conditions(sd), label=label)
    assert seen == told


# Guidance -----------------------------------------------------------------------------------------------------------


def test_guidance_is_a_line_through_both_predictions(sd):
    given, null = conditions(sd)
    full, empty = (plain(sd.denoiser(start(sd), 401, c)) for c in (given, null))
    assert torch.equal(plain(guided(sd, start(sd), 401, given, null, 1.0)), full)
    assert torch.equal(plain(guided(sd, start(sd), 401, given, null, 0.0)), empty)
    assert not torch.allclose(full, empty)
    for w in (-1.0, 0.5, 7.5):
        torch.testing.assert_close(guided(sd, start(sd), 401, given, null, w), (1 - w) * empty + w * full)


@pytest.mark.parametrize(("guidance", "queries"), [(0.0, 6), (1.0, 6), (0.5, 12), (7.5, 12)])
def test_halves_without_weight_are_not_asked(sd, guidance, queries):
    sd.denoiser.asked.clear()
    last(sd, start(sd), levels(sd, 6)[::-1], *conditions(sd), guidance=guidance)
    assert sd.denoiser.asked[""] == queries * len(CAPTIONS)


# Names --------------------------------------------------------------------------------------------------------------


def test_long_walks_are_shared_and_keep_short_names(sd):
    """A state's name holds its predecessor's twice: unshortened, that of the 30th would fill the memory."""
    sd.forget()
    x = keyed(start(sd), "start")
    states = list(walk(sd, x, levels(sd, 30), *conditions(sd)))
    names = [keys_of(s)[()] for s in states]
    assert len(set(names)) == 30 and max(map(len, names)) < 300
    before = sd.denoiser.executed
    again = list(walk(sd, x, levels(sd, 30), *conditions(sd)))
    assert sd.denoiser.executed == before
    assert all(torch.equal(plain(a), plain(b)) for a, b in zip(states, again, strict=True))
    assert len(list(walk(sd, x, levels(sd, 30), *conditions(sd, CAPTIONS[::-1])))) == 30
    assert sd.denoiser.executed == before + 30 * len(CAPTIONS)


# The bits -----------------------------------------------------------------------------------------------------------


def test_a_walk_does_not_depend_on_its_companions(target):
    x, path = start(target, b=7), levels(target, 5)[::-1]
    captions = [f"caption {i}" for i in range(7)]
    whole = last(target, x, path, *conditions(target, captions), guidance=3.0)
    for order in ([2], [1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1, 0]):
        part = conditions(target, [captions[i] for i in order])
        assert torch.equal(last(target, x[order], path, *part, guidance=3.0), whole[order])


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_many_walks_are_one_grid(target, guidance):
    """Each has the bits and the name that it has on its own, so whoever asks for one is answered from memory."""
    starts, path = [keyed(start(target, seed), f"start {seed}") for seed in range(4)], levels(target, 5)[::-1]
    together = keyed(torch.stack(starts, dim=1), [f"start {seed}" for seed in range(4)])
    *_, found = walk(target, together, path, *conditions(target), guidance=guidance)
    before = target.denoiser.executed
    for i, x in enumerate(starts):
        *_, alone = walk(target, x, path, *conditions(target), guidance=guidance)
        assert torch.equal(plain(found)[:, i], plain(alone)) and keys_of(found)[i] == keys_of(alone)[()]
    assert target.denoiser.executed == before


def test_decoding(sd, ddpm):
    z = start(sd, b=7)
    whole = sd.decode(z)
    assert whole.shape == (7, 3, 32, 32) and whole.dtype == torch.float32 and not whole.requires_grad
    assert torch.equal(sd.decode(z.flip(0)), whole.flip(0)) and torch.equal(sd.decode(z[3:4]), whole[3:4])
    with torch.no_grad():
        wanted = sd.vae.decode(z / sd.vae.config.scaling_factor).sample
    torch.testing.assert_close(whole, wanted, **TOLERANCE)
    x = keyed(start(ddpm), "x")
    assert torch.equal(ddpm.decode(x), plain(x)) and keys_of(ddpm.decode(x)) is None


def test_decoding_of_many(sd, ddpm):
    for target, calls in ((sd, 4), (ddpm, 0)):  # of 3 rows: 3 samples x 4
        many, before = torch.stack([start(target, seed) for seed in range(4)], dim=1), target.decode_rows.calls
        found = target.decode(keyed(many, list("abcd")))
        assert torch.equal(target.decode(keyed(many, list("abcd"))), found), "again, from memory"
        assert target.decode_rows.calls - before == calls
        assert all(torch.equal(found[:, i], target.decode(many[:, i])) for i in range(4))
        one = target.decode(keyed(many[:, :1], ["e"]))
        assert torch.equal(target.decode(keyed(many[:, 0], "e")), one[:, 0]), "its grid has a shape of its own"


def test_decoding_of_what_the_denoiser_made(sd):
    found = sd.decode(sd.denoiser(keyed(start(sd), "start"), 401, conditions(sd)[0]))
    assert found.isfinite().all() and not found.is_inference()
