import itertools

import numpy as np
import pytest

from mia_bench.diffusion.noise import KeyedNoise, RecordedNoise, SaltedNoise
from mia_bench.errors import UnavailableError

SHAPE = (4, 16, 16)
ROW = {"sample_id": "a", "quantity": "eps", "t": 450, "draw": 0, "shape": SHAPE}


def test_same_key_same_noise():
    first, other = KeyedNoise(3), KeyedNoise(3)
    other.draw("z", "eps", 1, 0, SHAPE)  # what was drawn before does not matter
    assert np.array_equal(first.draw(**ROW), other.draw(**ROW))
    assert first.identity == other.identity != KeyedNoise(4).identity


def test_any_change_of_the_key_changes_the_noise():
    changes = [{}, {"sample_id": "b"}, {"quantity": "latent"}, {"t": 451}, {"t": None}, {"t": 0}, {"draw": 1}]
    draws = [KeyedNoise(0).draw(**{**ROW, **c}) for c in changes] + [KeyedNoise(1).draw(**ROW)]
    for a, b in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.15


def test_golden_values():
    # A change of generator, of the key's spelling or of numpy's stream changes every recorded result.
    assert KeyedNoise(0).draw("a", "eps", 450, 0, (1, 1, 4)).ravel().tolist() == [
        -1.4738317728042603,
        0.0733080729842186,
        0.15399107336997986,
        -1.2061362266540527,
    ]
    assert KeyedNoise(7).draw("1f600", "latent", None, 2, (1, 2, 2)).ravel().tolist() == [
        -2.0544626712799072,
        -0.2849019765853882,
        0.7612535357475281,
        0.5174372792243958,
    ]


def test_is_standard_normal():
    noise = np.concatenate([KeyedNoise(0).draw(f"s{i}", "eps", 450, 0, SHAPE).ravel() for i in range(100)])
    assert noise.dtype == np.float32
    n = noise.size
    assert abs(noise.mean()) < 5 / n**0.5
    assert abs(noise.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((noise**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / n) ** 0.5


def test_salt_makes_noise_an_attacks_own():
    source = KeyedNoise(0)
    pia, loss = SaltedNoise(source, "pia"), SaltedNoise(source, "loss")
    draws = [s.draw(**ROW) for s in (source, pia, loss)]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(draws, 2))
    assert len({source.identity, pia.identity, loss.identity}) == 3
    assert np.array_equal(SaltedNoise(source, "pia").draw(**ROW), draws[1])


@pytest.mark.parametrize("quantity", ["latent", "latent:crop0.81"])
def test_salt_leaves_posterior_noise_common(quantity):
    row = {**ROW, "quantity": quantity, "t": None}
    assert np.array_equal(SaltedNoise(KeyedNoise(0), "pia").draw(**row), KeyedNoise(0).draw(**row))


def rows(value):
    return {"a": np.full(SHAPE, value, dtype=np.float16), "b": np.full(SHAPE, -value, dtype=np.float16)}


def test_record_is_replayed():
    noise = RecordedNoise({("eps", 450, 0): rows(0.5), ("eps", None, 0): rows(2.0), ("latent", None, 0): rows(1)})
    assert (noise.draw("a", "eps", 450, 0, SHAPE) == 0.5).all()
    assert (noise.draw("b", "eps", 450, 0, SHAPE) == -0.5).all()
    assert (noise.draw("a", "eps", 451, 0, SHAPE) == 2.0).all()  # no record of its own: the one without t
    assert (noise.draw("a", "latent", None, 0, SHAPE) == 1).all()
    assert noise.draw("a", "eps", 450, 0, SHAPE).dtype == np.float32


@pytest.mark.parametrize(
    "change", [{"sample_id": "c"}, {"quantity": "latent"}, {"t": 451}, {"draw": 1}, {"shape": (4, 8, 8)}]
)
def test_what_was_not_recorded_is_an_error(change):
    noise = RecordedNoise({("eps", 450, 0): rows(0.5)})
    with pytest.raises(UnavailableError, match="recorded noise for sample"):
        noise.draw(**{**ROW, **change})


def test_record_identity_is_its_content():
    record = {("eps", 450, 0): rows(0.5), ("eps", 460, 0): rows(1.5)}
    noise = RecordedNoise(record)
    assert RecordedNoise(dict(reversed(record.items()))).identity == noise.identity
    assert RecordedNoise({**record, ("eps", 460, 0): rows(1.25)}).identity != noise.identity
    assert RecordedNoise({("eps", 450, 0): rows(0.5), ("eps", 461, 0): rows(1.5)}).identity != noise.identity


def test_record_from_a_file(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "noise.npz"
    eps, latent = rng.normal(size=(2, *SHAPE)).astype(np.float16), rng.normal(size=(2, *SHAPE)).astype(np.float32)
    np.savez(path, **{"sample_id": np.array(["a", "b"]), "eps/450/1": eps, "latent/-/0": latent})
    noise = RecordedNoise.from_npz(path)
    assert np.array_equal(noise.draw("b", "eps", 450, 1, SHAPE), eps[1].astype(np.float32))
    assert np.array_equal(noise.draw("a", "latent", None, 0, SHAPE), latent[0])
    assert noise.identity == RecordedNoise.from_npz(path).identity


@pytest.mark.parametrize(
    "arrays",
    [
        {"eps/450/0": np.zeros((2, *SHAPE))},
        {"sample_id": np.array(["a", "b"]), "eps": np.zeros((2, *SHAPE))},
        {"sample_id": np.array(["a", "b"]), "eps/x/0": np.zeros((2, *SHAPE))},
        {"sample_id": np.array(["a"]), "eps/1/0": np.zeros((2, *SHAPE))},
        {"sample_id": np.array(["a"], dtype=object), "eps/1/0": np.zeros((1, *SHAPE))},
    ],
)
def test_other_files_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "noise.npz", **arrays)
    with pytest.raises(UnavailableError, match="recorded noise") as caught:
        RecordedNoise.from_npz(tmp_path / "noise.npz")
    assert "pickle" not in str(caught.value)


def test_missing_and_damaged_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("none.npz", "text.npz", "cut.npz", "empty.npz", "array.npy"):
        with pytest.raises(UnavailableError) as caught:
            RecordedNoise.from_npz(tmp_path / name)
        assert caught.value.why == ("no such file" if name == "none.npz" else "not an .npz file")
