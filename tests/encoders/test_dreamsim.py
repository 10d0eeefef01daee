"""DreamSim: the package's own network, its folder of weights, and neither its downloads nor code from GitHub."""

import sys

import pytest
import torch
from opened import opened, photograph

from mia_bench.errors import UnavailableError
from mia_bench_plugins.encoders.dreamsim import BACKBONE, FILES, DreamSim

# What the package does, in small: a backbone from torch.hub, whose directory it changes, and `embed`, which squeezes.
PACKAGE = """
import torch
from torch.nn import functional
class Net(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
    def embed(self, images):
        assert images.shape[1:] == (3, 224, 224) and 0 <= images.min() and images.max() <= 1
        return self.backbone(functional.adaptive_avg_pool2d(images, 4).flatten(1)).squeeze()
def dreamsim(pretrained=True, device="cuda", cache_dir="./models", normalize_embeds=True, dreamsim_type="ensemble"):
    print("Using cached weights")
    torch.hub.set_dir(cache_dir)
    return Net(torch.hub.load("facebookresearch/dino:main", "dino_vitb16")), None
"""
TRANSFORMER = """
import torch
def vit_base(patch_size, num_classes):
    return torch.nn.Linear(48, 8)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    inner = tmp_path / "site" / "dreamsim" / "feature_extraction"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text(PACKAGE)
    (inner / "__init__.py").touch()
    (inner / "vision_transformer.py").write_text(TRANSFORMER)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "dreamsim"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "weights"
    (made / "checkpoints").mkdir(parents=True)
    (made / "ensemble_lora").mkdir()
    (made / "ensemble_lora" / "adapter_config.json").write_text("{}")
    for name in FILES[:3]:
        (made / name).write_bytes(b"weights")
    torch.manual_seed(0)
    torch.save(torch.nn.Linear(48, 8).state_dict(), made / BACKBONE)
    return made


def test_it_runs_the_packages_network_on_local_weights_alone(package, folder, capsys):
    before = torch.hub.get_dir()
    encoder = opened(DreamSim(str(folder)), rows=1)
    assert torch.hub.get_dir() == before and capsys.readouterr().out == ""
    left, right = photograph("china"), photograph("flower")
    weights = torch.load(folder / BACKBONE, weights_only=True)
    assert torch.equal(encoder.net.backbone.weight, weights["weight"])
    assert encoder.embed(left).shape == (1, 8), "with one row too"
    assert encoder.distance(left, left).item() < 1e-6 < encoder.distance(left, right).item()
    assert {"ensemble_lora/adapter_config.json", BACKBONE} < set(encoder.weights())


def test_what_is_missing_and_how_to_get_it(package, folder):
    (folder / BACKBONE).unlink()
    with pytest.raises(UnavailableError) as error:
        DreamSim(str(folder)).weights()
    assert "dino_vitbase16_pretrain.pth not in" in error.value.why and "releases" in error.value.why
    assert "pip install dreamsim" in error.value.fix and "dreamsim:FOLDER" in error.value.fix
    with pytest.raises(UnavailableError, match="name one, dreamsim:FOLDER"):
        DreamSim().files()


def test_without_the_package(folder):
    with pytest.raises(UnavailableError, match="package dreamsim is not installed"):
        DreamSim(str(folder)).files()
