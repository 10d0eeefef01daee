"""CLiD_vec: what its trees see, and that they learn what tells members apart."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench.attack import Measured
from mia_bench.errors import NothingError
from mia_bench_plugins.attacks.clid import CLiD
from mia_bench_plugins.attacks.clid_vec import CLiDVec


def made(**params):
    return CLiDVec(CLiDVec.Params(**params).resolved("latent"))


def terms(n=160, cal=80, rise=0.2, offset=0.0):
    """The loss rises for members under the second reduced caption and falls under the third: the mean tells nothing."""
    rng, member = np.random.default_rng(0), np.arange(n) % 2 == 0
    losses = np.repeat(rng.normal(1, 0.3, (n, 1)), 5, axis=1) + offset
    losses[:, 1:] += rng.normal(0, 0.02, (n, 4))
    losses[member, 2] += rise
    losses[member, 3] -= rise
    ids = tuple(f"s{i:03}" for i in range(n))
    everything = Measured({"losses": np.repeat(losses[:, None], 3, axis=1)}, ids, np.arange(n) >= cal, ids)
    return everything, replace(everything.select(np.arange(n) < cal), member=member[:cal]), member


def test_it_measures_as_clid_does(make_batch, emoji_samples):
    target = tiny.Tiny()
    target.open(rows=4)
    batch = make_batch(target, emoji_samples[:2])
    found = made().measure(batch, target)["losses"]
    assert target.denoiser.asked[""] == made().queries() * 2 == 15 * 2
    before = target.denoiser.executed
    assert (CLiD(CLiD.Params()).measure(batch, target)["losses"] == found).all()
    assert target.denoiser.executed == before


def test_trees_learn_what_the_mean_does_not_show():
    everything, calibration, member = terms()
    found = made().score(everything, calibration)
    assert found.tags == ("label-assisted",)
    audit = found.values[everything.audit]
    assert audit[member[80:]].min() > audit[~member[80:]].max(), "higher = member"
    assert ((found.values >= 0) & (found.values <= 1)).all()


def test_they_see_loss_and_rises():
    seen = []

    class Spy(CLiDVec):
        def fit(self, features, member):
            seen.append(features)
            return lambda x: x[:, 0]

    everything, calibration, _ = terms()
    found = Spy(Spy.Params()).score(everything, calibration)
    losses = everything["losses"].mean(axis=1)
    assert np.allclose(found.values, losses[:, 0])
    assert np.allclose(seen[0], np.c_[losses[:80, 0], losses[:80, 1:] - losses[:80, :1]])


def test_scores_are_fixed_by_the_seed():
    everything, calibration, _ = terms(rise=0.02)
    once, again, other = (made(seed=s).score(everything, calibration).values for s in (0, 0, 1))
    assert np.array_equal(once, again) and not np.array_equal(once, other)


def test_noise_is_not_learned():
    """A calibration sample is never scored by trees that saw it: without a signal, its own score is no better."""
    everything, calibration, member = terms(rise=0.0)
    found = made().score(everything, calibration).values[:80]
    assert abs(found[member[:80]].mean() - found[~member[:80]].mean()) < 0.15


def test_it_needs_calibration():
    with pytest.raises(NothingError, match="no calibration set"):
        made().score(terms()[0], None)
