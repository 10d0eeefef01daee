import numpy as np
import pytest
import torch

from mia_bench.diffusion.regions import cells, centrality, cropped, highest, local_variance, resized


def images(b=5, side=16, seed=0):
    return torch.rand(b, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("share", "count"), [(0.25, 64), (0.5, 128), (0.001, 1), (0.999, 256), (0.7, 179)])
def test_the_highest_are_as_many_in_every_image(share, count):
    values = images()[:, 0]
    chosen = highest(values, share)
    assert chosen.dtype == torch.bool and (chosen.flatten(1).sum(1) == count).all()
    for one, where in zip(values, chosen, strict=True):
        assert count == one.numel() or one[where].min() > one[~where].max()


def test_of_equal_values_the_first_are_chosen():
    values = torch.tensor([[[1.0, 2.0], [1.0, 1.0]]])
    assert highest(values, 0.5).tolist() == [[[True, True], [False, False]]]


def test_local_variance_is_that_of_the_window():
    x = images(2, 8)
    found = local_variance(x, 3)
    for row, column in ((0, 0), (3, 4), (7, 2)):
        window = x[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].double().numpy()
        assert found[:, row, column].numpy() == pytest.approx(window.var(axis=(2, 3)).sum(axis=1), rel=1e-4)
    assert local_variance(torch.full((1, 3, 8, 8), 0.7), 3).abs().max() < 1e-6


@pytest.mark.parametrize(("size", "share", "edge"), [(16, 0.25, 4), (32, 0.5625, 4), (15, 0.36, 3)])
def test_the_centre_is_a_square(size, share, edge):
    chosen = highest(centrality(images(2, size)), share)
    wanted = torch.zeros(size, size, dtype=torch.bool)
    wanted[edge : size - edge, edge : size - edge] = True
    assert torch.equal(chosen, wanted.expand(2, -1, -1))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 8), (15, 3)])
def test_one_hidden_pixel_hides_its_cell(row, column):
    hidden = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    hidden[1, 0, row, column] = True
    found = cells(hidden, (4, 4))
    assert not found[0].any() and found[1].sum() == 1 and found[1, 0, row // 4, column // 4]
    assert torch.equal(cells(hidden, (16, 16)), hidden)


def test_a_crop_holds_the_region_and_no_more():
    x, region = images(3), torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    region[0, 0, 2:6, 4:12] = True
    region[1, 0, 3, 5] = True
    region[2] = True
    found = cropped(x, region)
    assert found.shape == x.shape and torch.equal(found[2], x[2])
    assert torch.equal(found[0], resized(x[:1, :, 2:6, 4:12], (16, 16))[0])
    torch.testing.assert_close(found[1], x[1, :, 3, 5][:, None, None].expand(3, 16, 16))
    outside = x.masked_fill(region, 0)
    assert torch.equal(cropped(x + outside, region)[0], found[0])


def test_resizing_is_bilinear():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert resized(ramp, (4, 4)).equal(ramp)
    assert resized(ramp, (8, 8))[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


def test_the_bits_do_not_depend_on_the_batch():
    x = images(7)
    region = highest(local_variance(x, 5), 0.3)[:, None]
    rows = np.array([4, 1, 0])
    assert torch.equal(local_variance(x[rows], 5), local_variance(x, 5)[rows])
    assert torch.equal(cropped(x[rows], region[rows]), cropped(x, region)[rows])
    assert torch.equal(resized(x[rows], (37, 41)), resized(x, (37, 41))[rows])
