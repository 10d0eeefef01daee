"""Restoration from what is known: DDPM's own steps, diffusers' schedule of jumps, and nothing known is changed."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from captioned import Captioned, batch_of, opened
from diffusers import DDPMScheduler, RePaintScheduler

from mia_bench.diffusion.keyed import plain
from mia_bench.diffusion.repaint import ancestral, jumps, renoised, restored
from mia_bench.diffusion.schedule import Schedule

SCHEDULE = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))


def noise(seed, shape=(2, 3, 4, 4)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The schedule of jumps ----------------------------------------------------------------------------------------------


def downward(visits):
    return sum(after < before for before, after in pairwise(visits))


@pytest.mark.parametrize(
    ("steps", "length", "resamples"), [(250, 10, 10), (100, 10, 2), (50, 7, 3), (20, 1, 4), (10, 10, 5), (12, 3, 2)]
)
def test_jumps_are_the_schedulers(steps, length, resamples):
    scheduler = RePaintScheduler()
    scheduler.set_timesteps(steps, jump_length=length, jump_n_sample=resamples)
    visited = (scheduler.timesteps // (1000 // steps) + 1).tolist()
    assert jumps(steps, length, resamples) == [*visited, 0]


def test_a_small_schedule_by_hand():
    assert jumps(5, 2, 1) == [5, 4, 3, 2, 1, 0]
    assert jumps(5, 2, 3) == [5, 4, 3, 4, 5, 4, 3, 4, 5, 4, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 0]
    assert downward(jumps(250, 10, 10)) == 2410


# The steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 20, 500, 999])
def test_a_random_step_down_is_ddpms(t):
    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    x, eps = noise(0), noise(1)
    wanted = scheduler.step(eps, t, x, generator=torch.Generator().manual_seed(2)).prev_sample
    torch.testing.assert_close(ancestral(SCHEDULE, x, eps, noise(2), t, t - 1), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("t", "to"), [(981, 961), (501, 1), (21, 20)])
def test_a_step_down_draws_from_the_posterior(t, to):
    """With the noise that really was added, it is the law of x_to given x_t and x_0."""
    x0, z, zero = noise(0).double(), noise(1).double(), torch.zeros(2, 3, 4, 4)
    (a, b), (c, d) = ((float(SCHEDULE.signal[s]), float(SCHEDULE.noise[s])) for s in (t, to))
    x = a * x0 + b * noise(2)
    beta = 1 - (a / c) ** 2
    mean = c * beta / b**2 * x0 + (a / c) * d**2 / b**2 * x
    eps = (x - a * x0) / b
    torch.testing.assert_close(ancestral(SCHEDULE, x, eps, zero, t, to), mean)
    spread = ancestral(SCHEDULE, x, eps, z, t, to) - mean
    torch.testing.assert_close(spread, (d**2 / b**2 * beta) ** 0.5 * z)


@pytest.mark.parametrize(("t", "to"), [(1, 21), (400, 999)])
def test_a_step_up_keeps_the_forward_law(t, to):
    """Signal and variance of x_to, whatever lies between."""
    x0, zero = noise(0).double(), torch.zeros(2, 3, 4, 4)
    a, b = SCHEDULE.signal.tolist(), SCHEDULE.noise.tolist()
    torch.testing.assert_close(renoised(SCHEDULE, a[t] * x0, zero, t, to), a[to] * x0)
    one = torch.ones(())
    inherited, added = renoised(SCHEDULE, b[t] * one, 0 * one, t, to), renoised(SCHEDULE, 0 * one, one, t, to)
    assert float(inherited**2 + added**2) == pytest.approx(b[to] ** 2, rel=1e-5)


def test_levels_of_one_timestep_stay_where_they_are():
    x, eps, z = (noise(i) for i in range(3))
    torch.testing.assert_close(ancestral(SCHEDULE, x, eps, z, 0, 0), x)
    assert torch.equal(renoised(SCHEDULE, x, z, 0, 0), x)


# The restoration ----------------------------------------------------------------------------------------------------


def half(batch):
    hidden = torch.zeros(len(batch), 1, *batch.pixels.shape[-2:], dtype=torch.bool)
    hidden[..., : hidden.shape[-1] // 2] = True
    return hidden


def restore(batch, hidden, **options):
    known = batch.encode(batch.pixels.masked_fill(hidden, 0), f"hidden:{hash(hidden.numpy().tobytes())}")
    return plain(restored(batch, known, hidden, batch.null, **options))


KINDS = [{"steps": 10}, {"steps": 12, "resamples": 3, "jump": 3}]


@pytest.mark.parametrize("options", KINDS)
def test_what_is_known_stays_as_it_is(options):
    target = opened(Captioned(lambda x, t, c: torch.tanh(3 * x)))
    batch = batch_of(target)
    hidden = half(batch)
    found = restore(batch, hidden, **options)
    assert torch.equal(found.masked_select(~hidden), batch.pixels.masked_select(~hidden))
    assert not torch.equal(found, batch.pixels)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("options", KINDS)
def test_a_denoiser_that_knows_the_image_restores_it(options, offset):
    target = Captioned(offset=offset)
    opened(target)
    batch = batch_of(target, ("a",))
    a, b = (torch.from_numpy(level).float() for level in (target.schedule.signal, target.schedule.noise))
    target.output = lambda x, t, c: (x - a[target.seen[-1][0]] * batch.pixels) / b[target.seen[-1][0]]
    found = restore(batch, half(batch), **options)
    # The walk ends at timestep 0, where a little noise is left.
    assert (found - batch.pixels).abs().max() < 5 * b[0]


def test_a_denoiser_that_predicts_nothing_leaves_the_noise():
    target = opened(Captioned())
    batch = batch_of(target)
    hidden = half(batch)
    factor = float(target.schedule.signal[0] / target.schedule.signal[901])
    wanted = torch.where(hidden, plain(batch.eps(901, 2, "start")) * factor, batch.pixels)
    torch.testing.assert_close(restore(batch, hidden, steps=10, draw=2), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_what_is_known_is_put_back_at_every_step(options):
    """Before each query the known part has the step's own noise level, and is noised anew."""
    target = opened(Captioned(lambda x, t, c: 0.3 * torch.tanh(x)))
    batch = batch_of(target)
    hidden = half(batch)
    restore(batch, hidden, **options)
    seen = [(t, x[:3].masked_select(~hidden)) for t, x in target.seen[1:]]
    clean, noises = batch.pixels.masked_select(~hidden), []
    for t, x in seen:
        noises.append((x - float(target.schedule.signal[t]) * clean) / float(target.schedule.noise[t]))
    added = torch.stack(noises)
    assert len(seen) == (9 if options["steps"] == 10 else 12 + 2 * 3 * 3 - 1)
    assert (added.std(1) - 1).abs().max() < 0.15 and added.mean(1).abs().max() < 0.15
    apart = torch.corrcoef(added).abs().fill_diagonal_(0)
    assert apart.max() < 0.2 or "resamples" in options  # a state that went up again keeps some of its noise


@pytest.mark.parametrize("options", KINDS)
def test_draws_are_repeatable_and_different(options):
    target = opened(Captioned(lambda x, t, c: 0.3 * torch.tanh(x)))
    batch = batch_of(target)
    hidden = half(batch)
    first = restore(batch, hidden, **options)
    assert torch.equal(restore(batch, hidden, **options), first)
    assert torch.equal(restore(batch_of(target), hidden, **options), first)
    assert not torch.equal(restore(batch, hidden, **options, draw=1), first)


def test_guidance_and_conditions():
    target = opened(Captioned(lambda x, t, c: 0.1 * x + 0.1 * c.expand_as(x)))
    batch = batch_of(target)
    hidden = half(batch)
    known = batch.encode(batch.pixels.masked_fill(hidden, 0), "hidden")
    one, two, null = (
        plain(restored(batch, known, hidden, given, steps=5, guidance=w))
        for given, w in ((batch.condition, 1.0), (batch.condition, 2.0), (batch.condition, 0.0))
    )
    assert torch.equal(null, plain(restored(batch, known, hidden, batch.null, steps=5)))
    torch.testing.assert_close(two - one, one - null, rtol=1e-4, atol=1e-4)  # linear in what is predicted
    assert not torch.equal(one, null)


def test_equal_restorations_run_once():
    target = opened(Captioned(lambda x, t, c: torch.tanh(x)))
    batch = batch_of(target)
    hidden, before = half(batch), target.denoiser.executed
    restore(batch, hidden, steps=5)
    assert target.denoiser.executed - before == 5 * len(batch)
    restore(batch, hidden, steps=5)
    assert target.denoiser.executed - before == 5 * len(batch)
    restore(batch, ~hidden, steps=5)  # the first query is of the same noise
    assert target.denoiser.executed - before == 9 * len(batch)
