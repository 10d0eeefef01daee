import numpy as np
import pytest
import torch
from captioned import Captioned, asked, batch_of, make, opened, scores
from pydantic import ValidationError

from mia_bench.diffusion.ssim import ssim
from mia_bench_plugins.attacks.structural import Structural, unit


def by_caption(x, t, c):
    return 0.1 * x + 0.1 * c.expand_as(x)


@pytest.mark.parametrize("params", [{}, {"t": 300, "stride": 70}, {"t": 30}])
def test_a_denoiser_that_predicts_nothing_only_dims_the_image(params):
    target = opened(Captioned())
    batch, attack = batch_of(target), make(Structural, **params)
    dimmed = batch.pixels * float(target.schedule.signal[attack.params.t] / target.schedule.signal[0])
    found = scores(attack, batch, target)
    assert found == pytest.approx(ssim((batch.pixels + 1) / 2, (dimmed + 1) / 2).numpy(), abs=1e-5)
    assert (found > 0).all() and (found < 1).all()


def test_less_is_left_the_further_it_goes():
    target = opened(Captioned(lambda x, t, c: torch.sin(40 * x)))
    found = np.array([scores(make(Structural, t=t), batch_of(target), target) for t in (50, 100, 200, 400)])
    assert (np.diff(found, axis=0) < 0).all()


def test_a_denoiser_that_keeps_the_image_scores_higher():
    """Two denoisers, one for each kind of sample: the one that adds less texture leaves more structure."""
    gentle, rough = (opened(Captioned(lambda x, t, c, k=k: k * torch.sin(40 * x))) for k in (0.1, 1.0))
    attack = make(Structural)
    assert (scores(attack, batch_of(gentle), gentle) > scores(attack, batch_of(rough), rough)).all()


@pytest.mark.parametrize(
    ("params", "told"),
    [({}, [50, 100]), ({"label": "source"}, [0, 50]), ({"t": 120, "label": "source"}, [0, 50, 100])],
)
def test_two_moves_to_100(params, told):
    target = opened(Captioned())
    make(Structural, **params).measure(batch_of(target), target)
    assert [t for t, _ in target.seen] == told


def test_what_it_is_conditioned_on():
    target = opened(Captioned(by_caption))
    own, null = (scores(make(Structural, prompt=p), batch_of(target), target) for p in ("caption", "null"))
    assert (own != null).all()
    empty = batch_of(target, ("", None, ""))
    assert (scores(make(Structural), empty, target) == null).all()


def test_decoded_as_it_is_and_clamped(emoji, emoji_samples, make_batch):
    batch = make_batch(emoji, emoji_samples[:3])
    attack = make(Structural)
    x, given = batch.x0, batch.condition
    for t, to in ((0, 50), (50, 100)):
        x = emoji.schedule.jump(x, emoji.denoiser(x, to, given), t, to)
    wanted = ssim((batch.pixels + 1) / 2, ((emoji.decode(x) + 1) / 2).clamp(0, 1))
    assert torch.equal(attack.measure(batch, emoji)["ssim"], wanted)
    assert unit(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_the_bits_do_not_depend_on_the_batch(emoji, emoji_samples, make_batch):
    attack = make(Structural)
    whole = attack.measure(make_batch(emoji, emoji_samples[:6]), emoji)["ssim"]
    part = attack.measure(make_batch(emoji, emoji_samples[:6][::-1][1:4]), emoji)["ssim"]
    assert torch.equal(part, whole[[4, 3, 2]])


def test_without_captions_at_all():
    from tiny import TinyWithoutCaptions

    target = TinyWithoutCaptions()
    target.picture = lambda latents: torch.nn.functional.interpolate(latents[:, :3], scale_factor=4)
    target.open(rows=4)
    batch = batch_of(target)
    batch._pixels = torch.nn.functional.interpolate(batch._pixels, (32, 32))
    assert np.isfinite(scores(make(Structural), batch, target)).all()


@pytest.mark.parametrize(
    ("params", "queries"), [({}, 2), ({"prompt": "null"}, 2), ({"t": 101}, 3), ({"stride": 10}, 10)]
)
def test_queries(params, queries):
    attack, target = make(Structural, **params), opened(Captioned())
    assert attack.queries() == queries == asked(attack, batch_of(target), target)


@pytest.mark.parametrize("params", [{"t": 0}, {"t": 1000}, {"stride": 0}, {"prompt": "blip"}])
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        Structural.Params(**params)
