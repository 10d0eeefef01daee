"""CLiD's Gaussian reduction: noise on the text states, keyed to the sample."""

import pytest
import tiny
import torch

from mia_bench.diffusion.captions import disturbed
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench_plugins.attacks.clid import NOISES, CLiD
from mia_bench_plugins.attacks.mc import MonteCarlo


@pytest.fixture(scope="module")
def target():
    made = tiny.Tiny()
    made.open(rows=4)
    return made


def gaussian():
    return CLiD(CLiD.Params.model_validate(CLiD.presets["gaussian"]))


def states(condition):
    return condition.states["encoder_hidden_states"]


@pytest.mark.parametrize("scale", NOISES)
def test_noise_is_a_share_of_the_states_spread(target, make_batch, emoji_samples, scale):
    batch = make_batch(target, emoji_samples[:3])
    before, after = states(batch.condition), states(disturbed(batch, scale, 0))
    added = (after - before).flatten(1)
    spread = before.flatten(1).std(1, correction=0)
    assert torch.allclose(added / (scale * spread[:, None]), batch.draw("text", before.shape[1:]).flatten(1), atol=1e-5)
    assert torch.allclose(added.std(1) / spread, torch.full((3,), scale), rtol=0.3)


def test_no_noise_is_no_discrepancy(target, make_batch, emoji_samples):
    batch = make_batch(target, emoji_samples[:2])
    assert torch.equal(states(disturbed(batch, 0.0, 0)), states(batch.condition))


def test_it_measures_full_three_disturbed_and_null(target, make_batch, emoji_samples):
    batch, attack = make_batch(target, emoji_samples[:3]), gaussian()
    target.denoiser.asked.clear()
    found = attack.measure(batch, target)["losses"]
    assert found.shape == (3, 3, 5) and target.denoiser.asked[""] == 15 * 3 == attack.queries() * 3
    assert len({tuple(row) for row in found[0].T.tolist()}) == 5, "five different captions"
    clip = CLiD(CLiD.Params()).measure(batch, target)["losses"]
    assert torch.equal(found[:, :, [0, 4]], clip[:, :, [0, 4]]), "full and null are those of clipping"
    assert torch.equal(
        found[:, :, 0], MonteCarlo(MonteCarlo.Params().resolved("latent")).measure(batch, target)["losses"]
    )


def test_noise_belongs_to_the_sample_and_the_seed(target, make_batch, emoji_samples):
    attack = gaussian()
    whole = attack.measure(make_batch(target, emoji_samples[:3]), target)["losses"]
    turned = attack.measure(make_batch(target, emoji_samples[2::-1]), target)["losses"]
    assert torch.equal(turned.flip(0), whole)
    other = attack.measure(make_batch(target, emoji_samples[:3], KeyedNoise(1)), target)["losses"]
    assert not torch.isclose(other, whole).all()
