"""What the bundled attacks do where the answer is known: closed forms, orderings, query counts, parameters."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mia_bench import Capability, Target, TargetMeta
from mia_bench.attack import Measured
from mia_bench.batch import Batch
from mia_bench.diffusion.captions import thirds, without_important
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.schedule import Schedule
from mia_bench.errors import SampleError
from mia_bench_plugins.attacks.clid import RATES, CLiD, best_alpha
from mia_bench_plugins.attacks.loss import Loss
from mia_bench_plugins.attacks.mc import MonteCarlo
from mia_bench_plugins.attacks.pia import PIA
from mia_bench_plugins.attacks.pian import KAPPA, PIAN

ATTACKS = (Loss, MonteCarlo, PIA, PIAN, CLiD)
SIZE = 3 * 8 * 8


class Stub(Target):
    """A pixel-space target that predicts what a function says."""

    meta = TargetMeta(name="stub", summary="", kind="pixel", capabilities=frozenset({Capability.DENOISE}))
    image_size, sample_shape = 8, (3, 8, 8)

    def __init__(self, output, prediction="epsilon"):
        super().__init__()
        self.output, self.prediction = output, prediction

    def load(self):
        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000), self.prediction)

    def weights(self):
        return {}

    def predict(self, x, t, **states):
        return self.output(x, t)


def stub_batch(output, prediction="epsilon", b=3):
    """Samples whose x0 is all zero, on a stub."""
    target = Stub(output, prediction)
    target.open(rows=4)
    images = [Image.new("RGB", (8, 8))] * b
    ids = [f"s{i}" for i in range(b)]
    return Batch(ids, [None] * b, images, torch.zeros(b, 3, 8, 8), target, KeyedNoise(0)), target


def make(cls, kind="pixel", **params):
    return cls(cls.Params(**params).resolved(kind))


def measured(terms, audit=None, member=None):
    n = len(next(iter(terms.values())))
    ids = tuple(f"s{i}" for i in range(n))
    return Measured(terms, ids, np.ones(n, dtype=bool) if audit is None else audit, ids, member)


# Closed forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Loss, MonteCarlo])
def test_the_true_noise_has_no_loss(cls):
    # The clean images are 0 and the network predicts just that, so that the noise follows exactly.
    batch, target = stub_batch(lambda x, t: torch.zeros_like(x), "sample")
    for values in make(cls).measure(batch, target).values():
        assert (values < 1e-12).all()


def test_loss_of_predicting_nothing_is_the_noises_power():
    batch, target = stub_batch(lambda x, t: torch.zeros_like(x))
    eps = torch.Tensor(batch.eps(200)).double()
    for p in (1, 2, 4):
        found = make(Loss, p=p).measure(batch, target)["loss0"].double()
        assert torch.allclose(found, (eps.abs() ** p).mean(dim=(1, 2, 3)), rtol=1e-6)


def test_loss_repeats_are_kept_apart_and_averaged():
    batch, target = stub_batch(lambda x, t: torch.zeros_like(x))
    attack = make(Loss, repeats=3)
    terms = {k: v.double().numpy() for k, v in attack.measure(batch, target).items()}
    assert sorted(terms) == ["loss0", "loss1", "loss2"] and not np.allclose(terms["loss0"], terms["loss1"])
    assert attack.score(measured(terms), None) == pytest.approx(-np.mean(list(terms.values()), axis=0))


def test_pia_of_predicting_nothing_is_zero():
    batch, target = stub_batch(lambda x, t: torch.zeros_like(x))
    assert (make(PIA).measure(batch, target)["distance"] == 0).all()


@pytest.mark.parametrize("p", [1, 2, 4, 5])
def test_pia_of_a_constant_jump(p):
    batch, target = stub_batch(lambda x, t: torch.where(t == 0, 1.0, 3.0).view(-1, 1, 1, 1).expand_as(x))
    found = make(PIA, p=p).measure(batch, target)["distance"]
    assert found.numpy() == pytest.approx(np.full(3, SIZE * 2.0**p))


@pytest.mark.parametrize("kappa", ["normal", "paper"])
def test_pian_normalises_what_it_compares_with(kappa):
    batch, target = stub_batch(lambda x, t: torch.full_like(x, 3.0))
    found = make(PIAN, kappa=kappa).measure(batch, target)["distance"]
    assert found.numpy() == pytest.approx(np.full(3, SIZE * (3 - KAPPA[kappa]) ** 4), rel=1e-5)


def test_pian_noises_with_the_normalised_prediction():
    seen = []
    batch, target = stub_batch(lambda x, t: seen.append((t[0].item(), x.clone())) or torch.full_like(x, -5.0))
    make(PIAN).measure(batch, target)
    t, x = seen[-1]
    assert t == 200 and torch.allclose(x, torch.tensor(-KAPPA["normal"] * target.schedule.noise[200]).float())


def test_kappa_is_the_mean_magnitude_of_a_normal():
    noise = np.abs(np.random.default_rng(0).normal(size=10**6)).mean()
    assert KAPPA["normal"] == pytest.approx(noise, rel=5e-3)
    assert KAPPA["paper"] == pytest.approx(1 / KAPPA["normal"])


@pytest.mark.parametrize(
    ("cls", "name"), [(Loss, "loss0"), (MonteCarlo, "losses"), (PIA, "distance"), (PIAN, "distance")]
)
def test_smaller_errors_score_higher(cls, name):
    errors = np.array([[1.0], [3.0], [2.0]]) if name == "losses" else np.array([1.0, 3.0, 2.0])
    assert make(cls).score(measured({name: errors}), None).tolist() == [-1.0, -3.0, -2.0]


# CLiD ---------------------------------------------------------------------------------------------------------------


def losses(n=40, seed=0, t=3, k=5):
    """Made-up CLiD terms; members (the first half) are told by D more than by L."""
    rng = np.random.default_rng(seed)
    member = np.arange(n) < n // 2
    full = rng.normal(1.0 - 0.1 * member, 0.2)
    values = full[:, None] + np.concatenate([np.zeros((n, 1)), rng.normal(0.1 * member[:, None], 0.05, (n, k - 1))], 1)
    return np.repeat(values[:, None], t, axis=1), member


def test_empty_captions_have_no_discrepancy(emoji, emoji_samples, make_batch):
    batch = make_batch(emoji, emoji_samples[:2])
    batch.captions = ("", None)
    found = make(CLiD, "latent").measure(batch, emoji)["losses"]
    assert (found == found[:, :, :1]).all()


@pytest.mark.parametrize("attack", [CLiD, Loss])
def test_captions_matter(emoji, emoji_samples, make_batch, attack):
    batch = make_batch(emoji, emoji_samples[:2])
    with_captions = next(iter(make(attack, "latent").measure(batch, emoji).values()))
    batch.captions = ("", "")
    assert not torch.equal(next(iter(make(attack, "latent").measure(batch, emoji).values())), with_captions)


def test_alpha_zero_is_monte_carlo(emoji, emoji_samples, make_batch):
    batch = make_batch(emoji, emoji_samples[:6])
    clid, mc = make(CLiD, "latent", alpha=0), make(MonteCarlo, "latent")
    assert clid.params.t == mc.params.t
    terms = {k: v.double().numpy() for k, v in clid.measure(batch, emoji).items()}
    other = {k: v.double().numpy() for k, v in mc.measure(batch, emoji).items()}
    assert np.array_equal(terms["losses"][:, :, 0], other["losses"])
    score, wanted = clid.score(measured(terms), None).values, mc.score(measured(other), None)
    assert np.array_equal(np.argsort(score), np.argsort(wanted))


def test_alpha_one_is_the_discrepancy_alone():
    values, _ = losses()
    score = make(CLiD, alpha=1).score(measured({"losses": values}), None).values
    mean = values.mean(axis=1)
    assert np.array_equal(np.argsort(score), np.argsort(mean[:, 1:].mean(axis=1) - mean[:, 0]))


def test_without_calibration_the_scale_is_the_audit_sets():
    values, _ = losses()
    audit = np.arange(40) % 4 != 0
    found = make(CLiD).score(measured({"losses": values}, audit), None)
    assert found.tags == ("transductive",) and found.fitted == {"alpha": 0.9}
    alone = make(CLiD).score(measured({"losses": values[audit]}), None)
    assert found.values[audit] == pytest.approx(alone.values)


def test_with_calibration_the_scale_and_alpha_are_its_own():
    values, _ = losses()
    others, member = losses(seed=1)
    calibration = measured({"losses": others}, member=member)
    attack = make(CLiD)
    found = attack.score(measured({"losses": values}), calibration)
    assert found.tags == ()
    assert found.fitted["alpha"] == best_alpha(*attack.terms(calibration), calibration)
    # A score does not depend on the other samples.
    few = attack.score(measured({"losses": values[:3]}), calibration)
    assert few.values == pytest.approx(found.values[:3])
    fixed = make(CLiD, alpha=0.3).score(measured({"losses": values}), calibration)
    assert fixed.fitted == {"alpha": 0.3}


@pytest.mark.parametrize(("informative", "low", "high"), [("discrepancy", 1.0, 1.0), ("likelihood", 0.0, 0.2)])
def test_best_alpha_follows_the_informative_term(informative, low, high):
    rng, member = np.random.default_rng(0), np.arange(400) < 200
    terms = {"discrepancy": rng.normal(size=400), "likelihood": rng.normal(size=400)}
    terms[informative] = member + rng.normal(0, 0.01, 400)
    calibration = measured({"losses": np.zeros((400, 1, 2))}, member=member)
    assert low <= best_alpha(terms["discrepancy"], terms["likelihood"], calibration) <= high


@pytest.mark.parametrize("caption", ["", "a", "ab", "abc", "a red disc", "emoji \U0001f600 in words"])
def test_thirds_put_together_are_the_caption(caption):
    parts = thirds(caption)
    assert "".join(parts) == caption and len(parts) == 3
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_important_words_are_replaced():
    assert without_important("a b c d", (0.1, 0.4, 0.3, 0.2), RATES) == [
        "a <|endoftext|> <|endoftext|> d",
        "a <|endoftext|> <|endoftext|> d",
        "a <|endoftext|> <|endoftext|> <|endoftext|>",
    ]
    assert without_important("a b", (0.5, 0.5), RATES) == ["<|endoftext|> <|endoftext|>"] * 3  # ties are all replaced
    assert without_important("a", (0.5,), RATES) == ["<|endoftext|>"] * 3


@pytest.mark.parametrize("weights", [None, (0.5,), (0.1, 0.2, 0.3)])
def test_importance_needs_a_weight_for_each_word(emoji, emoji_samples, make_batch, weights):
    batch = make_batch(emoji, emoji_samples[:1])
    batch.captions, batch.word_weights = ("two words",), (weights,)
    with pytest.raises(SampleError, match="word"):
        make(CLiD, "latent", reduction="importance").measure(batch, emoji)


# Queries ------------------------------------------------------------------------------------------------------------

PRESETS = [(cls, preset) for cls in ATTACKS for preset in ["", *cls.presets]]


def label(cls, preset):
    return cls.meta.name + (f"@{preset}" if preset else "")


@pytest.fixture
def captioned(emoji, emoji_samples, make_batch):
    samples = [s for s in emoji_samples if len(s.caption or "") >= 6][:3]
    batch = make_batch(emoji, samples)
    batch.word_weights = tuple(tuple(np.arange(len(c.split(" "))) + 1.0) for c in batch.captions)
    return batch


@pytest.mark.parametrize(("cls", "preset"), PRESETS, ids=[label(*p) for p in PRESETS])
def test_queries_asked_are_queries_declared(emoji, captioned, cls, preset):
    attack, name = make(cls, "latent", **cls.presets.get(preset, {})), label(cls, preset)
    emoji.denoiser.asked.clear()
    with emoji.denoiser.asked_by(name):
        terms = attack.measure(captioned, emoji)
    assert emoji.denoiser.asked == {name: attack.queries() * len(captioned)}
    for values in terms.values():
        assert len(values) == len(captioned) and values.isfinite().all()


def test_repeats_are_queries(emoji, captioned):
    attack = make(Loss, "latent", repeats=4)
    emoji.denoiser.asked.clear()
    attack.measure(captioned, emoji)
    assert emoji.denoiser.asked[""] == attack.queries() * len(captioned) == 4 * len(captioned)


def test_what_attacks_have_in_common_is_run_once(emoji, captioned):
    b, denoiser = len(captioned), emoji.denoiser
    spent = []
    for cls in (CLiD, MonteCarlo, Loss, PIA, PIAN):
        before = denoiser.executed
        make(cls, "latent").measure(captioned, emoji)
        spent.append(denoiser.executed - before)
    # M.C. is CLiD's full caption, Loss its middle timestep; PIAN shares PIA's clean query.
    assert spent == [15 * b, 0, 0, 2 * b, b]


# Parameters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "pixel", "latent"),
    [
        (Loss, 200, 450),
        (PIA, 200, 500),
        (PIAN, 200, 500),
        (MonteCarlo, (190, 200, 210), (440, 450, 460)),
        (CLiD, (440, 450, 460), (440, 450, 460)),
    ],
)
def test_timesteps_by_kind_of_target(cls, pixel, latent):
    assert cls.Params().resolved("pixel").t == pixel
    assert cls.Params().resolved("latent").t == latent
    given = (7,) if isinstance(pixel, tuple) else 7
    assert cls.Params(t=given).resolved("latent").t == given


REFUSED = [
    (Loss, {"t": -1}),
    (Loss, {"t": 1000}),
    (Loss, {"repeats": 0}),
    (Loss, {"p": 0}),
    (Loss, {"p": 2.5}),
    (MonteCarlo, {"t": ()}),
    (MonteCarlo, {"t": (440, 1000)}),
    (MonteCarlo, {"t": (-1,)}),
    (PIA, {"t": 1000}),
    (PIA, {"p": 0}),
    (PIA, {"p": 17}),
    (PIAN, {"kappa": "other"}),
    (PIAN, {"p": -1}),
    (CLiD, {"t": ()}),
    (CLiD, {"t": (450, 1000)}),
    (CLiD, {"alpha": 1.5}),
    (CLiD, {"alpha": -0.1}),
    (CLiD, {"reduction": "blur"}),
    *[(cls, {"tt": 1}) for cls in ATTACKS],
]


@pytest.mark.parametrize(("cls", "params"), REFUSED)
def test_bad_parameters_are_refused(cls, params):
    with pytest.raises(ValidationError):
        cls.Params(**params)


@pytest.mark.parametrize("cls", ATTACKS)
def test_parameters_are_frozen(cls):
    with pytest.raises(ValidationError):
        cls.Params().t = 3


def test_alpha_needs_no_new_measurement():
    assert CLiD.Params(alpha=0.5).measuring() == CLiD.Params().measuring()
    assert CLiD.Params(reduction="null").measuring() != CLiD.Params().measuring()


@pytest.mark.parametrize(("cls", "preset"), PRESETS, ids=[label(*p) for p in PRESETS])
def test_presets_are_valid_and_change_something(cls, preset):
    params = cls.Params(**cls.presets.get(preset, {})).resolved("latent")
    assert (params == cls.Params().resolved("latent")) == (preset == "")
