"""SimA where the prediction is known."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mia_bench import Capability, Target, TargetMeta
from mia_bench.attack import Measured
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.schedule import Schedule
from mia_bench_plugins.attacks.sima import SimA

SIZE, B = 3 * 8 * 8, 4


class Stub(Target):
    """Predicts what a function of `(x, t)` says."""

    meta = TargetMeta(name="stub", summary="", kind="pixel", capabilities=frozenset({Capability.DENOISE}))
    image_size, sample_shape = 8, (3, 8, 8)

    def __init__(self, output):
        super().__init__()
        self.predict = output

    predict = None  # abstract in the base; each instance has its own

    def load(self):
        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))

    def weights(self):
        return {}


def measure(output, seed=0, b=B, **params):
    """Terms on black images, float64, and the batch."""
    target = Stub(output)
    target.open(rows=4)
    ids, images = [f"s{i}" for i in range(b)], [Image.new("RGB", (8, 8))] * b
    batch = Batch(ids, [None] * b, images, torch.zeros(b, 3, 8, 8), target, KeyedNoise(seed))
    attack = SimA(SimA.Params(**params))
    found = attack.measure(batch, target)["power"]
    assert target.denoiser.asked.total() == b * attack.queries()
    return found.double().numpy(), batch


def the_noise(x, t):
    """Black images noised at t = 100 are b_t eps: their noise, exactly."""
    return x / float(Schedule.from_betas(np.linspace(1e-4, 0.02, 1000)).noise[100])


@pytest.mark.parametrize("draws", [0, 3])
def test_predicting_nothing_is_zero(draws):
    found, _ = measure(lambda x, t: torch.zeros_like(x), draws=draws)
    assert found.shape == (B, max(1, draws)) and (found == 0).all()


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("draws", [0, 3])
def test_a_constant_prediction(p, draws):
    found, _ = measure(lambda x, t: torch.full_like(x, -2.0), p=p, draws=draws)
    assert found == pytest.approx(SIZE * 2.0**p)


def test_the_clean_image_is_told_as_noised():
    seen = []
    measure(lambda x, t: seen.append((x, t)) or x, b=3)
    (x, t) = seen[0]
    assert (x == 0).all() and (t == 100).all()


def test_the_average_is_taken_before_the_norm():
    found, batch = measure(the_noise, draws=5)
    eps = np.stack([np.asarray(batch.eps(100, draw)) for draw in range(5)], axis=1).astype(np.float64)
    means = eps.cumsum(axis=1) / np.arange(1, 6)[:, None, None, None]
    assert found == pytest.approx((means**4).sum(axis=(2, 3, 4)), rel=1e-5)


def test_fewer_draws_are_in_the_terms_already():
    many, few = measure(the_noise, draws=7)[0], measure(the_noise, draws=3)[0]
    assert np.array_equal(many[:, :3], few)


def test_draws_depend_on_the_sample_not_on_its_companions():
    assert np.array_equal(measure(the_noise, draws=6)[0][:1], measure(the_noise, draws=6, b=1)[0])


def test_only_the_monte_carlo_form_is_random():
    def curved(x, t):
        return torch.cos(x)

    assert np.array_equal(measure(curved, seed=0)[0], measure(curved, seed=1)[0])
    assert not np.array_equal(measure(curved, seed=0, draws=2)[0], measure(curved, seed=1, draws=2)[0])


def test_less_predicted_noise_scores_higher():
    terms = np.array([[9.0, 1.0], [1.0, 3.0], [5.0, 2.0]])
    ids = ("a", "b", "c")
    scores = SimA().score(Measured({"power": terms}, ids, np.ones(3, dtype=bool), ids), None)
    assert scores.tolist() == [-1.0, -3.0, -2.0], "of all draws together"


@pytest.mark.parametrize(("params", "queries"), [({}, 1), (SimA.presets["mc"], 30), ({"draws": 1}, 1)])
def test_queries(params, queries):
    assert SimA(SimA.Params.model_validate(params)).queries() == queries


@pytest.mark.parametrize("bad", [{"t": 1000}, {"p": 0}, {"draws": -1}, {"n": 3}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        SimA.Params.model_validate(bad)
