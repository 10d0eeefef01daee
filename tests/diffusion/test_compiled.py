"""`--compile`: the same scores within 1e-5, compiled once, and a missing compiler is named."""

import pytest
import tiny
import torch

from mia_bench.diffusion.compiled import Compiled
from mia_bench.engine.prepare import RunOptions
from mia_bench.errors import NetworkError, UsageError
from mia_bench.store import Store
from mia_bench.target import TargetOptions
from mia_bench.testing import TinyGenerator


@pytest.fixture(autouse=True)
def forgotten(monkeypatch, tmp_path):
    """Nothing that was compiled before is found again."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()


def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch):
    compiled = []
    plain = Compiled._first
    monkeypatch.setattr(Compiled, "_first", lambda self, *inputs: compiled.append(self) or plain(self, *inputs))
    usual = tiny.go(tmp_path / "usual", threads=2)
    result = tiny.go(tmp_path / "compiled", threads=2, compile=True)
    assert len(compiled) == 1, "calls have one size, and threads wait for the one that compiles"
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] == 1 and counters["calls_captured"] > 0
    assert tiny.scores(tmp_path / "compiled") == pytest.approx(tiny.scores(tmp_path / "usual"), rel=1e-5)
    fingerprints = [{row.label: row.fingerprint for row in one.rows} for one in (usual, result)]
    assert fingerprints[0] == fingerprints[1], "it is no part of what a measurement is"
    assert [e.get("compiled") for one in (usual, result) for e in one.environments] == [None, True]


def test_what_asks_for_gradients_runs_the_network_as_it_is(monkeypatch):
    target = tiny.Tiny()
    target.open(rows=2, compile=True)
    monkeypatch.setattr(target.denoiser, "compiled", lambda *_, **__: pytest.fail("compiled"))
    x = torch.zeros(1, *target.sample_shape, requires_grad=True)
    predicted = target.denoiser(x, 10, target.condition(["a"]), grad=True, pad=False)
    (gradient,) = torch.autograd.grad(predicted.sum(), x)
    assert gradient.abs().sum() > 0


def test_without_a_compiler_that_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "/nowhere/g++")
    with pytest.raises(NetworkError, match="--compile: the denoiser cannot be compiled here") as caught:
        tiny.go(tmp_path, compile=True)
    assert "g++" in caught.value.fix and "leave it out" in caught.value.fix
    assert not list(Store(tmp_path).shards.glob("*.parquet"))


def test_a_network_that_fails_by_itself_is_not_blamed_on_the_compiler():
    def network(x, t):
        raise ValueError("shapes do not match")

    with pytest.raises(ValueError, match="shapes"):
        Compiled(network)(torch.zeros(1), torch.zeros(1))


def test_out_of_memory_stays_what_it_is():
    def network(x, t):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    fast = Compiled(network)
    fast.fast = network  # as if compiled
    with pytest.raises(torch.OutOfMemoryError):
        fast(torch.zeros(4), torch.zeros(4))
    assert torch.equal(fast(torch.ones(2), torch.zeros(2)), torch.ones(2)) and fast.ready == {torch.Size([2])}


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(UsageError, match="no denoiser here to compile"):
        TinyGenerator().open(compile=True)
    target = tiny.Tiny()
    target.options = TargetOptions(offload=True)
    with pytest.raises(UsageError, match="--offload"):
        target.open(compile=True)


def test_off_unless_asked():
    target = tiny.Tiny()
    target.open()
    assert target.denoiser.compiled is None and not RunOptions().compile
