import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from captioned import SIDE, Captioned, asked, batch_of, make, measured
from pydantic import ValidationError

from mia_bench import Capability
from mia_bench.attack import PARTIAL, Measured
from mia_bench.diffusion.keyed import plain
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.metrics import auc
from mia_bench_plugins.attacks.iip import IIP

SIZE = np.sqrt(3 * SIDE**2)  # norm of an image of ones


class Flat(Encoder):
    """The image as a vector."""

    meta = EncoderMeta(name="flat", summary="", offers=frozenset({Offer.EMBED, Offer.DISTANCE}), source="here")

    def weights(self):
        return {}

    def load(self, target):
        pass

    def embedded(self, images):
        return images.flatten(1)


def opened(output=lambda x, t, c: torch.zeros_like(x), **options):
    target = Captioned(output)
    target.encoders = {"sscd": Flat()}
    target.open(**{"rows": 4, **options})
    return target


def heard(x, t, c):
    return (0.002 * c).expand_as(x)


def pull(schedule, path, eps, y=0.0):
    """Where noise `eps` at every step leads along `path`, in float64."""
    for t, to in pairwise(path):
        y = (y - schedule.noise[t] * eps) * schedule.signal[to] / schedule.signal[t] + schedule.noise[to] * eps
    return y


def seen(target):
    """Timesteps of consecutive calls, each once."""
    told = [t for t, _ in target.seen]
    return [t for t, before in zip(told, [None, *told], strict=False) if t != before]


# Measuring ----------------------------------------------------------------------------------------------------------


def test_closed_form_of_a_constant_pull():
    """Nothing is predicted without a prompt, so that the inversion is undone but for what "ata" adds at each step."""
    target = opened(heard)
    batch = batch_of(target)
    terms = measured(make(IIP, mode="string"), batch, target)
    assert terms["power"].shape == (3, 20)
    assert np.sqrt(terms["power"]) == pytest.approx(0.002 * 3 * SIZE, rel=1e-5)
    path = [*range(381, 0, -20), 0]
    x = batch.pixels.double().flatten(1)
    made = (x + pull(target.schedule, path, 7.5 * 0.002 * 3)).clamp(-1, 1)
    assert terms["d"] == pytest.approx((1 - torch.cosine_similarity(x, made)).numpy(), abs=1e-5)
    assert (terms["d"] > 1e-3).all()


@pytest.mark.parametrize(("label", "up"), [("destination", [*range(1, 382, 20)]), ("source", [0, *range(1, 362, 20)])])
def test_twenty_steps_up_and_twenty_down(label, up):
    target = opened(heard)
    make(IIP, mode="string", label=label).measure(batch_of(target), target)
    down = [*range(381, 0, -20)]
    assert seen(target) == (up + down[1:] if label == "destination" else up + down)


def test_captions_are_not_read_and_only_the_prompts_string_counts():
    target, attack = opened(heard), make(IIP, mode="string")
    one, other = (
        measured(attack, batch_of(target, captions), target) for captions in (("a", "b", "c"), ("aa", "", None))
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    longer = measured(make(IIP, mode="string", string="atatat"), batch_of(target), target)
    assert longer["power"] == pytest.approx(4 * one["power"], rel=1e-4)


def test_a_prompt_that_adds_nothing_ends_where_no_prompt_does():
    target = opened(lambda x, t, c: torch.tanh(9 * x))
    own, image = (
        measured(make(IIP, mode="string", d_reference=r), batch_of(target), target) for r in ("reconstruction", "image")
    )
    assert (own["power"] == 0).all() and own["d"] == pytest.approx(0, abs=1e-6)
    assert (image["d"] > 10 * np.abs(own["d"]).max()).all()


def test_the_finer_the_steps_the_better_the_inversion_is_undone():
    errors, target = [], opened(lambda x, t, c: 0.5 * torch.tanh(3 * x))
    for grid in (10, 50, 250):
        batch = batch_of(target)
        attack = make(IIP, mode="string", grid=grid, depth=int(0.4 * grid), until=0, guidance=0)
        end = plain(attack.perturbed(batch, target)[1])
        errors.append(float((end - batch.pixels).norm()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0, errors


def test_prompts_drawn_at_random_are_the_samples_own():
    target, attack = opened(heard), make(IIP, mode="random")
    first, again = (measured(attack, batch_of(target), target)["power"] for _ in range(2))
    other = measured(attack, batch_of(target, seed=1), target)["power"]
    assert np.array_equal(first, again) and (first != other).all()
    assert len(np.unique(first[:, 0])) == 3 and np.ptp(first, axis=1) == pytest.approx(0, abs=1e-6)


def test_optimised_prompts_fall_silent_where_nothing_holds_the_image():
    """In half of the images nothing the prompt says changes what is predicted: the model knows them."""

    def tilt(x):  # which a pull that is the same everywhere leaves alone
        return x[..., SIDE // 2 :].mean((1, 2, 3)) - x[..., : SIDE // 2].mean((1, 2, 3))

    def known(x, t, c):
        free = (tilt(x) > 0).float().view(-1, 1, 1, 1)
        return torch.where(c == 0, 0.0, free * 0.05 * c + (1 - free) * 0.1).expand_as(x)

    target = opened(known)
    batch = batch_of(target, tuple("abcdefgh"), ids=[f"s{i}" for i in range(8)])
    member = tilt(batch.pixels).numpy() <= 0
    assert 1 < member.sum() < 7
    before, after = (
        measured(make(IIP, mode=mode, depth=8, until=2), batch, target) for mode in ("random", "optimised")
    )
    assert (after["power"][~member] <= before["power"][~member]).all()
    assert after["power"][~member].max() < 0.1 * after["power"][member].min()
    assert np.array_equal(after["power"][member], before["power"][member])
    assert auc(after["d"], member) == auc(make(IIP).score(after, None).values, member) == 1


@pytest.mark.parametrize("mode", ["string", "optimised"])
def test_the_bits_do_not_depend_on_the_batch(make_emoji, emoji_samples, make_batch, mode):
    target = make_emoji(rows=2)
    target.encoders = {"sscd": Flat()}
    target.encoders["sscd"].open(target)
    attack = IIP(IIP.Params(mode=mode, depth=2, until=1, updates=2))
    whole = attack.measure(make_batch(target, emoji_samples[:3]), target)
    part = attack.measure(make_batch(target, emoji_samples[2:0:-1]), target)
    alone = attack.measure(make_batch(target, emoji_samples[:1]), target)
    for name in whole:
        assert torch.equal(part[name], whole[name][[2, 1]]) and torch.equal(alone[name], whole[name][:1])


# Queries ------------------------------------------------------------------------------------------------------------


def deaf(x, t, c):
    """A prompt is noticed, what it says is not."""
    return torch.where(c == 0, 0.0, 0.1 + 0 * c).expand_as(x)


@pytest.mark.parametrize(
    ("params", "queries", "backward"),
    [
        ({"mode": "string"}, 60, 0),
        ({"mode": "random"}, 60, 0),
        ({"mode": "string", "d_reference": "reconstruction"}, 80, 0),
        ({"mode": "string", "depth": 7, "until": 3}, 21, 0),
        ({}, 580, 500),
        ({"depth": 6, "until": 4, "updates": 3}, 28, 6),
        ({"until": 20}, 60, 0),
    ],
)
def test_queries(params, queries, backward):
    attack, target = make(IIP, **params), opened(deaf)
    assert attack.queries() == queries == asked(attack, batch_of(target), target)
    assert target.denoiser.backward[""] == 3 * backward


def test_a_descent_that_has_arrived_asks_less():
    attack, target = make(IIP), opened(lambda x, t, c: (1e-5 * c).expand_as(x))
    assert asked(attack, batch_of(target), target) == 60 + 10 * 3 < attack.queries()
    assert not target.denoiser.backward[""]


def test_quick_costs_sixty():
    assert IIP(IIP.Params(**IIP.presets["quick"])).queries() == 60


# Scoring ------------------------------------------------------------------------------------------------------------


def terms(d, m, member=None, audit=None):
    """`m` of each level, or of one alone."""
    n = len(d)
    power = np.square(np.reshape(np.asarray(m, float), (-1, n)).T)
    audit = np.ones(n, dtype=bool) if audit is None else audit
    return Measured({"d": np.asarray(d, float), "power": power}, tuple(map(str, range(n))), audit, ("",) * n, member)


D, M = np.array([0.0, 1, 2, 3, 4]), np.array([10.0, 20, 30, 50, 90])
LABELS = np.array([False, False, True, True, True])


def test_the_sum_of_both_terms_scaled_by_the_calibration_set():
    calibration = terms([0.0, 1, 2, 3, 4], [1.0, 2, 3, 4, 5], LABELS)
    found = make(IIP, lambda_d=2, lambda_e=0.5).score(terms(D * 10, M), calibration)
    assert found.values == pytest.approx(2 * (10 * D - 2) / 2 + 0.5 * (M - 3) / 2)
    assert found.tags == (PARTIAL,)


def test_without_calibration_the_audit_set_scales():
    audit = np.array([True, True, True, True, False])
    found = make(IIP, lambda_e=0).score(terms(D, M, audit=audit), None)
    assert found.values == pytest.approx((D - 1.5) / 1.5) and found.tags == (PARTIAL, "transductive")


def test_levels_that_m_is_of():
    given, calibration = terms(D, [M, 1000 - M]), terms(D, [M, M * 9], LABELS)
    params = [{"lambda_d": 0, "depth": 2, "until": 1, "m_of": levels} for levels in ("upper", "lower", "all")]
    first, last, every = (make(IIP, **p).score(given, calibration).values for p in params)
    assert first == pytest.approx((M - 30) / 30)
    assert last == pytest.approx((1000 - M - 270) / 270)
    assert every == pytest.approx((500 - 150) / 150)
    for params in ({"m_of": "upper", "until": 20}, {"m_of": "lower", "until": 0}):
        with pytest.raises(ValidationError, match=f"no {params['m_of']} level"):
            IIP.Params(**params)


def test_a_term_that_points_the_wrong_way_is_named_and_left():
    calibration = terms(-D, M, LABELS)
    found = make(IIP).score(terms(D, M), calibration)
    assert found.tags == (PARTIAL, "d reversed on calibration")
    assert (np.diff(make(IIP, lambda_e=0).score(terms(D, M), calibration).values) > 0).all(), "more is more"
    assert make(IIP, lambda_d=0).score(terms(D, M), calibration).tags == (PARTIAL,)
    both = make(IIP).score(terms(D, M), terms(-D, 100 - M, LABELS))
    assert both.tags == (PARTIAL, "d reversed on calibration", "m reversed on calibration")


@pytest.mark.parametrize("mode", ["", "string", "quick"])
def test_each_term_alone_is_a_row_at_no_cost(mode):
    whole = IIP.Params(**IIP.presets.get(mode, {}))
    for term, weight in (("d", "lambda_e"), ("m", "lambda_d")):
        alone = IIP.Params.model_validate_json(
            json.dumps(IIP.presets["-".join(filter(None, [mode, term]))]), strict=True
        )
        assert getattr(alone, weight) == 0 and alone.measuring() == whole.measuring() and alone.samples == whole.samples


# What it needs and shows --------------------------------------------------------------------------------------------


def test_what_is_needed():
    assert {Capability.CAPTION, Capability.GENERATE} <= IIP().needs()
    assert Capability.GRADIENT in IIP().needs() and Capability.GRADIENT not in make(IIP, mode="string").needs()
    assert make(IIP, encoder="dino").encoders() == {"dino": {Offer.DISTANCE}}


@pytest.mark.parametrize("reference", ["image", "reconstruction"])
def test_pictures(reference):
    target, attack = opened(heard), make(IIP, mode="string", d_reference=reference)
    batch = batch_of(target)
    terms = measured(attack, batch, target)
    ran = target.denoiser.executed
    pictures = attack.artifacts(batch, target)
    assert target.denoiser.executed == ran, "all of it was asked before"
    assert list(pictures) == ["original", "inverted", "perturbed", "difference"]
    assert all(p.shape == batch.pixels.shape and p.abs().max() <= 1 for p in pictures.values())
    assert torch.equal(pictures["original"], batch.pixels)
    cosine = torch.cosine_similarity(batch.pixels.flatten(1), pictures["perturbed"].flatten(1))
    assert terms["d"] == pytest.approx(1 - cosine.numpy(), abs=1e-4)
    torch.testing.assert_close(
        pictures["difference"] + 1, (pictures["perturbed"] - batch.pixels).abs(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    "params",
    [{"depth": 51}, {"until": 21}, {"depth": 0}, {"mode": "ata"}, {"lr": 0}, {"guidance": -1}, {"lambda_d": -1}],
)
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        IIP.Params(**params)
