import numpy as np
import pytest
import torch
from captioned import SIDE, Captioned, asked, batch_of, make, measured, opened
from pydantic import ValidationError

from mia_bench import Capability
from mia_bench.attack import PARTIAL
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.testing import TinyTarget
from mia_bench_plugins.attacks.drc import DRC
from mia_bench_plugins.encoders.emoji import EmojiLpips
from mia_bench_plugins.targets.emoji import EmojiOvertrain


class Means(Encoder):
    """Embeds an image as its means over sixteen squares; attends to what is bright."""

    meta = EncoderMeta(name="means", summary="", offers=frozenset({Offer.DISTANCE, Offer.ATTENTION}), source="")

    def weights(self):
        return {}

    def load(self, target):
        pass

    def embedded(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def attended(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).sum(1) + 3


class Squares(Means):
    """No embedding, a distance: the mean square of the difference."""

    meta = EncoderMeta(name="squares", summary="", offers=frozenset({Offer.DISTANCE}), source="")

    def between(self, images, others):
        return (images - others).square().mean((1, 2, 3))


FEW = {"roi": "centre", "encoder": "squares", "steps": 5}
REPAINT = {**FEW, "steps": 7, "resamples": 2, "jump": 2}


def wobble(x, t, c):
    return 0.3 * torch.tanh(3 * x) + 0.02 * c.expand_as(x)


def ready(target):
    target.encoders = {"means": Means(), "squares": Squares(), "dino": Means()}
    return opened(target)


@pytest.fixture(scope="module")
def small_emoji(make_emoji):
    """Of few rows, for few samples."""
    return make_emoji(rows=2)


# Degrade ------------------------------------------------------------------------------------------------------------


def test_what_is_hidden():
    """Half of the area: where the encoder looks, where colours vary, or the middle."""
    target = ready(Captioned())
    batch = batch_of(target)
    batch._pixels[:] = -0.5
    batch._pixels[0, :, :, SIDE // 2 :] = 0.5  # bright on the right
    batch._pixels[1, :, : SIDE // 2 - 4, ::2] = 0.5  # stripes above, in reach of whose lower border it varies too
    hidden = {roi: make(DRC, roi=roi).hidden(batch, target)[:, 0] for roi in ("attention", "variance", "centre")}
    assert all(h.shape == (3, SIDE, SIDE) and (h.flatten(1).sum(1) == SIDE**2 // 2).all() for h in hidden.values())
    assert hidden["attention"][0, :, SIDE // 2 :].all()
    assert hidden["variance"][1, : SIDE // 2 - 3].all()
    assert hidden["centre"][:, 4:-4, 4:-4].all() and not hidden["centre"][:, 0].any()
    quarter = make(DRC, roi="centre", ratio=0.25).hidden(batch, target)
    assert quarter[0, 0].sum() == SIDE**2 // 4 and quarter[0, 0, 4:-4, 4:-4].all()


@pytest.mark.parametrize("params", [FEW, REPAINT])
def test_nothing_hidden_reaches_the_restoration_in_latent_space(emoji_samples, small_emoji, make_batch, params):
    """Other pixels in the region, under the same mask, noise and id: the same restoration, bit for bit."""
    attack = DRC(DRC.Params(**params))

    def restored(shift, part):
        batch = make_batch(small_emoji, emoji_samples[:2])
        hidden = attack.hidden(batch, small_emoji)
        batch._pixels = batch.pixels - shift * (hidden if part == "hidden" else ~hidden)
        return attack.restored(batch, small_emoji, hidden, 0), hidden

    wanted, hidden = restored(0, "hidden")
    assert torch.equal(restored(0.7, "hidden")[0], wanted)
    changed = restored(0.3, "known")[0] != wanted
    assert (changed & hidden).flatten(1).any(1).all(), "what is known decides what is made of the rest"


# Restore ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [FEW, REPAINT, {**FEW, "roi": "variance", "ratio": 0.3}])
def test_the_known_pixels_are_exact(emoji_samples, small_emoji, make_batch, params):
    batch = make_batch(small_emoji, emoji_samples[:2])
    attack = DRC(DRC.Params(**params))
    hidden = attack.hidden(batch, small_emoji)
    made = attack.restored(batch, small_emoji, hidden, 0)
    assert torch.equal(made.masked_select(~hidden), batch.pixels.masked_select(~hidden))
    assert (made != batch.pixels).masked_select(hidden).float().mean() > 0.9
    assert made.abs().max() <= 1 and made.shape == batch.pixels.shape


def test_a_model_that_knows_the_image_scores_higher():
    """A denoiser that knows the first sample's image by heart, and takes every other for it."""
    target = Captioned()
    ready(target)
    batch = batch_of(target)
    a, b = (torch.from_numpy(level).float() for level in (target.schedule.signal, target.schedule.noise))
    target.output = lambda x, t, c: (x - a[target.seen[-1][0]] * batch.pixels[:1]) / b[target.seen[-1][0]]
    for params in (FEW, REPAINT, {**FEW, "encoder": "means"}, {"encoder": "means", "saliency": "dino", "steps": 5}):
        for part in ("image", "hidden"):
            attack = make(DRC, **params, part=part)
            values = attack.score(measured(attack, batch, target), None).values
            assert values[0] > 0.99 and (values[1:] < values[0] - 0.01).all(), (params, part)


def test_latents_with_a_hidden_pixel_are_made_anew():
    """One grey pixel in the corner of a cell: the whole cell comes from the model, its other pixels from the image."""
    target = TinyTarget()
    target.encoders = {"squares": Squares()}
    target.open(rows=4)
    batch = batch_of(target)
    batch._pixels = torch.nn.functional.interpolate(batch._pixels, (32, 32))
    hidden = torch.zeros(3, 1, 32, 32, dtype=torch.bool)
    hidden[..., 5, 6] = True
    kept, decode = [], target.decode
    target.decode = lambda latents: kept.append(torch.Tensor(latents)) or decode(latents)
    DRC(DRC.Params(**FEW)).restored(batch, target, hidden, 0)
    differs = (kept[0] != target.encode(batch.pixels.masked_fill(hidden, 0))).any(1)
    assert (differs.sum((1, 2)) == 1).all() and differs[:, 1, 1].all()


def test_memorised_images_are_restored_better(emoji_samples, make_batch):
    """On the embedded target that saw its members, with their captions, again and again."""
    target = EmojiOvertrain()
    target.encoders = {"emoji-lpips": EmojiLpips()}
    target.open(rows=20)
    audit = [s for s in emoji_samples if s.split == "audit"]
    chosen = [s for m in (True, False) for s in [s for s in audit if s.member is m][:10]]
    attack = DRC(DRC.Params(**{**DRC.presets["quick"], "steps": 10}))
    values = attack.score(measured(attack, make_batch(target, chosen), target), None).values
    assert (values[:10, None] > values[None, 10:]).mean() > 0.65


# Compare ------------------------------------------------------------------------------------------------------------


def test_the_cosine_of_embeddings():
    target = ready(Captioned(wobble))
    batch, attack = batch_of(target), make(DRC, **{**FEW, "encoder": "means"})
    made = attack.restored(batch, target, attack.hidden(batch, target), 0)
    embedded = (target.encoders["means"].embed(x) for x in (batch.pixels, made))
    wanted = torch.nn.functional.cosine_similarity(*embedded)
    assert measured(attack, batch, target)["image"][:, 0] == pytest.approx(wanted.numpy(), abs=1e-6)


def test_the_whole_image_and_the_hidden_part_alone():
    target = ready(Captioned(wobble))
    batch, attack = batch_of(target), make(DRC, **FEW, ratio=0.25)
    terms = measured(attack, batch, target)
    assert terms["image"].shape == terms["hidden"].shape == (3, 1)
    made = attack.restored(batch, target, attack.hidden(batch, target), 0)
    difference = (made - batch.pixels).square().double()
    assert 1 - terms["image"][:, 0] == pytest.approx(difference.mean((1, 2, 3)).numpy(), rel=1e-4)
    window = (torch.nn.functional.interpolate(x[..., 4:12, 4:12], 16, mode="bilinear") for x in (made, batch.pixels))
    parts = torch.sub(*window).square().double().mean((1, 2, 3))
    assert 1 - terms["hidden"][:, 0] == pytest.approx(parts.numpy(), rel=1e-3)
    assert (attack.score(terms, None).values == terms["image"][:, 0]).all()
    other = make(DRC, **FEW, ratio=0.25, part="hidden")
    assert (other.score(terms, None).values == terms["hidden"][:, 0]).all()
    assert other.params.measuring() == attack.params.measuring()
    assert attack.score(terms, None).tags == (PARTIAL,)


def test_several_restorations_are_averaged():
    target = ready(Captioned(wobble))
    batch, attack = batch_of(target), make(DRC, **FEW, draws=3)
    terms = measured(attack, batch, target)
    assert terms["image"].shape == (3, 3) and len(np.unique(terms["image"])) == 9
    assert attack.score(terms, None).values == pytest.approx(terms["image"].mean(1))
    one = measured(make(DRC, **FEW), batch_of(target), target)
    assert (one["image"][:, 0] == terms["image"][:, 0]).all()


# Cost, needs, sharing -----------------------------------------------------------------------------------------------


CAPTION = {"prompt": "caption"}


@pytest.mark.parametrize(
    ("params", "queries"),
    [
        ({}, 50),
        (DRC.presets["quick"], 50),
        (DRC.presets["repaint"], 2410),
        ({"draws": 4, "steps": 25}, 100),
        ({"guidance": 7.5}, 50),
        (CAPTION, 50),
        ({**CAPTION, "guidance": 7.5}, 100),
        ({**CAPTION, "guidance": 0}, 50),
    ],
)
def test_queries_declared(params, queries):
    assert make(DRC, **params).queries() == queries


@pytest.mark.parametrize(
    "params",
    [{}, REPAINT, {"resamples": 3, "jump": 1}, {"resamples": 3, "jump": 9}, {**CAPTION, "guidance": 3.0}, {"draws": 2}],
)
def test_queries_asked(params):
    attack, target = make(DRC, **{**FEW, **params}), ready(Captioned(wobble))
    assert attack.queries() == asked(attack, batch_of(target), target)


def test_captions_are_read_on_demand():
    target = ready(Captioned(wobble))
    one, other = (
        [measured(make(DRC, **{**FEW, **p}), batch_of(target, c), target)["image"] for p in ({}, CAPTION)]
        for c in (("a", "bb", "ccc"), ("dddd", "eeeee", "ffffff"))
    )
    assert (one[0] == other[0]).all() and (one[1] != other[1]).all() and (one[0] != one[1]).all()
    assert Capability.CAPTION in make(DRC, **CAPTION).needs() and Capability.CAPTION not in make(DRC).needs()


def test_encoders_that_are_named():
    assert make(DRC).encoders() == {"dino": {Offer.ATTENTION, Offer.DISTANCE}}
    assert make(DRC, encoder="clip").encoders() == {"dino": {Offer.ATTENTION}, "clip": {Offer.DISTANCE}}
    assert make(DRC, roi="variance", encoder="clip").encoders() == {"clip": {Offer.DISTANCE}}


@pytest.mark.parametrize("saliency", ["dino", "means"])
def test_comparing_by_another_encoder_costs_no_query(saliency):
    target = ready(Captioned(wobble))
    batch, before = batch_of(target), target.denoiser.executed
    for encoder in ("dino", "squares", "means"):
        make(DRC, steps=5, saliency=saliency, encoder=encoder).measure(batch, target)
    assert target.denoiser.executed - before == 5 * len(batch)


@pytest.mark.parametrize("params", [FEW, REPAINT, {"steps": 5, "encoder": "means"}, {"steps": 5, "roi": "variance"}])
def test_the_bits_do_not_depend_on_the_batch(params):
    target = ready(Captioned(wobble))
    ids = [f"s{i}" for i in range(6)]
    attack = make(DRC, **params)
    whole = measured(attack, batch_of(target, tuple("abcdef"), ids=ids), target)
    part = measured(attack, batch_of(target, tuple("edc"), ids=ids[4:1:-1]), target)
    for name in ("image", "hidden"):
        assert np.array_equal(part[name], whole[name][[4, 3, 2]])


def test_an_unconditional_target():
    from tiny import TinyWithoutCaptions

    target = TinyWithoutCaptions()
    target.picture = lambda latents: torch.nn.functional.interpolate(latents[:, :3], scale_factor=4)
    target.encoders = {"squares": Squares()}
    target.open(rows=4)
    batch = batch_of(target)
    batch._pixels = torch.nn.functional.interpolate(batch._pixels, (32, 32))
    assert np.isfinite(measured(make(DRC, **FEW), batch, target)["image"]).all()


# Pictures -----------------------------------------------------------------------------------------------------------


def test_artifacts():
    target = ready(Captioned(wobble))
    batch, attack = batch_of(target), make(DRC, **FEW)
    attack.measure(batch, target)
    before = target.denoiser.executed
    found = attack.artifacts(batch, target)
    assert target.denoiser.executed == before
    assert list(found) == ["original", "degraded", "restored", "difference"]
    assert all(p.shape == batch.pixels.shape and p.abs().max() <= 1 for p in found.values())
    hidden = attack.hidden(batch, target).expand_as(batch.pixels)
    assert torch.equal(found["original"], batch.pixels)
    assert (found["degraded"][hidden] == 0).all() and (found["difference"][~hidden] == -1).all()
    torch.testing.assert_close(found["difference"] + 1, (found["restored"] - batch.pixels).abs())


@pytest.mark.parametrize(
    "params", [{"ratio": 0}, {"ratio": 1}, {"steps": 0}, {"resamples": 0}, {"draws": 0}, {"roi": "face"}, {"jump": 0}]
)
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        DRC.Params(**params)
