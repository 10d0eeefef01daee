"""All encoders together: names, what is said of them, and what asking costs."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from opened import opened, photograph

from mia_bench.errors import UnavailableError
from mia_bench.plugins import Registry
from mia_bench.testing import StubEncoder

ROOT = Path(__file__).parents[2]
MODULES = {
    value
    for value in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["mia_bench"].values()
    if ".encoders." in value
}
NAMES = {
    **{name: ["distance", "embed"] for name in ("emoji-lpips", "efficientnet", "pixels", "vae", "sscd", "dreamsim")},
    **{name: ["distance"] for name in ("lpips", "lpips-alex", "st-lpips", "st-lpips-vgg", "ssim")},
    **{name: ["distance", "embed", "text"] for name in ("emoji-clip", "clip")},
    "dino": ["attention", "distance", "embed"],
    "blip": ["caption", "distance", "embed", "text"],
}


@pytest.fixture(scope="module")
def encoders():
    registry = Registry()
    for module in sorted(MODULES):
        plugin = registry.add(module, "tests", module, lambda module=module: import_module(module))
        assert not plugin.error, plugin.trace
    return registry.encoders


def test_every_name_and_what_it_offers(encoders):
    assert {name: sorted(cls.meta.offers) for name, cls in encoders.items()} == NAMES


def test_one_without_its_weights_says_what_is_missing_whence_and_how(encoders, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    lacking = {name: cls for name, cls in encoders.items() if not cls.meta.offline}
    assert set(lacking) == {"lpips", "lpips-alex", "dreamsim", "sscd", "clip", "dino", "blip"}
    for name, cls in lacking.items():
        with pytest.raises(UnavailableError) as error:
            cls().weights()
        assert error.value.what == f"encoder {name}" and cls.meta.source in error.value.why
        assert error.value.fix.startswith(cls.meta.fetch)


def test_asking_where_the_weights_are_is_cheap():
    code = f"""
import sys
from importlib import import_module
from mia_bench.errors import UnavailableError
for module in {sorted(MODULES)}:
    for cls in import_module(module).mia_bench_encoders():
        try:
            cls().files()
        except UnavailableError:
            pass
print({{"torch", "transformers", "PIL", "lpips", "torchvision"}} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_stub_is_for_tests_alone_and_can_do_everything(encoders):
    assert "stub" not in encoders
    stub, picture = opened(StubEncoder()), photograph("flower", 32)
    assert stub.embed(picture).shape[1] == stub.text(["a daisy"]).shape[1]
    assert stub.distance(picture, picture).item() < 1e-6 < stub.distance(picture, -picture).item()
    assert stub.attention(picture).shape == (1, 8, 8) and stub.captions(picture)
    assert not torch.equal(stub.embed(picture), opened(StubEncoder("1")).embed(picture))
