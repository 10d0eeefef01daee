import pytest
from golden import FIXTURES

from mia_bench_plugins.targets.ddpm import DDPM
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion


@pytest.fixture(scope="session")
def sd():
    target = StableDiffusion(str(FIXTURES / "models" / "tiny_sd"))
    target.open(rows=8, latent="sample")
    return target


@pytest.fixture(scope="session")
def ddpm():
    target = DDPM(str(FIXTURES / "models" / "tiny_ddpm"))
    target.open(rows=8, latent="sample")
    return target
