"""Every bundled target passes the conformance suite: families in a tiny random pipeline, known models unloaded."""

from pathlib import Path

import imageserver
import painter
import pipelines
import pytest

from mia_bench import TargetOptions
from mia_bench.plugins import Registry
from mia_bench.testing import checks

SMALL = TargetOptions(resolution=32)
SERVER = imageserver.Server()


@pytest.fixture(scope="module", autouse=True)
def service():
    import threading

    thread = threading.Thread(target=SERVER.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield
    SERVER.shutdown()
    SERVER.server_close()
    thread.join()


def of(name, **options):
    """A pipeline saved by diffusers itself."""
    return lambda folder: str(pipelines.saved(name, Path(folder) / "pipeline", **options))


FAMILIES = {
    "stable-diffusion": {"argument": of("sd")},
    "stable-diffusion-xl": {"argument": of("sdxl")},
    "stable-diffusion-3": {"argument": of("sd3")},
    "flux": {"argument": of("flux"), "options": SMALL},
    "ddpm": {"argument": of("ddpm")},
    "ldm": {"argument": of("ldm")},
    "callable": {"argument": f"{painter.__file__}:wash", "options": SMALL},
    "endpoint": {"argument": SERVER.url, "options": TargetOptions(resolution=32, revision="1")},
}
BY_SEED = "the tests' service draws by seed, whatever else it is sent"
EXEMPT = {"endpoint": {"generation": BY_SEED, "variation": BY_SEED}}
TARGETS = Registry.load().targets
CHECKS = [
    check
    for name, cls in sorted(TARGETS.items())
    for check in checks(cls, EXEMPT.get(name), **FAMILIES.get(name, {}))
    if not cls.meta.repository or check.name in ("loads", "metadata")  # families stand in for known models' weights
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_conformance(check):
    check()


def test_each_is_a_family_a_known_model_or_embedded():
    others = {name for name, cls in TARGETS.items() if not cls.meta.repository and not name.startswith("emoji-")}
    assert others == set(FAMILIES)
