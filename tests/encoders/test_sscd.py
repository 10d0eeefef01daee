"""SSCD: a TorchScript file that the user names."""

import pytest
import torch
from opened import opened, photograph

from mia_bench.errors import UnavailableError
from mia_bench_plugins.encoders.sscd import Sscd


class Means(torch.nn.Module):
    """Values of the centre and the corner, and the side: tells what it was given."""

    def forward(self, x):
        side = torch.full((x.shape[0],), float(x.shape[-1]))
        return torch.stack([x[:, 0, 112, 112], x[:, 1, 0, 0], side], dim=1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("sscd") / "sscd.pt"
    torch.jit.script(Means()).save(str(path))
    return str(path)


def test_it_is_given_the_centre_of_224_px_in_minus_one_to_one(script):
    encoder = opened(Sscd(script))
    middle, corner, side = encoder.embed(torch.full((1, 3, 300, 300), -0.5))[0].tolist()
    assert (middle, corner, side) == pytest.approx((-0.5, -0.5, 224))
    picture = photograph("flower", 256)
    found = encoder.embed(picture)[0]
    assert found[:2].tolist() == pytest.approx([picture[0, 0, 128, 128].item(), picture[0, 1, 16, 16].item()], abs=1e-6)
    assert all(torch.equal(found, encoder.embed(picture)[0]) for _ in range(3)), "as at first"


def test_what_is_missing_and_how_to_get_it(script, tmp_path):
    with pytest.raises(UnavailableError) as error:
        Sscd().weights()
    assert "sscd_disc_mixup.torchscript.pt" in error.value.why and "curl -O https://" in error.value.fix
    assert "sscd:FILE" in error.value.why
    (tmp_path / "no.pt").write_text("no script")
    with pytest.raises(UnavailableError, match="no TorchScript"):
        opened(Sscd(str(tmp_path / "no.pt")))
    assert set(Sscd(script).weights()) == {"weights"}
