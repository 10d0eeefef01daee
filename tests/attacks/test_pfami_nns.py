"""PFAMI_NNs: its maps, what it shares with PFAMI, and that it learns what tells members apart."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench import Capability
from mia_bench.attack import Measured
from mia_bench.errors import NothingError
from mia_bench_plugins.attacks.pfami import PFAMI
from mia_bench_plugins.attacks.pfami_nns import PFAMINNs


def made(kind="latent", **params):
    return PFAMINNs(PFAMINNs.Params(**params).resolved(kind))


def terms(n=24, cal=12):
    """The first timesteps' losses rise for members, the last ones' for others; means tell nothing."""
    rng, member = np.random.default_rng(0), np.arange(n) % 2 == 0
    crops = 1 + rng.normal(0, 0.05, (n, 10, 10))
    crops[member, :5] += 0.5
    crops[~member, 5:] += 0.5
    ids = tuple(f"s{i:02}" for i in range(n))
    everything = Measured({"original": np.ones((n, 10)), "crops": crops}, ids, np.arange(n) >= cal, ids)
    return everything, replace(everything.select(np.arange(n) < cal), member=member[:cal]), member


@pytest.mark.parametrize(("params", "queries"), [({}, 110), ({"calibrated": True}, 220)])
def test_queries(make_batch, emoji_samples, params, queries):
    target = tiny.Tiny()
    target.reference = tiny.Tiny("8")
    target.open(rows=4)
    batch, attack = make_batch(target, emoji_samples[:2]), made(**params)
    found = attack.measure(batch, target)
    assert target.denoiser.asked[""] == attack.queries() * 2 == queries * 2
    assert found["original"].shape == (2, 10) and found["crops"].shape == (2, 10, 10)
    assert ("reference_crops" in found) == (Capability.REFERENCE in attack.needs()) == (queries == 220)


@pytest.mark.parametrize(("kind", "new"), [("pixel", 0), ("latent", 10)])
def test_what_it_shares_with_pfami(make_batch, emoji_samples, kind, new):
    """The settings for pixels are PFAMI's own crop and timesteps; those for latents have another crop."""
    target = tiny.Tiny()
    target.open(rows=4)
    batch = make_batch(target, emoji_samples[:2])
    made(kind).measure(batch, target)
    before = target.denoiser.executed
    PFAMI(PFAMI.Params().resolved(kind)).measure(batch, target)
    assert target.denoiser.executed - before == new * 2


@pytest.mark.parametrize("rank", ["output", "difference"])
def test_it_learns_what_the_mean_does_not_show(rank):
    everything, calibration, member = terms()
    found = made(epochs=8, rank=rank).score(everything, calibration)
    assert found.tags == ("label-assisted",)
    audit = found.values[everything.audit]
    assert audit[member[12:]].min() > audit[~member[12:]].max(), "higher = member"


def test_scores_are_fixed_by_the_seed():
    everything, calibration, _ = terms()
    once, again, other = (made(epochs=1, seed=s).score(everything, calibration).values for s in (0, 0, 1))
    assert np.array_equal(once, again) and not np.array_equal(once, other)


def test_a_reference_that_explains_everything_leaves_an_empty_map():
    everything, _, _ = terms()
    same = {
        **everything.terms,
        "reference_original": 2 * everything["original"],
        "reference_crops": 2 * everything["crops"],
    }
    assert np.allclose(made(calibrated=True).rises(replace(everything, terms=same)), 0)
    assert not np.allclose(made().rises(replace(everything, terms=same)), 0)


def test_it_needs_calibration_and_no_new_measurement_for_other_training():
    everything, _, _ = terms()
    with pytest.raises(NothingError, match="no calibration set"):
        made().score(everything, None)
    assert made(epochs=3, seed=4, rank="difference").params.measuring() == made().params.measuring()
