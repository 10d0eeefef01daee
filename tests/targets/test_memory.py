"""How much at once: rows by the memory there is, text states by their size, offloaded networks."""

import importlib.util
import json

import pipelines
import pytest
import tiny
import torch

from mia_bench import Capability, TargetOptions
from mia_bench.diffusion.fitting import Fitting, rows_within
from mia_bench.diffusion.pipeline import offload
from mia_bench.engine.named import open_target
from mia_bench.errors import UnavailableError
from mia_bench.plugins import Registry
from mia_bench.target import TEXT_BYTES

GIB = 2**30


@pytest.mark.parametrize(
    ("rows", "free", "side", "itemsize", "found"),
    [
        (8, 70 * GIB, 512, 4, 8),  # Stable Diffusion 1 on a large GPU: as many as on a CPU
        (8, 16 * GIB, 512, 4, 8),
        (8, 5 * GIB, 512, 4, 4),
        (8, 5 * GIB, 512, 2, 8),
        (8, GIB // 2, 512, 4, 1),
        (2, 70 * GIB, 1024, 4, 2),  # SDXL
        (2, 6 * GIB, 1024, 4, 1),
        (1, 0, 1024, 4, 1),
        (64, 4 * GIB, 32, 4, 64),
    ],
)
def test_the_first_choice_of_rows_fits(rows, free, side, itemsize, found):
    assert rows_within(rows, free, side, itemsize) == found


def test_on_a_cpu_memory_is_not_asked(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda *_: pytest.fail("asked"))
    target = tiny.Tiny()
    target.open()
    assert target.denoiser.rows.rows == 64


def test_on_a_gpu_it_is(monkeypatch):
    target = tiny.Tiny()
    target.open()
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda *_: (3 * 32 * 32 * 4096, 0))
    target.device = "cuda"
    assert target.first_rows() == 2


def test_text_states_are_kept_by_their_size(monkeypatch):
    target = tiny.Tiny()
    target.open()
    size = target.condition(["x"]).states["encoder_hidden_states"].nbytes
    monkeypatch.setattr("mia_bench.target.TEXT_BYTES", 3 * size)
    target.condition([f"text {i}" for i in range(6)])
    target.forget()
    assert list(target._texts) == ["text 3", "text 4", "text 5"], "the latest"
    assert 77 * 768 * 4 * 1024 <= TEXT_BYTES < 513 * 4096 * 4 * 40


def test_offloaded_networks_give_no_gradients():
    registry, options = Registry.load(), TargetOptions(offload=True)
    plain, target = (open_target(registry, str(pipelines.TINY_SD), o) for o in (TargetOptions(), options))
    assert plain.capabilities - target.capabilities == {Capability.GRADIENT}
    assert plain.fingerprint == target.fingerprint, "the numbers are the same"


def test_layers_that_visit_the_device_predict_the_same():
    """With the CPU as the device that they visit."""
    pytest.importorskip("accelerate")
    target = open_target(Registry.load(), str(pipelines.TINY_SD))
    target.open(rows=2)
    x = torch.randn(2, *target.sample_shape, generator=torch.Generator().manual_seed(0))
    before, picture = torch.Tensor(target.denoiser(x, 10, target.condition(["a", "b"]))), target.decode(x)
    for part in (target.unet, target.vae, target.text_encoder):
        offload(part, torch.device("cpu"))
    target.forget()
    target._texts.clear()
    again = target.denoiser(x, 10, target.condition(["a", "b"]))
    torch.testing.assert_close(torch.Tensor(again), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(target.decode(x), picture)
    assert any(hasattr(m, "_diffusers_hook") for m in target.unet.modules())


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is not None, reason="accelerate is installed")
def test_without_accelerate_its_installation_is_named():
    with pytest.raises(UnavailableError, match="accelerate, which is not installed") as caught:
        offload(torch.nn.Linear(1, 1), torch.device("cuda"))
    assert "pip install 'mia-bench[offload]'" in caught.value.fix


# Rows that fitted before ----------------------------------------------------------------------------------------


class Small(tiny.Tiny):
    """On a device that the networks outgrow with more than `fits` rows; it says how much memory is free."""

    name, free, fits, sizes = "small", 2**40, 10**9, ()

    def free_bytes(self):
        return self.free

    def device_facts(self):
        return {"device": self.name, "memory_bytes": 2**40}

    def predict(self, x, t, **states):
        self.sizes = (*self.sizes, len(x))
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().predict(x, t, **states)


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """`opened(fits=5)`: a target opened with these facts, after ten queries."""
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))

    def make(argument="", rows=None, dtype="float32", **facts):
        target = Small(argument)
        for name, value in facts.items():
            setattr(target, name, value)
        target.open(rows=rows, dtype=dtype)
        target.first = target.denoiser.rows.rows
        x = torch.zeros(10, *target.sample_shape)
        target.denoiser(x, 10, target.condition([""] * 10))
        return target

    return make


def test_the_next_run_begins_with_what_fitted(opened):
    first = opened(fits=5)
    assert first.first == 64 and first.sizes == (64, 32, 16, 8, 4, 4, 4)
    again = opened(fits=5)
    assert again.first == 4 and again.sizes == (4, 4, 4), "memory does not run out again"
    assert again.vae_rows.rows == 64, "each network has its own"
    assert opened("8").first == opened(name="large").first == opened(dtype="float16").first == 64


def test_never_more_than_memory_now_allows(opened):
    opened(fits=20)
    row = 32 * 32 * 4096
    assert opened(free=3 * row).first == 2


def test_more_memory_than_then_is_tried(opened):
    opened(fits=5, free=2**32)
    assert [opened(free=2**bits, fits=5).first for bits in (32, 33)] == [4, 8]


def test_a_device_that_was_shared_then_is_not_taken_for_small(opened):
    class Crowded(Small):
        def predict(self, x, t, **states):
            self.free = 2**30  # somebody came to the device since the target was loaded
            return super().predict(x, t, **states)

    Crowded.__name__ = "Small"
    target = Crowded("")
    target.fits, target.free = 5, 2**32
    target.open()
    target.denoiser(torch.zeros(10, *target.sample_shape), 10, target.condition([""] * 10))
    assert opened(free=2**32).first == 16, "4 rows fitted in a quarter of it"


def test_rows_that_the_user_gives_are_taken_and_not_remembered(opened, tmp_path):
    assert opened(fits=5, rows=32).first == 32
    assert not (tmp_path / "cache").exists()
    opened(fits=5)
    assert opened(rows=16).first == 16


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fitted": 3}', '{"fitted": {"denoiser": {"rows": "x"}}}', "\0"])
def test_a_damaged_record_costs_nothing(opened, tmp_path, content):
    opened(fits=5)
    (path,) = (tmp_path / "cache" / "rows").iterdir()
    path.write_text(content)
    assert opened(fits=5).first == 64
    assert json.loads(path.read_text())["fitted"]["denoiser"]["rows"] == 4 and opened(fits=5).first == 4


def test_nonsense_is_not_believed(opened, tmp_path):
    opened(fits=5)
    (path,) = (tmp_path / "cache" / "rows").iterdir()
    path.write_text('{"fitted": {"denoiser": {"rows": 0, "free_bytes": -1}}}')
    assert opened().first == 64


def test_a_cache_that_cannot_be_written_costs_nothing(opened, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert opened(fits=5).denoiser.rows.rows == 4


def test_two_networks_share_a_record(monkeypatch, tmp_path):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path))
    Fitting({"device": "a"}, 100).keep("vae", 2, 100)
    Fitting({"device": "a"}, 100).keep("denoiser", 8, 100)
    found = Fitting({"device": "a"}, 100)
    assert (found.rows("vae", 64), found.rows("denoiser", 64), found.rows("text", 64)) == (2, 8, 64)
