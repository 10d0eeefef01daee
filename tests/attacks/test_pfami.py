"""PFAMI: closed forms, the reference model, and which queries are whose."""

import numpy as np
import pytest
import tiny
import torch

from mia_bench import Capability
from mia_bench.attack import Measured
from mia_bench.diffusion.schedule import Schedule
from mia_bench.errors import UnavailableError
from mia_bench_plugins.attacks.pfami import PFAMI, STRENGTHS


def opened(reference=None, **options):
    target = tiny.Tiny()
    target.reference = reference
    target.open(rows=4, **options)
    return target


def made(kind="latent", **params):
    return PFAMI(PFAMI.Params(**params).resolved(kind))


def stored(attack, batch, target):
    terms = {name: values.double().numpy() for name, values in attack.measure(batch, target).items()}
    return Measured(terms, batch.ids, np.ones(len(batch), dtype=bool), batch.ids)


def measured(**terms):
    n = len(terms["original"])
    ids = tuple(f"s{i}" for i in range(n))
    return Measured({k: np.asarray(v, dtype=float) for k, v in terms.items()}, ids, np.ones(n, dtype=bool), ids)


ORIGINAL, CROPS = [[1.0, 2.0]], [[[2.0, 1.0], [3.0, 4.0]]]  # one sample, two timesteps, two strengths


def test_the_score_is_the_mean_rise():
    terms = measured(original=ORIGINAL, crops=CROPS)
    assert made().score(terms, None) == pytest.approx([(1 + 0 + 0.5 + 1) / 4])
    assert made(norm="difference").score(terms, None) == pytest.approx([(1 + 0 + 1 + 2) / 4])


def test_a_reference_is_subtracted():
    terms = measured(
        original=ORIGINAL, crops=CROPS, reference_original=[[1.0, 1.0]], reference_crops=[[[2, 2], [2, 2]]]
    )
    assert made(calibrated=True).score(terms, None) == pytest.approx([(1 + 0 + 0.5 + 1) / 4 - 1])
    assert made(calibrated=True, norm="difference").score(terms, None) == pytest.approx([(1 + 0 + 1 + 2) / 4 - 1])


def test_a_loss_of_nothing_gives_no_nan():
    with np.errstate(all="ignore"):
        assert made().score(measured(original=[[0.0]], crops=[[[0.0]]]), None).tolist() == [0.0]


def test_the_target_as_its_own_reference_scores_zero(make_batch, emoji_samples):
    target, attack = opened(tiny.Tiny()), made(calibrated=True)
    batch = make_batch(target, emoji_samples[:3])
    found = stored(attack, batch, target)
    assert attack.score(found, None).tolist() == [0.0, 0.0, 0.0]
    assert (made().score(found, None) != 0).all(), "so it is the reference that takes it away"


def test_the_reference_is_another_model_asked_the_same(make_batch, emoji_samples):
    other = opened()
    alone = tiny.Tiny("8")
    alone.open(rows=4)
    target = opened(tiny.Tiny("8"))
    attack, plain = made(calibrated=True), made()
    found = stored(attack, make_batch(target, emoji_samples[:3]), target)
    for model, names in ((other, ("original", "crops")), (alone, ("reference_original", "reference_crops"))):
        wanted = stored(plain, make_batch(model, emoji_samples[:3]), model)
        assert np.array_equal(found[names[0]], wanted["original"])
        assert np.array_equal(found[names[1]], wanted["crops"])


def test_the_references_answers_are_not_the_targets(make_batch, emoji_samples):
    """One input at one time under one caption, in either order: each model answers for itself, and keeps to itself."""
    target = opened(tiny.Tiny("8"))
    batch = make_batch(target, emoji_samples[:2])
    theirs = target.reference.denoiser(batch.x0, 0, target.reference.condition(batch.captions))
    ours = target.denoiser(batch.x0, 0, batch.condition)
    assert not torch.equal(torch.Tensor(ours), torch.Tensor(theirs))
    # Inputs made of the two answers are two inputs.
    again = [
        target.denoiser(target.schedule.noised(batch.x0, eps, 500), 500, batch.condition) for eps in (ours, theirs)
    ]
    assert not torch.equal(*map(torch.Tensor, again))


def test_needs_and_queries(make_batch, emoji_samples):
    target = opened(tiny.Tiny("8"))
    batch = make_batch(target, emoji_samples[:2])
    wanted = {"": 20, "calibrated": 40, "clid": 20, "difference": 20, "paired-noise": 20, "copymark": 110}
    assert set(wanted) == {"", *PFAMI.presets}
    for preset, queries in wanted.items():
        attack = made(**PFAMI.presets.get(preset, {}))
        assert attack.queries() == queries
        assert (Capability.REFERENCE in attack.needs()) == (preset == "calibrated")
        with target.denoiser.asked_by(preset):
            attack.measure(batch, target)
        assert target.denoiser.asked[preset] == queries * 2
    assert Capability.REFERENCE in target.capabilities and Capability.REFERENCE not in opened().capabilities


def test_calibrating_measures_only_the_reference_anew(make_batch, emoji_samples):
    target = opened(tiny.Tiny("8"))
    batch = make_batch(target, emoji_samples[:2])
    made().measure(batch, target)
    before = target.denoiser.executed
    made(calibrated=True).measure(batch, target)
    assert target.denoiser.executed - before == 20 * 2


def test_a_reference_of_another_schedule_is_refused():
    class Faster(tiny.Tiny):
        def load(self):
            super().load()
            self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.03, 1000))

    with pytest.raises(UnavailableError, match="noise levels"):
        opened(Faster())


def test_crops_have_noise_of_their_own_unless_paired(make_batch, emoji_samples):
    target = opened()
    batch = make_batch(target, emoji_samples[:2])
    # A crop of the whole image is the image: what is left is the noise.
    fresh, paired = (made(strengths=(1.0,), paired=p).measure(batch, target) for p in (False, True))
    assert torch.allclose(paired["crops"][:, :, 0], paired["original"], rtol=1e-5)
    assert not torch.isclose(fresh["crops"][:, :, 0], fresh["original"], rtol=1e-3).any()


def test_strengths_by_kind():
    assert PFAMI.Params().resolved("pixel").strengths == pytest.approx((0.8111,), abs=1e-4)
    assert PFAMI.Params().resolved("latent").strengths == (0.825,)
    assert STRENGTHS[0] == pytest.approx(0.95) and STRENGTHS[-1] == pytest.approx(0.7) and len(STRENGTHS) == 10
