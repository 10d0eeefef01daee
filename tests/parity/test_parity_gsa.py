"""GSA against CopyMark's program, whose features are the authors' at other timesteps."""

import golden
import pytest

from mia_bench_plugins.attacks.gsa import GSA

GRADIENT = 1e-4


@pytest.fixture(scope="module")
def recorded(sd):
    noise, wanted = golden.load("noise_t1_copymark_gsa"), golden.load("golden_t1_copymark_gsa")
    arrays = {("eps", int(t), 0): noise["eps"][j] for j, t in enumerate(wanted["t"])}
    return golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays}), wanted


@pytest.mark.parametrize(("preset", "name"), [("copymark", "gsa1"), ("copymark-gsa2", "gsa2")])
def test_copymark(sd, recorded, preset, name):
    made, wanted = recorded
    attack = GSA(GSA.Params.model_validate(GSA.presets[preset]))
    assert list(attack.params.t) == wanted["t"].tolist()
    norms = golden.measure(attack, made, sd)["norms"]
    assert golden.relative(norms, wanted[name]) < GRADIENT
    other = wanted["gsa2" if name == "gsa1" else "gsa1"]
    assert golden.relative(norms, other) > 100 * GRADIENT, "the two variants are told apart"


def test_order_of_the_weights(sd, recorded):
    with sd.differentiable() as weights:
        assert list(weights) == recorded[1]["param_names"].tolist()
