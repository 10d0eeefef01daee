"""Networks of trained attacks: the same data give the same network, and nothing else of the process changes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD

from mia_bench.resnet import ResNet, trained


def data(n=12, size=8, seed=0):
    """Half of the maps are larger in one corner."""
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    maps = np.abs(rng.normal(size=(n, 1, size, size)))
    maps[member, :, :4, :4] += 2
    return maps, member


def fit(maps, member, epochs=4, stages=1, **options):
    wanted = member[:, None].astype(np.float32)
    return trained(
        lambda: ResNet(maps.shape[1], 1, stages),
        maps,
        wanted,
        loss=mse_loss,
        optimizer=lambda weights: SGD(weights, lr=0.05, momentum=0.9),
        epochs=epochs,
        **options,
    )


def test_it_learns():
    maps, member = data()
    found = fit(maps, member, epochs=6)(data(seed=1)[0])[:, 0]
    assert found[member].min() > found[~member].max()


def test_it_is_made_for_small_images():
    network = ResNet(4, 1)
    layers = dict(network.named_modules())
    assert layers["0"].kernel_size == (3, 3) and layers["0"].stride == (1, 1)
    assert not any(isinstance(layer, torch.nn.MaxPool2d) for layer in layers.values())
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in layers.values()) == 17 + 3, "18 layers, 3 shortcuts"
    assert ResNet(1, 2, stages=2)[-1].in_features == 128
    assert sum(p.numel() for p in ResNet(3, 10).parameters()) == 11_173_962, "ResNet-18 for CIFAR-10"


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 16, 16), (3, 10, 7)])
def test_any_shape_will_do(shape):
    assert ResNet(shape[0], 2, stages=4).eval()(torch.zeros(3, *shape)).shape == (3, 2)


def test_large_images_are_made_small_first():
    network = ResNet(3, 1000, small=False)
    assert sum(p.numel() for p in network.parameters()) == 11_689_512, "ResNet-18 for ImageNet"
    stem = torch.nn.Sequential(*list(network)[:4])
    assert stem(torch.zeros(1, 3, 224, 224)).shape == (1, 64, 56, 56)


def test_vectors_will_do():
    maps, member = data(n=30)
    make = lambda: torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))  # noqa: E731
    options = {"loss": mse_loss, "optimizer": lambda weights: SGD(weights, lr=0.02), "epochs": 40, "batch": 10}
    predict = trained(make, maps.reshape(30, 64), member[:, None].astype(np.float32), **options)
    many = np.concatenate([data(n=70, seed=seed)[0].reshape(70, 64) for seed in (1, 2)])
    whole = predict(many)
    assert whole[:70][np.arange(70) % 2 == 0].min() > whole[:70][np.arange(70) % 2 == 1].max()
    assert np.array_equal(predict(many[::-1]), whole[::-1]) and np.array_equal(predict(many[5:6]), whole[5:6])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_network_whatever_the_random_state_and_threads(threads):
    maps, member = data()
    wanted = fit(maps, member, batch=5)(maps)
    before = torch.get_num_threads()
    torch.manual_seed(threads)
    torch.set_num_threads(threads)
    try:
        state = torch.random.get_rng_state()
        with torch.inference_mode():
            found = fit(maps, member, batch=5)(maps)
        assert np.array_equal(found, wanted)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_trainings_side_by_side_do_not_disturb_each_other():
    maps, member = data()
    wanted = [fit(maps, member, batch=5, seed=seed)(maps) for seed in range(4)]
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda seed: fit(maps, member, batch=5, seed=seed)(maps), range(4)))
        assert np.array_equal(found, wanted)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_seed_is_another_network():
    maps, member = data()
    assert not np.array_equal(fit(maps, member)(maps), fit(maps, member, seed=1)(maps))


def test_an_output_does_not_depend_on_the_other_rows():
    maps, member = data()
    predict = fit(maps, member, epochs=1)
    many = np.concatenate([maps, data(n=70, seed=2)[0]])
    whole = predict(many)
    assert np.array_equal(predict(many[5:6]), whole[5:6])
    assert np.array_equal(predict(many[::-1]), whole[::-1])


def test_no_step_is_left_with_one_row():
    """Batch normalisation cannot train on a single 1x1 map."""
    maps, member = data(n=9, size=1)
    assert np.isfinite(fit(maps, member, epochs=1, batch=8)(maps)).all()
