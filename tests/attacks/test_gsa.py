"""GSA: gradients worked out by hand on a linear denoiser, what a gradient may not depend on, and its classifier."""

import numpy as np
import pytest
import torch
from PIL import Image

from mia_bench import Capability, Target, TargetMeta
from mia_bench.attack import Measured
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.schedule import Schedule
from mia_bench.errors import NothingError
from mia_bench.fit import TAG
from mia_bench.metrics import auc
from mia_bench_plugins.attacks.gsa import GSA

TS = (100, 500, 900)


class Linear(Target):
    """e(x, t) = W x + b at every pixel."""

    meta = TargetMeta(
        name="linear", summary="", kind="pixel", capabilities=frozenset({Capability.DENOISE, Capability.GRADIENT})
    )
    image_size, sample_shape = 8, (3, 8, 8)

    def load(self):
        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000))
        self.net = torch.nn.Conv2d(3, 3, 1).requires_grad_(False)
        source = torch.Generator().manual_seed(0)
        self.net.weight.copy_(torch.randn(3, 3, 1, 1, generator=source))
        self.net.bias.copy_(torch.randn(3, generator=source))

    def weights(self):
        return {}

    def network(self):
        return self.net

    def predict(self, x, t):
        return self.net(x)


@pytest.fixture
def linear():
    target = Linear()
    target.open(rows=4)
    return target


def batch_on(target, b=4):
    pixels = torch.rand(b, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch([f"s{i}" for i in range(b)], [None] * b, [Image.new("RGB", (8, 8))] * b, pixels, target, KeyedNoise(0))


def make(**params):
    return GSA(GSA.Params(**params))


def measure(attack, batch, target):
    with torch.no_grad():  # as the engine does
        return attack.measure(batch, target)["norms"].numpy()


def by_hand(batch, target):
    """Gradients of sum (W x + b - eps)^2 by W and b at each t: 2 sum r x^T and 2 sum r, float64 `(B, T, 12)`."""
    weight, bias = (p.double().numpy() for p in target.net.parameters())
    x0, eps = batch.x0.double().numpy(), batch.eps(TS).double().numpy()
    signal, noise = target.schedule.signal[list(TS)], target.schedule.noise[list(TS)]
    x = signal[:, None, None, None] * x0[:, None] + noise[:, None, None, None] * eps
    x, eps = (values.reshape(len(batch), len(TS), 3, -1) for values in (x, eps))
    residual = weight[:, :, 0, 0] @ x + bias[:, None] - eps
    by_weight = 2 * (residual @ x.swapaxes(-1, -2)).reshape(len(batch), len(TS), 9)
    return np.concatenate([by_weight, 2 * residual.sum(axis=-1)], axis=-1)


@pytest.mark.parametrize("backward", ["once", "each"])
def test_gradients_by_hand(linear, backward):
    batch = batch_on(linear)
    gradients = by_hand(batch, linear)
    if backward == "once":
        gradients = gradients.sum(axis=1, keepdims=True)
    norms = [np.linalg.norm(part, axis=-1).sum(axis=1) for part in (gradients[..., :9], gradients[..., 9:])]
    found = measure(make(t=TS, backward=backward), batch, linear)
    np.testing.assert_allclose(found, np.stack(norms, axis=1), rtol=1e-5)


@pytest.mark.parametrize(("preset", "t", "passes"), [("", 10, 1), ("gsa2", 10, 10), ("copymark", 20, 1)])
def test_queries_and_backward_passes(linear, preset, t, passes):
    attack, batch = make(**GSA.presets.get(preset, {})), batch_on(linear, 2)
    with linear.denoiser.asked_by("gsa"):
        measure(attack, batch, linear)
    assert linear.denoiser.asked["gsa"] == 2 * attack.queries() == 2 * t
    assert linear.denoiser.backward["gsa"] == 2 * passes


def test_nothing_is_left_behind(linear):
    batch = batch_on(linear)
    measure(make(t=TS), batch, linear)
    batch.check_unchanged()
    assert not any(p.requires_grad or p.grad is not None for p in linear.net.parameters())
    linear.denoiser.predict = lambda x, t: 1 / 0
    with pytest.raises(Exception, match="ZeroDivisionError"):
        measure(make(t=TS), batch, linear)
    assert not any(p.requires_grad for p in linear.net.parameters())


@pytest.mark.parametrize("backward", ["once", "each"])
def test_an_image_alone_has_the_same_bits(emoji, emoji_samples, make_batch, make_emoji, backward):
    attack = make(t=(100, 500), backward=backward)
    together = measure(attack, make_batch(emoji, emoji_samples[:3]), emoji)
    assert np.isfinite(together).all() and (together > 0).all()
    assert np.array_equal(measure(attack, make_batch(emoji, emoji_samples[2:3]), emoji), together[2:])
    other = make_emoji(threads=2)
    assert np.array_equal(measure(attack, make_batch(other, emoji_samples[1:3]), other), together[1:])


def test_fewer_rows_than_timesteps_agree_within_rounding(linear):
    """As after a halving of the row count: the calls are smaller, the one backward pass still goes through all."""
    wanted = measure(make(), batch_on(linear), linear)
    linear.open(rows=3)
    np.testing.assert_allclose(measure(make(), batch_on(linear), linear), wanted, rtol=1e-5)
    assert linear.denoiser.rows.padding == 0


# The classifier -----------------------------------------------------------------------------------------------------


def samples(n=60, seed=0, informative=True):
    """Made-up norms; the first half are members, and have a smaller second norm."""
    member = np.arange(n) < n // 2
    norms = np.random.default_rng(seed).lognormal(size=(n, 5))
    norms[:, 1] *= np.where(member & informative, 0.02, 1.0)
    ids = tuple(f"{seed}-{i}" for i in range(n))
    return Measured({"norms": norms}, ids, np.ones(n, dtype=bool), ids, member)


def union(a, b):
    """One run's measurements: the audit samples `a` and the calibration samples `b`."""
    norms = np.concatenate([a["norms"], b["norms"]])
    audit = np.arange(len(norms)) < len(a.ids)
    return Measured({"norms": norms}, a.ids + b.ids, audit, a.ids + b.ids)


def test_smaller_gradients_of_members_are_learnt():
    audit, calibration = samples(), samples(seed=1)
    scores = make().score(union(audit, calibration), calibration)
    assert scores.tags == (TAG,)
    assert auc(scores.values[:60], audit.member) > 0.9


def test_nothing_is_learnt_from_noise():
    audit, calibration = samples(informative=False), samples(seed=1, informative=False)
    values = make().score(union(audit, calibration), calibration).values
    assert 0.25 < auc(values[:60], audit.member) < 0.75
    assert 0.25 < auc(values[60:], calibration.member) < 0.75, "no sample is scored by trees that were fitted on it"


def test_a_score_depends_on_neither_scale_nor_companions():
    audit, calibration = samples(), samples(seed=1)
    values = make().score(union(audit, calibration), calibration).values
    few = audit.select(np.arange(60) % 7 == 0)
    assert np.array_equal(make().score(union(few, calibration), calibration).values[: len(few.ids)], values[:60:7])
    scale = np.array([8.0, 0.5, 1.0, 4.0, 1024.0])
    scaled = [Measured({"norms": m["norms"] * scale}, m.ids, m.audit, m.groups, m.member) for m in (audit, calibration)]
    assert np.array_equal(make().score(union(*scaled), scaled[1]).values, values)


def test_without_calibration_there_is_no_score():
    with pytest.raises(NothingError, match="calibration"):
        make().score(samples(), None)


@pytest.mark.parametrize("preset", ["", *GSA.presets])
def test_presets_are_valid_and_differ(preset):
    params = GSA.Params.model_validate(GSA.presets.get(preset, {}))
    assert (params == GSA.Params()) == (preset == "")
