"""How much at once: rows by the memory there is, text states by their size, offloaded networks."""

import importlib.util

import pipelines
import pytest
import tiny
import torch

from mia_bench import Capability, TargetOptions
from mia_bench.diffusion.pipeline import offload
from mia_bench.engine.named import open_target
from mia_bench.errors import UnavailableError
from mia_bench.plugins import Registry
from mia_bench.target import TEXT_BYTES, rows_within

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
