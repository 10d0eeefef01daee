"""A pipeline folder that lacks something: the message says what."""

import shutil
from pathlib import Path

import pytest

from mia_bench.errors import UnavailableError
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

WHOLE = Path(__file__).parents[1] / "parity" / "fixtures" / "models" / "tiny_sd"


def refused(folder):
    with pytest.raises(UnavailableError) as caught:
        target = StableDiffusion(str(folder))
        target.weights()
        target.open()
    assert caught.value.fix
    assert len(str(caught.value)) < 400 and "http" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(WHOLE, tmp_path / "pipeline"))


@pytest.mark.parametrize("part", StableDiffusion.parts)
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    assert refused(copy) == f"pipeline folder {copy}: its part {part}/ is missing"


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_and_damaged_weights_are_named(copy, part):
    (weights,) = (copy / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    assert refused(copy).startswith(f"target part {copy / part}: ")
    weights.unlink()
    assert refused(copy) == f"target part {copy / part}: no weights (*.safetensors) in it"


def test_an_empty_part_is_named(copy):
    for path in (copy / "vae").iterdir():
        path.unlink()
    assert refused(copy) == f"target part {copy / 'vae'}: no weights or configuration in it"
