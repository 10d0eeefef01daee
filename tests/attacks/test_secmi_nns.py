"""SecMI_NNs: what it measures, and that it learns what tells members apart."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from mia_bench.attack import Measured
from mia_bench.errors import NothingError
from mia_bench.metrics import auc
from mia_bench_plugins.attacks.secmi import SecMI
from mia_bench_plugins.attacks.secmi_nns import SecMINNs


@pytest.fixture(scope="module")
def target():
    made = tiny.Tiny()
    made.open(rows=4)
    return made


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """The same layers with few channels: training takes a moment."""
    monkeypatch.setattr("mia_bench.resnet.WIDTHS", (8, 8, 8, 8))


def made(cls=SecMINNs, **params):
    return cls(cls.Params(**params).resolved("latent"))


def maps(n=32, cal=16, scale=1.0):
    """Members' errors sit in one corner; sums tell nothing. The first `cal` rows calibrate."""
    rng = np.random.default_rng(0)
    member = np.arange(n) % 2 == 0
    values = np.abs(rng.normal(size=(n, 1, 8, 8)))
    values[member, :, :4, :4] += 3
    values[~member, :, 4:, 4:] += 3
    values /= values.sum(axis=(1, 2, 3), keepdims=True) / scale
    ids = tuple(f"s{i:02}" for i in range(n))
    everything = Measured({"map": values}, ids, np.arange(n) >= cal, ids)
    return everything, replace(everything.select(np.arange(n) < cal), member=member[:cal]), member


def test_the_map_adds_up_to_the_statistic(target, make_batch, emoji_samples):
    batch = make_batch(target, emoji_samples[:3])
    found = made(p=2).measure(batch, target)["map"]
    assert found.shape == (3, *target.sample_shape)
    assert torch.allclose(found.sum((1, 2, 3)), made(SecMI).measure(batch, target)["error"], rtol=1e-5)
    plain = made().measure(batch, target)["map"]
    assert (plain >= 0).all() and torch.allclose(plain**2, found)


@pytest.mark.parametrize(
    ("preset", "count"), [("paper", 12), ("cifar-code", 11), ("ldm-code", 16), ("clid-baseline", 12)]
)
def test_queries_are_those_of_secmi_and_shared_with_it(target, make_batch, emoji_samples, preset, count):
    batch, params = make_batch(target, emoji_samples[:2]), SecMI.presets[preset]
    attack = made(**params)
    with target.denoiser.asked_by(f"nns {preset}"):
        attack.measure(batch, target)
    assert target.denoiser.asked[f"nns {preset}"] == attack.queries() * 2 == count * 2
    before = target.denoiser.executed
    made(SecMI, **params).measure(batch, target)
    assert target.denoiser.executed == before


def test_it_learns_what_the_sum_does_not_show():
    everything, calibration, member = maps()
    assert auc(everything["map"].sum((1, 2, 3)).round(9), member) == 0.5
    found = made(epochs=40).score(everything, calibration)
    assert found.tags == ("label-assisted",)
    assert auc(found.values[16:], member[16:]) > 0.9


def test_the_unit_of_the_error_does_not_matter():
    found = [made(epochs=3).score(*maps(scale=scale)[:2]).values for scale in (1.0, 2.0**-12)]
    assert np.array_equal(*found)


def test_it_is_the_same_every_time_and_another_with_another_seed():
    everything, calibration, _ = maps()
    once = made(epochs=1).score(everything, calibration).values
    assert np.array_equal(made(epochs=1).score(everything, calibration).values, once)
    assert not np.array_equal(made(epochs=1, seed=1).score(everything, calibration).values, once)


def test_an_audit_score_depends_on_the_calibration_set_alone():
    everything, calibration, _ = maps()
    once = made(epochs=1).score(everything, calibration).values
    few = everything.select(np.arange(32) < 20)
    assert np.array_equal(made(epochs=1).score(few, calibration).values, once[:20])


def test_it_needs_calibration_and_no_new_measurement_for_other_training():
    everything, _, _ = maps()
    assert SecMINNs.meta.calibration == "required"
    with pytest.raises(NothingError, match="no calibration set"):
        made().score(everything, None)
    assert made(epochs=3, seed=4).params.measuring() == made().params.measuring()
