import platform
import resource

import pytest
import torch

from mia_bench.diffusion.rows import RowRunner, worker_pool
from mia_bench.errors import NetworkError


class Network:
    """Doubles its input; records the sizes it was called with; fails above `limit` rows."""

    def __init__(self, limit=10**9, error=None):
        self.limit, self.error, self.sizes = limit, error, []

    def __call__(self, x, *others):
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return 2 * x + sum(others)


def numbers(n):
    return torch.arange(n, dtype=torch.float32).view(n, 1)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
def test_every_call_has_the_same_size(n):
    network, runner = Network(), RowRunner(4)
    assert torch.equal(runner(network, numbers(n)), 2 * numbers(n))
    calls = -(-n // 4)
    assert network.sizes == [4] * calls
    assert (runner.done, runner.padding, runner.calls) == (n, 4 * calls - n, calls)
    assert runner.seconds > 0


def test_counters_add_up():
    runner = RowRunner(4)
    for n in (3, 4, 9):
        runner(Network(), numbers(n))
    assert (runner.done, runner.padding, runner.calls) == (16, 1 + 0 + 3, 1 + 1 + 3)


def test_inputs_are_split_together():
    assert torch.equal(RowRunner(2)(Network(), numbers(5), numbers(5)), 3 * numbers(5))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("threads", [1, 2])
def test_out_of_memory_halves_the_rows(error, threads):
    network, runner = Network(limit=3, error=error), RowRunner(16, worker_pool(threads))
    assert torch.equal(runner(network, numbers(10)), 2 * numbers(10))
    assert runner.rows == 2
    assert (runner.done, runner.padding, runner.calls) == (10, 0, 5)  # failed calls do not count
    runner(network, numbers(3))
    assert runner.rows == 2 and network.sizes[-2:] == [2, 2]


def test_odd_rows_are_halved_down_to_one():
    network, runner = Network(limit=1, error=OUT_OF_MEMORY[0]), RowRunner(7)
    assert torch.equal(runner(network, numbers(3)), 2 * numbers(3))
    assert runner.rows == 1 and network.sizes == [7, 3, 1, 1, 1]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_one_row_that_does_not_fit_is_an_error(error):
    runner = RowRunner(4)
    with pytest.raises(NetworkError, match="memory"):
        runner(Network(limit=0, error=error), numbers(3))
    assert runner.rows == 1 and runner.done == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_other_errors_are_named(threads):
    network, runner = Network(limit=0, error=RuntimeError("shapes do not match")), RowRunner(4, worker_pool(threads))
    with pytest.raises(NetworkError, match="RuntimeError: shapes do not match"):
        runner(network, numbers(9))
    assert runner.rows == 4


@pytest.mark.parametrize("threads", [2, 3])
def test_pool_and_serial_agree_to_the_bit(threads):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 3))
    x = torch.randn(50, 3, 9, 9)
    with torch.inference_mode():
        serial = RowRunner(7)(network, x)
        assert torch.equal(RowRunner(7, worker_pool(threads))(network, x), serial)


def test_memory_layout_does_not_matter():
    # Padding turns a channels-last call into a contiguous one; the two round differently.
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.GroupNorm(4, 16), torch.nn.Conv2d(16, 16, 3))
    x = torch.randn(8, 3, 16, 16)
    last = x.contiguous(memory_format=torch.channels_last)
    seen = []
    with torch.inference_mode():
        for value in (x, last, last[:3], last[5:]):
            RowRunner(4)(lambda v: seen.append(v.is_contiguous()) or network(v), value)
        whole = RowRunner(4)(network, x)
        assert torch.equal(RowRunner(4)(network, last), whole)
        assert torch.equal(RowRunner(4)(network, last[:3]), whole[:3])
    assert all(seen)


def test_pool_calls_keep_the_callers_grad_mode():
    seen = []

    def network(x):
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return x

    runner = RowRunner(2, worker_pool(2))
    with torch.inference_mode():
        runner(network, numbers(5))
    with torch.no_grad():
        runner(network, numbers(5))
    with torch.enable_grad():
        runner(network, numbers(5))
    assert seen == [(True, False)] * 3 + [(False, False)] * 3 + [(False, True)] * 3


def test_each_worker_uses_one_thread():
    seen, runner = [], RowRunner(1, worker_pool(2))
    with torch.inference_mode():
        runner(lambda x: seen.append(torch.get_num_threads()) or x, numbers(4))
    assert set(seen) == {1}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_next_call_uses_the_memory_of_the_last(threads):
    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def blocks(x):  # 64 MB, as the activations of a call
        return torch.full((2**24,), 1.0)[: len(x), None].clone()

    runner = RowRunner(1, worker_pool(threads))
    for _ in range(4):
        runner(blocks, numbers(2))
    before = faults()
    for _ in range(8):
        runner(blocks, numbers(2))
    assert faults() - before < 16 * 2**26 // resource.getpagesize() / 4  # of sixteen blocks few are new


def test_padding_has_no_gradient():
    x = numbers(3).requires_grad_()
    (gradient,) = torch.autograd.grad(RowRunner(8)(Network(), x).sum(), x)
    assert torch.equal(gradient, torch.full((3, 1), 2.0))


def test_gradients_are_the_same_in_any_thread():
    """A convolution's gradient rounds by how many threads compute it, which OpenMP keeps for each thread."""
    convolution, generator = torch.nn.Conv2d(4, 8, 3, padding=1), torch.Generator().manual_seed(0)
    for weights in convolution.parameters():
        weights.data = torch.randn(weights.shape, generator=generator)
    x = torch.randn(2, 4, 16, 16, generator=generator)

    def gradient(_):
        with torch.enable_grad():
            return torch.autograd.grad(convolution(x).square().sum(), [*convolution.parameters()])

    pool = worker_pool(2)
    here = gradient(0)
    for there in pool.map(gradient, range(4)):
        assert all(map(torch.equal, here, there))
