import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_bench.diffusion.schedule import Schedule

T = 50
quick = settings(max_examples=25, deadline=None)
steps = st.integers(0, T - 1)
seeds = st.integers(0, 2**31)


@st.composite
def schedules(draw, prediction="epsilon"):
    """Variance-preserving or flow-matching levels, away from a_t = 0 and b_t = 0."""
    rng = np.random.default_rng(draw(seeds))
    if draw(st.booleans()):
        return Schedule.from_betas(rng.uniform(1e-4, 0.05, T), prediction)
    sigma = np.sort(rng.uniform(0.05, 0.95, T))
    return Schedule(1 - sigma, sigma, prediction)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_levels_of_betas():
    schedule = Schedule.from_betas([0.1, 0.2, 0.5])
    assert schedule.abar == pytest.approx([0.9, 0.72, 0.36])
    assert schedule.signal == pytest.approx(np.sqrt([0.9, 0.72, 0.36]))
    assert schedule.noise == pytest.approx(np.sqrt([0.1, 0.28, 0.64]))
    assert len(schedule) == 3


def test_no_level_is_clean():
    assert Schedule.from_betas([0.00085, 0.00086]).abar[0] == 1 - 0.00085


def test_levels_are_products_in_float64():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert Schedule.from_betas(betas.astype(np.float32)).abar == pytest.approx(np.cumprod(1 - betas), rel=1e-5)
    assert Schedule.from_betas(betas).abar.dtype == np.float64


@quick
@given(schedules(), steps, seeds)
def test_noised_is_the_forward_process(schedule, t, seed):
    x, eps = normal(seed, 2, 1, 3, 3), normal(seed + 1, 2, 1, 3, 3)
    assert torch.allclose(schedule.noised(x, eps, t), schedule.signal[t] * x + schedule.noise[t] * eps, rtol=1e-12)


@quick
@given(schedules(), st.lists(steps, min_size=1, max_size=4), seeds)
def test_noised_over_a_grid_is_noised_one_by_one(schedule, ts, seed):
    x, eps = normal(seed, 2, 3, 4, 4, dtype=torch.float32), normal(seed, 2, len(ts), 3, 4, 4, dtype=torch.float32)
    grid = schedule.noised(x, eps, ts)
    for j, t in enumerate(ts):
        assert torch.equal(grid[:, j], schedule.noised(x, eps[:, j], t))  # equal to the bit: queries are shared by name


@quick
@given(schedules(), steps, seeds)
def test_one_noise_serves_all_timesteps(schedule, t, seed):
    x, eps = normal(seed, 2, 3, 4, 4, dtype=torch.float32), normal(seed + 1, 2, 3, 4, 4, dtype=torch.float32)
    grid = schedule.noised(x, eps, [t, 0])
    assert torch.equal(grid[:, 0], schedule.noised(x, eps, t)) and torch.equal(grid[:, 1], schedule.noised(x, eps, 0))


@quick
@given(schedules(), steps, steps, seeds, st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-3)]))
def test_jump_there_and_back(schedule, t, to, seed, precision):
    dtype, tolerance = precision
    x, eps = normal(seed, 2, 1, 3, 3, dtype=dtype), normal(seed + 1, 2, 1, 3, 3, dtype=dtype)
    back = schedule.jump(schedule.jump(x, eps, t, to), eps, to, t)
    assert back.dtype == dtype and torch.allclose(back, x, rtol=0, atol=tolerance)


@quick
@given(schedules(), steps, steps, seeds)
def test_jump_is_a_shift_of_the_scaled_state(schedule, t, to, seed):
    x, eps, ratio = normal(seed, 2, 1, 3, 3), normal(seed + 1, 2, 1, 3, 3), schedule.noise / schedule.signal
    wanted = schedule.signal[to] * (x / schedule.signal[t] + (ratio[to] - ratio[t]) * eps)
    assert torch.allclose(schedule.jump(x, eps, t, to), wanted, rtol=1e-9, atol=1e-9)


@quick
@given(schedules(), steps, steps, seeds)
def test_jump_along_the_true_noise_stays_on_the_forward_process(schedule, t, to, seed):
    x0, eps = normal(seed, 2, 1, 3, 3), normal(seed + 1, 2, 1, 3, 3)
    jumped = schedule.jump(schedule.noised(x0, eps, t), eps, t, to)
    assert torch.allclose(jumped, schedule.noised(x0, eps, to), rtol=1e-9, atol=1e-9)


OUTPUTS = {
    "epsilon": lambda x0, eps, a, b: eps,
    "v_prediction": lambda x0, eps, a, b: a * eps - b * x0,
    "sample": lambda x0, eps, a, b: x0,
    "flow": lambda x0, eps, a, b: eps - x0,
}


@pytest.mark.parametrize("prediction", sorted(OUTPUTS))
@quick
@given(data=st.data(), seed=seeds)
def test_noise_from_any_prediction(prediction, data, seed):
    schedule = data.draw(schedules(prediction))
    if prediction == "flow":
        schedule = Schedule(1 - schedule.noise, schedule.noise, "flow")
    elif prediction == "v_prediction":
        schedule = Schedule(np.sqrt(1 - schedule.noise**2), schedule.noise, "v_prediction")
    t = torch.tensor(data.draw(st.lists(steps, min_size=3, max_size=3)))
    x0, eps = normal(seed, 3, 2, 4, 4), normal(seed + 1, 3, 2, 4, 4)
    a, b = (torch.from_numpy(v)[t].view(-1, 1, 1, 1) for v in (schedule.signal, schedule.noise))
    found = schedule.epsilon(OUTPUTS[prediction](x0, eps, a, b).float(), (a * x0 + b * eps).float(), t)
    assert found.dtype == torch.float32
    assert torch.allclose(found, eps.float(), rtol=0, atol=1e-3)


def test_half_precision_outputs_become_float32():
    schedule = Schedule.from_betas([0.1, 0.2])
    x = torch.zeros(1, 1, 1, 1)
    assert schedule.epsilon(x.half(), x, torch.tensor([0])).dtype == torch.float32


def test_unknown_prediction_types_are_refused():
    with pytest.raises(ValueError, match="unknown prediction type 'flow_prediction'"):
        Schedule.from_betas([0.1], "flow_prediction")


@pytest.mark.parametrize("t", [100, -1, [5, 100]])
def test_timesteps_beyond_the_schedule_are_refused(t):
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="100 steps"):
        Schedule.from_betas([0.01] * 100).noised(x, x, t)
