import numpy as np
import pytest
import torch

from mia_bench.diffusion.keyed import keys_of
from mia_bench.diffusion.noise import KeyedNoise, SaltedNoise


@pytest.fixture
def made(emoji, emoji_samples, make_batch):
    return make_batch(emoji, emoji_samples[:3])


def test_shapes(made, emoji):
    assert made.x0.shape == (3, *emoji.sample_shape) and made.pixels.shape == (3, 3, 32, 32)
    assert made.eps(450).shape == (3, 4, 16, 16) and made.eps([440, 450]).shape == (3, 2, 4, 16, 16)
    assert len(made) == 3


def test_made_once(made):
    assert made.x0 is made.x0 and made.eps(450) is made.eps(450) and made.eps([1, 2]) is made.eps((1, 2))
    assert made.encode(made.pixels, "crop") is not made.x0


def test_noise_of_a_grid_is_the_noise_of_its_timesteps(made):
    grid = made.eps((440, 450), draw=1)
    for j, t in enumerate((440, 450)):
        assert torch.equal(grid[:, j], made.eps(t, draw=1)) and keys_of(grid)[j] == keys_of(made.eps(t, draw=1))[()]
    assert not torch.equal(made.eps(450), made.eps(450, draw=1))


def test_many_draws_are_each_their_own(made, emoji):
    grid = made.eps(450, (0, 3))
    assert grid.shape == (3, 2, 4, 16, 16) and made.eps(450, range(1)).shape == (3, 1, 4, 16, 16)
    noised = emoji.schedule.noised(made.x0, grid, 450)
    for j, draw in enumerate((0, 3)):
        one = made.eps(450, draw)
        assert torch.equal(grid[:, j], one) and keys_of(grid)[j] == keys_of(one)[()]
        alone = emoji.schedule.noised(made.x0, one, 450)
        assert torch.equal(noised[:, j], alone) and keys_of(noised)[j] == keys_of(alone)[()]


@pytest.mark.parametrize("first", [np.int64(450), 450, [450]])
def test_numpy_timestep_is_a_timestep(made, first):
    made.eps(first)
    assert made.eps(np.int64(450)).shape == made.eps(450).shape == (3, 4, 16, 16)
    assert made.eps([450]).shape == (3, 1, 4, 16, 16)


def test_batches_never_share(emoji, emoji_samples, make_batch):
    # Two batches on one target without `forget` in between: equal captions, other images.
    whole = make_batch(emoji, emoji_samples[:2])
    parts = [whole.single(0), whole.single(1)]
    for batch in (whole, *parts):
        batch.captions = ("",) * len(batch)
    before = emoji.denoiser.executed
    ask = [(torch.Tensor(emoji.denoiser(b.x0, 0, b.condition)), torch.Tensor(b.eps(450))) for b in (whole, *parts)]
    for i in range(2):
        assert torch.equal(ask[1 + i][0][0], ask[0][0][i])
        assert torch.equal(ask[1 + i][1][0], ask[0][1][i])
    assert not torch.equal(ask[1][0], ask[2][0])
    assert emoji.denoiser.executed - before == 4


def test_independent_noise_leaves_latents_common(emoji_samples, make_emoji, make_batch):
    target = make_emoji(latent="sample")
    own, common = (make_batch(target, emoji_samples[:2]) for _ in range(2))
    own.noise = SaltedNoise(common.noise, "pia")
    assert torch.equal(own.x0, common.x0)
    assert torch.equal(own.encode(own.pixels, "crop"), common.encode(common.pixels, "crop"))
    assert not torch.equal(own.x0, own.encode(own.pixels, "crop"))
    assert not torch.equal(own.eps(450), common.eps(450))


def test_posterior_samples_are_seeded(emoji_samples, make_emoji, make_batch):
    target = make_emoji(latent="sample")
    one, same, other = (make_batch(target, emoji_samples[:2], KeyedNoise(s)).x0 for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_latents_can_enter_a_graph(made):
    weight = torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad((made.x0 * weight).sum(), weight)
    assert gradient.item() == pytest.approx(float(torch.Tensor(made.x0).sum()), rel=1e-4)


def test_captions_cannot_be_confused(emoji):
    assert emoji.condition(["a\x1fb", "c"]).key != emoji.condition(["a", "b\x1fc"]).key
    assert emoji.condition(["a", "b"]).key == emoji.condition(["a", "b"]).key != emoji.condition(["b", "a"]).key


def test_missing_captions_are_empty(emoji, made):
    made.captions = (None, "", None)
    assert made.condition.key == made.null.key == emoji.condition([""] * 3).key


def test_a_view_needs_a_name_of_its_own(made):
    made.encode(made.pixels.flip(-1), "mirror")
    assert made.encode(made.pixels.flip(-1), "mirror") is made.encode(made.pixels.flip(-1), "mirror")
    made.check_unchanged()
    made.encode(made.pixels.flip(-2), "mirror")
    with pytest.raises(ValueError, match="'mirror' needs a name of its own"):
        made.check_unchanged()
    made.check_unchanged()  # said once, of who did it
    with pytest.raises(ValueError, match="name of its own"):
        made.encode(-made.pixels, "")


def test_changes_through_views_are_noticed(made, emoji):
    x0 = made.x0
    before, view = x0.clone(), x0[:1]
    view.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        emoji.denoiser(x0, 0, made.condition)
    with pytest.raises(RuntimeError, match="changed in place"):
        made.check_unchanged()
    assert torch.equal(made.x0, before)
