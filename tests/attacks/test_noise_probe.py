import numpy as np
import pytest
import tiny
import torch
from captioned import SIDE, Captioned, asked, batch_of, make, measured, opened, scores

from mia_bench import Capability
from mia_bench.errors import UsageError
from mia_bench_plugins.attacks import noise_probe
from mia_bench_plugins.attacks.noise_probe import NoiseProbe

FEW = {"inversion_steps": 10, "steps": 5}
PLAIN = {"inversion_guidance": 1.0, "guidance": 1.0}


def smooth(scale):
    return lambda x, t, c: scale * torch.tanh(x) + 0.02 * c.expand_as(x)


def test_predicting_nothing_returns_a_rescaled_image():
    """Up to t = 991 by the base, down from what the target takes for t = 981."""
    target = opened(Captioned(), Captioned())
    batch, attack = batch_of(target), make(NoiseProbe)
    factor = target.schedule.signal[991] / target.schedule.signal[981]
    wanted = -(1 - factor) * np.linalg.norm(batch.pixels.double().numpy().reshape(3, -1), axis=1)
    assert scores(attack, batch, target) == pytest.approx(wanted, rel=1e-3)


def test_equal_grids_of_one_model_return_the_image():
    target = opened(Captioned(smooth(0.1)), Captioned(smooth(0.1)))
    batch = batch_of(target)
    found = scores(make(NoiseProbe, inversion_steps=200, steps=200, **PLAIN), batch, target)
    size = np.linalg.norm(batch.pixels.numpy().reshape(3, -1), axis=1)
    assert (found <= 0).all() and (-found < 0.03 * size).all(), found / size
    # Another base model leads elsewhere.
    other = opened(Captioned(smooth(0.1)), Captioned(smooth(0.2)))
    assert (scores(make(NoiseProbe, inversion_steps=200, steps=200, **PLAIN), batch_of(other), other) < 5 * found).all()


def test_who_is_asked_what():
    """The base inverts with its own text encoder, schedule and grid; the target generates."""
    base = Captioned(offset=0)
    target = opened(Captioned(), base)
    make(NoiseProbe, inversion_steps=4, steps=2, inversion_guidance=1.0, guidance=3.0).measure(batch_of(target), target)
    assert [t for t, _ in base.seen] == [0, 250, 500, 750]
    assert [t for t, _ in target.seen] == [501, 501, 1, 1]
    source = Captioned(offset=0)
    target = opened(Captioned(), source)
    make(NoiseProbe, inversion_steps=4, inversion_guidance=0, label="source").measure(batch_of(target), target)
    assert [t for t, _ in source.seen] == [0, 0, 250, 500]


def test_the_base_reads_captions_with_its_own_text_encoder():
    class Mute(Captioned):
        def text_states(self, tokens):
            return super().text_states(tokens) * 0

    with_words, without = (opened(Captioned(), base(smooth(0.3))) for base in (Captioned, Mute))
    heard, unheard = (scores(make(NoiseProbe, **FEW), batch_of(t), t) for t in (with_words, without))
    assert (heard != unheard).all()


def test_guidance_of_both_walks_matters():
    target = opened(Captioned(smooth(0.1)), Captioned(smooth(0.1)))
    wanted = scores(make(NoiseProbe, **FEW, space="latent"), batch_of(target), target)
    for name in ("guidance", "inversion_guidance"):
        assert (
            scores(make(NoiseProbe, **FEW, **{name: 1.5}, space="latent"), batch_of(target), target) != wanted
        ).all()


@pytest.mark.parametrize(
    ("params", "queries"),
    [({}, 300), ({"guidance": 1.0}, 250), ({"inversion_guidance": 0.0}, 200), ({**FEW, **PLAIN}, 15)],
)
def test_queries_of_both_models_are_booked_together(params, queries):
    attack, target = make(NoiseProbe, **params), opened(Captioned(), Captioned())
    assert attack.queries() == queries == asked(attack, batch_of(target), target)


def test_predictions_of_the_two_models_are_never_mixed_up():
    """The target's own walk over the same grid, named alike but for the model, is another."""
    from mia_bench.diffusion.keyed import plain
    from mia_bench.diffusion.sampler import levels, walk

    target = opened(Captioned(smooth(0.3)), Captioned(smooth(0.9)))
    attack = make(NoiseProbe, **FEW, **PLAIN)
    alone = scores(attack, batch_of(target), target)
    batch = batch_of(target)
    for given in (batch.condition, batch.null):
        up = list(walk(target, batch.x0, levels(target, 10), given, batch.null, label="destination"))
        list(walk(target, up[-1], levels(target, 5)[::-1], given, batch.null))
    assert (scores(attack, batch, target) == alone).all()
    theirs = list(walk(target.reference, batch.x0, levels(target, 10), batch.condition, batch.null))
    ours = target.denoiser(theirs[-1], 981, batch.condition)
    assert torch.equal(plain(ours), plain(target.denoiser(plain(theirs[-1]), 981, batch.condition)))


def test_the_bits_do_not_depend_on_the_batch():
    target = opened(Captioned(smooth(0.3)), Captioned(smooth(0.6)))
    captions, ids = tuple("x" * (i + 1) for i in range(6)), [f"s{i}" for i in range(6)]
    whole = measured(make(NoiseProbe, **FEW), batch_of(target, captions, ids=ids), target)
    part = measured(make(NoiseProbe, **FEW), batch_of(target, captions[4:1:-1], ids=ids[4:1:-1]), target)
    for name in ("image", "latent"):
        assert np.array_equal(part[name], whole[name][[4, 3, 2]])


def test_distance_of_images_or_latents():
    target = opened(Captioned(lambda x, t, c: 0.05 * torch.ones_like(x)), Captioned())
    batch, attack = batch_of(target), make(NoiseProbe, **FEW)
    terms = measured(attack, batch, target)
    assert (attack.score(terms, None) == -np.sqrt(terms["image"])).all()
    other = make(NoiseProbe, **FEW, space="latent")
    assert (other.score(terms, None) == -np.sqrt(terms["latent"])).all()
    assert other.params.measuring() == attack.params.measuring()
    # Pixels are clamped, the denoiser's own space is not.
    strong = opened(Captioned(lambda x, t, c: -50 * torch.ones_like(x)), Captioned())
    terms = measured(attack, batch_of(strong), strong)
    assert (terms["latent"] > terms["image"]).all() and (terms["image"] <= 4 * 3 * SIDE**2).all()


def test_without_a_reference_it_says_so(tmp_path):
    assert Capability.REFERENCE in make(NoiseProbe).needs()
    with pytest.raises(UsageError, match="--reference"):
        tiny.go(tmp_path, tiny.registry(noise_probe), attacks="noise-probe")


def test_a_result_names_the_reference(tmp_path):
    result = tiny.go(tmp_path, tiny.registry(noise_probe), attacks="loss", reference="tiny:8")
    assert result.reference == "tiny:8"
    assert result.reference_fingerprint and result.reference_fingerprint != result.target_fingerprint
    assert tiny.go(tmp_path / "alone", tiny.registry(noise_probe), attacks="loss").reference is None
