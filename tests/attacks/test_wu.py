"""Wu et al.: one generation for all six, what each classifier sees of it, and whom it may learn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from captioned import SIDE, Captioned, asked, batch_of, make, measured, opened
from pydantic import ValidationError

from mia_bench import Access, Capability
from mia_bench.attack import PARTIAL, Measured
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.errors import NothingError, SampleError
from mia_bench.fit import TAG
from mia_bench.metrics import auc
from mia_bench.testing import TinyTarget
from mia_bench_plugins.attacks.wu_distance import WuIII, WuIIS
from mia_bench_plugins.attacks.wu_pixel import WuIIP, WuIP
from mia_bench_plugins.attacks.wu_semantic import WuIS, WuIV

SEMANTIC, UNTRAINED = (WuIS, WuIIS, WuIII, WuIV), (WuIIS, WuIII)
SIX = (WuIP, WuIIP, *SEMANTIC)
ALONE = {"guidance": 1.0, "steps": 5}


class Eye(Encoder):
    """An image is its mean colour, a caption its length three times, and every image shows a cat."""

    meta = EncoderMeta(name="eye", summary="", offers=frozenset({Offer.EMBED, Offer.TEXT, Offer.CAPTION}), source="")

    def weights(self):
        return {}

    def load(self, target):
        pass

    def embedded(self, images):
        return images.mean((2, 3))

    def worded(self, texts):
        return torch.tensor([[0.1 * len(t), 0.1, 0.0] for t in texts])

    def captioned(self, images):
        return ["a cat"] * len(images)


class Painter(Captioned):
    """Knows which grey image belongs to a caption: a tenth of its length."""

    def predict(self, x, t, encoder_hidden_states):
        signal, noise = float(self.schedule.signal[int(t[0])]), float(self.schedule.noise[int(t[0])])
        return (x - signal * self.grey(encoder_hidden_states.view(-1, 1, 1, 1))) / noise

    def grey(self, length):
        return 0.1 * length


def with_eye(target):
    target.encoders = {"eye": Eye()}
    return opened(target)


@pytest.fixture
def painter():
    return with_eye(Painter())


def of(cls, **params):
    return make(cls, **({"encoder": "eye"} if cls in SEMANTIC else {}), **params)


# One generation -----------------------------------------------------------------------------------------------------


def test_six_attacks_ask_for_600_queries_and_100_run(make_batch, emoji_samples):
    pictures = []

    class Target(TinyTarget):
        def picture(self, latents):
            pictures.append(len(latents))
            return super().picture(latents)

    target = Target()
    target.encoders = {"eye": Eye()}
    target.open(rows=4)
    batch = make_batch(target, emoji_samples[:2])
    for cls in SIX:
        of(cls).measure(batch, target)
    assert target.denoiser.asked[""] == 600 * 2 and target.denoiser.executed == 100 * 2
    assert len(pictures) == 1
    for cls in SIX:
        of(cls).artifacts(batch, target)
    assert target.denoiser.executed == 100 * 2, "pictures are shown of what was made already"
    of(WuIP, draw=1).measure(batch, target)
    assert target.denoiser.executed == 200 * 2, "another draw is another image"


@pytest.mark.parametrize("cls", SIX)
@pytest.mark.parametrize(
    ("params", "queries"), [({}, 100), ({"guidance": 1.0}, 50), ({"guidance": 0.0}, 50), ({"steps": 7}, 14)]
)
def test_queries(painter, cls, params, queries):
    attack = of(cls, **params)
    assert attack.queries() == queries == asked(attack, batch_of(painter), painter)


@pytest.mark.parametrize("cls", SIX)
def test_the_quick_preset_is_cheap(cls):
    attack = make(cls, **cls.presets["quick"])
    assert attack.queries() <= 100 and attack.params.samples < 100


@pytest.mark.parametrize("cls", SIX)
def test_only_generated_images_are_needed(cls):
    assert cls.meta.access == Access.IMAGES and of(cls).needs() == {Capability.GENERATE, Capability.CAPTION}


@pytest.mark.parametrize(("guidance", "factor"), [(1.0, 1.0), (3.0, 3.0)])
def test_pixels_by_hand(painter, guidance, factor):
    """Guided away from black, the painter puts w times the caption's grey."""
    batch = batch_of(painter)
    grey = factor * 0.1 * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    made = measured(of(WuIP, steps=5, guidance=guidance), batch, painter)["pixels"]
    assert made.shape == (3, 3, SIDE, SIDE) and made == pytest.approx(np.broadcast_to(grey, made.shape), abs=0.06)
    assert (made + 1) * 127.5 == pytest.approx(np.round((made + 1) * 127.5), abs=1e-4), "256 levels"
    error = measured(of(WuIIP, steps=5, guidance=guidance), batch, painter)["pixels"]
    assert error == pytest.approx((batch.pixels - grey).abs().numpy(), abs=0.06) and (error >= 0).all()


@pytest.mark.parametrize("cls", [WuIP, WuIIP])
def test_pixels_are_resized_before_they_are_kept(painter, cls):
    assert measured(of(cls, **ALONE, side=8), batch_of(painter), painter)["pixels"].shape == (3, 3, 8, 8)


def test_embeddings_by_hand(painter):
    batch = batch_of(painter)
    made = painter.generate(batch, ["a", "bb", "ccc"], steps=5, guidance=1.0)
    terms = measured(of(WuIV, **ALONE), batch, painter)
    wanted = {"generated": made.mean((2, 3)), "original": batch.pixels.mean((2, 3))}
    assert all(np.allclose(terms[name], values, atol=1e-6) for name, values in wanted.items())
    assert np.allclose(terms["caption"], [[0.1, 0.1, 0], [0.2, 0.1, 0], [0.3, 0.1, 0]])
    for cls in (WuIS, WuIIS, WuIII):
        own = measured(of(cls, **ALONE), batch, painter)
        assert set(own) < set(terms) and all(np.array_equal(own[name], terms[name]) for name in own)


def test_the_bits_do_not_depend_on_the_batch(make_batch, emoji_samples):
    target = TinyTarget()
    target.encoders = {"eye": Eye()}
    target.open(rows=4)
    for attack in (of(WuIP, steps=2, side=20), of(WuIIP, steps=2), of(WuIV, steps=2)):
        whole = attack.measure(make_batch(target, emoji_samples[:6]), target)
        part = attack.measure(make_batch(target, emoji_samples[:6][::-1][1:4]), target)
        assert all(torch.equal(part[name], whole[name][[4, 3, 2]]) for name in whole)


@pytest.mark.parametrize("cls", SIX)
def test_artifacts(painter, cls):
    batch = batch_of(painter)
    shown = of(cls, **ALONE).artifacts(batch, painter)
    assert list(shown) == ["original", "generated", "difference"]
    assert all(p.shape == (3, 3, SIDE, SIDE) and p.min() >= -1 and p.max() <= 1 for p in shown.values())
    assert torch.equal(shown["original"], batch.pixels)
    assert torch.allclose(shown["difference"] + 1, (shown["original"] - shown["generated"]).abs(), atol=1e-6)


# Captions -----------------------------------------------------------------------------------------------------------


def test_captions_true_or_generated(painter):
    batch = batch_of(painter)
    written = {"captions": "generated", "captioner": "eye"}
    true, made = (measured(of(WuIP, **ALONE, **given), batch, painter) for given in ({}, written))
    assert len(set(true["pixels"].mean((1, 2, 3)).round(1))) == 3
    assert made["pixels"] == pytest.approx(0.1 * len("a cat"), abs=0.06)
    read = measured(of(WuIII, **ALONE, **written), batch, painter)
    assert np.allclose(read["caption"], [0.5, 0.1, 0.0]), "III reads what was drawn"


def test_only_encoders_that_are_used_are_named():
    everything = {Offer.EMBED, Offer.TEXT, Offer.CAPTION}
    assert WuIP().encoders() == {} and WuIS().encoders() == {"blip": {Offer.EMBED}}
    assert WuIII().encoders() == WuIV().encoders() == {"blip": {Offer.EMBED, Offer.TEXT}}
    assert WuIIP(WuIIP.Params(captions="generated")).encoders() == {"blip": {Offer.CAPTION}}
    assert WuIV(WuIV.Params(captions="generated")).encoders() == {"blip": everything}
    two = WuIS(WuIS.Params(captions="generated", captioner="eye", encoder="clip"))
    assert two.encoders() == {"eye": {Offer.CAPTION}, "clip": {Offer.EMBED}}


@pytest.mark.parametrize("missing", [None, ""])
def test_a_sample_without_a_caption_needs_one_written(painter, missing):
    batch = batch_of(painter, ("a", missing))
    with pytest.raises(SampleError, match="'s1': it has no caption"):
        of(WuIS, **ALONE).measure(batch, painter)
    written = of(WuIS, **ALONE, captions="generated", captioner="eye")
    assert len(measured(written, batch, painter)["generated"]) == 2


# Scores -------------------------------------------------------------------------------------------------------------


def terms(n=40, cal=24, seed=0, informative=True):
    """Members are drawn lighter, and nearer to the original, which is also what the caption says."""
    rng, member = np.random.default_rng(seed), np.arange(n) % 2 == 0
    shift = 1.5 * (member & informative)
    original = rng.normal(size=(n, 4)) * 0.1 + [1, 0, 0, 0]
    generated = original + rng.normal(size=(n, 4)) * np.where(member & informative, 0.1, 1.0)[:, None]
    generated[~member, 3] += 2 * informative
    pixels = rng.normal(size=(n, 3, 8, 8)) + shift[:, None, None, None]
    given = {"original": original, "generated": generated, "caption": original, "pixels": pixels}
    ids = tuple(f"s{i:02}" for i in range(n))
    everything = Measured(given, ids, np.arange(n) >= cal, ids)
    return everything, replace(everything.select(np.arange(n) < cal), member=member[:cal]), member


def small(cls, **params):
    return of(cls, **({"stages": 1} if cls not in SEMANTIC else {}), **{"epochs": 6, "rate": 1e-2, **params})


@pytest.mark.parametrize("cls", SIX)
def test_it_learns_from_the_calibration_set(cls):
    everything, calibration, member = terms()
    found = small(cls, epochs=40 if cls in SEMANTIC else 6).score(everything, calibration)
    assert found.tags == (PARTIAL, TAG)
    for part in (everything.audit, ~everything.audit):  # calibration samples are scored out of fold
        assert auc(found.values[part], member[part]) > 0.85


@pytest.mark.parametrize("cls", SIX)
def test_a_score_does_not_depend_on_other_audited_samples(cls):
    everything, calibration, _ = terms()
    attack, kept = small(cls, epochs=2), np.arange(40) < 26
    others = {name: np.where(kept.reshape(-1, *[1] * (v.ndim - 1)), v, 9 * v + 1) for name, v in everything.items()}
    once, again = (attack.score(replace(everything, terms=t), calibration).values for t in (everything.terms, others))
    assert np.array_equal(once[:26], again[:26]) and not np.array_equal(once[26:], again[26:])


@pytest.mark.parametrize("cls", [WuIP, WuIV])
def test_out_of_fold_scores_of_noise_are_chance(cls):
    everything, calibration, member = terms(n=100, cal=100, informative=False)
    found = small(cls).score(everything, calibration).values
    assert abs(auc(found, member) - 0.5) < 0.2


@pytest.mark.parametrize("cls", SIX)
def test_scores_are_fixed_by_the_seed(cls):
    everything, calibration, _ = terms()
    once, again, other = (small(cls, epochs=1, seed=s).score(everything, calibration).values for s in (0, 0, 1))
    assert np.array_equal(once, again) and not np.array_equal(once, other)


@pytest.mark.parametrize("cls", [WuIP, WuIS])
def test_inputs_are_standardised_on_the_fitted_rows(cls):
    features = np.random.default_rng(0).normal(size=(20, 3, 4, 4) if cls is WuIP else (20, 3))
    member, attack = np.arange(20) % 2 == 0, small(cls, epochs=2)
    scale = np.array([2.0, 100.0, 0.001]).reshape(3, *[1] * (features.ndim - 2))
    plain, scaled = (
        attack.fit(features, member)(features),
        attack.fit(features * scale - 7, member)(features * scale - 7),
    )
    assert scaled == pytest.approx(plain, abs=1e-3) and plain.std() > 0.1
    assert not np.allclose(attack.fit(features, member)(9 * features), plain)


def test_scores_are_logits():
    """Where nothing tells samples apart, cross-entropy settles at the log-odds of the classes."""
    member = np.arange(64) < 48
    found = of(WuIS, epochs=100, rate=0.02).fit(np.ones((64, 2)), member)(np.ones((1, 2)))
    assert found == pytest.approx(np.log(3), abs=0.01)


def test_what_ii_iii_and_iv_hand_to_the_classifier():
    everything, _, _ = terms()
    x, made, caption = (everything[name] for name in ("original", "generated", "caption"))
    length = np.sqrt(((x - made) ** 2).sum(1))
    cosine = (caption * made).sum(1) / np.sqrt((caption**2).sum(1) * (made**2).sum(1))
    assert np.allclose(of(WuIIS).features(everything)[:, 0], length)
    assert np.allclose(of(WuIIS, error="difference").features(everything), x - made)
    assert np.allclose(of(WuIII).features(everything)[:, 0], cosine)
    assert np.allclose(of(WuIII, match="concatenation").features(everything), np.hstack([caption, made]))
    assert np.allclose(of(WuIV).features(everything), np.column_stack([made, length, cosine]))
    assert of(WuIV, error="difference", match="concatenation").features(everything).shape == (40, 4 + 4 + 8)


@pytest.mark.parametrize("cls", UNTRAINED)
def test_training_free_scores_need_no_labels(cls):
    everything, _, member = terms()
    for preset in ("training-free", "quick-training-free"):
        found = make(cls, **cls.presets[preset]).score(everything, None)
        assert found.tags == (PARTIAL,) and auc(found.values, member) > 0.9
    assert cls.meta.calibration == "optional"
    wanted = of(cls).features(everything)[:, 0] * (1 if cls is WuIII else -1)
    assert np.array_equal(found.values, wanted)
    other = of(cls, classifier="none", **({"error": "difference"} if cls is WuIIS else {"match": "concatenation"}))
    assert np.array_equal(other.score(everything, None).values, wanted), "whatever a classifier would see"


@pytest.mark.parametrize("cls", SIX)
def test_without_a_calibration_set_there_is_no_classifier(cls):
    everything, _, member = terms()
    if cls in UNTRAINED:
        found = of(cls).score(everything, None)
        assert found.tags == (PARTIAL, "training-free") and auc(found.values, member) > 0.9
        return
    with pytest.raises(NothingError, match="no calibration set"):
        of(cls).score(everything, None)
    assert cls.meta.calibration == "required"


@pytest.mark.parametrize("cls", UNTRAINED)
def test_of_a_model_that_draws_members_only_it_scores_members_higher(cls):
    """It knows the images of captions shorter than 4 and draws all others black."""

    class Overfitted(Painter):
        def grey(self, length):
            return torch.where(length < 4, 0.2 + 0.1 * length, 0.0)

    target = with_eye(Overfitted())
    batch = batch_of(target, [chr(97 + i) * (i + 1) for i in range(6)])
    true = torch.arange(1.0, 7.0).view(6, 1, 1, 1)
    batch._pixels = (0.2 + 0.1 * true).expand(6, 3, SIDE, SIDE).contiguous()

    def direction(grey):
        return torch.stack([grey.cos(), grey.sin()], dim=1)  # so that a cosine tells one grey from another

    target.encoders["eye"].worded = lambda texts: direction(torch.tensor([0.2 + 0.1 * len(t) for t in texts]))
    target.encoders["eye"].embedded = lambda images: direction(images.mean((1, 2, 3)))
    found = of(cls, **ALONE, classifier="none").score(measured(of(cls, **ALONE), batch, target), None).values
    assert found[:3].min() > found[3:].max()


@pytest.mark.parametrize("cls", SIX)
def test_other_training_needs_no_new_measurement(cls):
    other = {"epochs": 3, "rate": 0.1, "rows": 8, "seed": 4}
    other |= {"hidden": (9,)} if cls in SEMANTIC else {"stages": 2}
    other |= {"classifier": "none"} if cls in UNTRAINED else {}
    assert of(cls, **other).params.measuring() == of(cls).params.measuring()
    assert of(cls, draw=1).params.measuring() != of(cls).params.measuring()


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 3), ((65, 65), 7), ((224, 224), 7)])
def test_large_images_have_a_network_of_their_own(shape, size):
    network = of(WuIP, stages=1).network(np.zeros((1, 3, *shape)))
    assert next(network.parameters()).shape[-1] == size


def test_the_perceptron_has_three_layers():
    network = of(WuIS).network(np.zeros((5, 7)))
    assert [(m.in_features, m.out_features) for m in network if isinstance(m, torch.nn.Linear)] == [
        (7, 256),
        (256, 128),
        (128, 1),
    ]


@pytest.mark.parametrize(
    "params", [{"captions": "mine"}, {"steps": 0}, {"guidance": -1}, {"rows": 1}, {"hidden": ()}, {"hidden": (0,)}]
)
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        WuIS.Params(**params)
