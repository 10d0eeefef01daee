import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_bench.diffusion.reduce import mean, power, power_mean, power_sum, total

SHAPES = [(1, 1, 1), (1, 1, 3), (3, 7, 5), (4, 16, 16), (3, 33, 31), (4, 64, 64)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [1, 2, 3, 4, 5])
def test_equals_float64(shape, p):
    x = normal(5, *shape)
    wanted = (x.double().abs() ** p).sum(dim=(1, 2, 3)).numpy()
    assert power_sum(x, p).double().numpy() == pytest.approx(wanted, rel=1e-6)
    assert power_mean(x, p).double().numpy() == pytest.approx(wanted / np.prod(shape), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_signed_sums(shape):
    x = normal(5, *shape)
    wanted, size = x.double().sum(dim=(1, 2, 3)), x.double().abs().sum(dim=(1, 2, 3))
    assert ((total(x).double() - wanted).abs() <= 1e-6 * size).all()
    assert torch.equal(mean(x), total(x) / np.prod(shape))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 12),
    st.integers(0, 11),
    st.sampled_from([1, 2, 4]),
)
def test_independent_of_companions(shape, size, row, p):
    batch, row = normal(size, *shape, seed=size), row % size
    alone = power_sum(batch[row : row + 1], p)[0]
    assert torch.equal(power_sum(batch, p)[row], alone)
    assert torch.equal(power_sum(batch.flip(0), p)[size - 1 - row], alone)
    assert torch.equal(power_sum(torch.stack([batch, batch], dim=1), p)[row, 1], alone)
    assert torch.equal(power_sum(torch.cat([normal(3, *shape, seed=99), batch]), p)[3 + row], alone)


def test_independent_of_threads():
    x, before = normal(64, 4, 64, 64), torch.get_num_threads()
    one = power_sum(x, 4)
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(power_sum(x, 4), one)
    finally:
        torch.set_num_threads(before)


def test_independent_of_memory_layout():
    x = normal(4, 3, 9, 9)
    assert torch.equal(power_sum(x.contiguous(memory_format=torch.channels_last)), power_sum(x))
    assert torch.equal(power_sum(torch.stack([x, x], dim=1)[:, 0]), power_sum(x))


def test_grid_keeps_its_axes():
    assert power_mean(normal(2, 3, 4, 1, 2, 2)).shape == (2, 3, 4)


def test_half_precision_is_summed_in_float32():
    x = torch.full((1, 4, 64, 64), 2.0, dtype=torch.float16)
    assert total(x).item() == 2 * 4 * 64 * 64 and total(x).dtype == torch.float32
    assert power(torch.tensor([300.0], dtype=torch.float16), 2).item() == 90000


def test_power_is_exact_multiplication():
    x = normal(1000)
    assert torch.equal(power(x, 4), x.abs() * x.abs() * x.abs() * x.abs())
    assert torch.equal(power(x, 1), x.abs())


def test_gradients_pass():
    x = normal(3, 2, 3, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(power_sum(x).sum(), x)
    assert torch.allclose(gradient, 2 * x)
