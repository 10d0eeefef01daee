"""A function as target: how it is called, what may come back, what identifies it."""

import logging
from pathlib import Path

import numpy as np
import painter
import pytest
import tiny
import torch

from mia_bench import Capability, TargetOptions
from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.noise import KeyedNoise, SaltedNoise
from mia_bench.engine.named import open_target
from mia_bench.errors import BrokenPluginError, NetworkError, SampleError, UnavailableError, UsageError
from mia_bench.plugins import Registry

SIZE = 32


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def file(tmp_path):
    """`file(code)`: a target of the function `f` in a file of this code."""

    def make(code):
        path = tmp_path / f"file{len(list(tmp_path.iterdir()))}.py"
        path.write_text("import io, sys\nimport numpy as np\nfrom PIL import Image\n" + code)
        return f"callable:{path}:f"

    return make


def opened(registry, spec, **options):
    target = open_target(registry, spec, TargetOptions(**{"resolution": SIZE, **options}))
    target.open()
    return target


def batch_of(target, count=3, **changes):
    return tiny.batch_of(target, tiny.icons(count, 0, **changes))


def asked(target):
    return target.denoiser.asked[""], target.denoiser.executed


# What it is given -------------------------------------------------------------------------------------------------


def test_it_is_given_what_it_names(registry, file):
    code = "seen = []\ndef f(caption, *, seed, size, steps, guidance, image, strength):\n    "
    code += "seen.append((caption, seed, size, steps, guidance, image, strength))\n    "
    target = opened(registry, file(code + "return Image.new('RGB', (size, size))"))
    batch = batch_of(target)
    target.generate(batch, ["a", "b", "c"], steps=7, guidance=2.0)
    target.generate(batch, ["a", "b", "c"], steps=7, guidance=2.0, strength=0.5)
    seen = target.function.__globals__["seen"]
    assert [(s[0], *s[2:5]) for s in seen] == [(c, SIZE, 7, 2.0) for c in "abcabc"]
    assert len({s[1] for s in seen[:3]}) == 3 and all(0 <= s[1] < 2**31 for s in seen)
    assert [s[1] for s in seen[:3]] == [s[1] for s in seen[3:]], "one noise at every strength"
    assert [s[5:] for s in seen[:3]] == [(None, None)] * 3 and {s[6] for s in seen[3:]} == {0.5}
    given = torch.stack([torch.from_numpy(np.array(s[5])).permute(2, 0, 1) for s in seen[3:]])
    assert torch.equal(given.float() / 127.5 - 1, batch.pixels), "the sample's own image, to the bit"


def test_the_seed_is_the_samples_and_the_draws(registry, file):
    spec = file("def f(caption, seed):\n    return np.full((8, 8, 3), list(seed.to_bytes(4))[1:], dtype=np.uint8)")
    target = opened(registry, spec)
    samples = tiny.icons(4, 0)

    def made(samples, noise=None, **how):
        batch = tiny.batch_of(target, samples, noise)
        images = target.generate(batch, ["a caption"] * len(samples), **how)
        return dict(zip(batch.ids, map(tuple, images[:, :, 0, 0].tolist()), strict=True))

    whole = made(samples)
    assert made(samples[:2]) | made(samples[:1:-1]) == whole, "no matter the batch and the order"
    assert len({*whole.values(), *made(samples, draw=1).values()}) == 8
    assert len({*whole.values(), *made(samples, KeyedNoise(1)).values()}) == 8
    assert len({*whole.values(), *made(samples, SaltedNoise(KeyedNoise(0), "x")).values()}) == 8


def test_equal_requests_are_asked_once_and_counted_each_time(registry, monkeypatch, tmp_path):
    monkeypatch.setenv("PAINTER_LOG", str(tmp_path / "log"))
    target = opened(registry, f"callable:{painter.__file__}:draw")
    batch = batch_of(target)
    first = target.generate(batch, batch.captions)
    assert torch.equal(target.generate(batch, batch.captions), first) and asked(target) == (6, 3)
    target.generate(batch.single(1), batch.captions[1:2])
    assert asked(target) == (7, 3)
    target.generate(batch, batch.captions, guidance=1.0)
    assert asked(target) == (10, 6)
    batch_of(target)
    target.generate(batch, batch.captions)
    assert asked(target) == (13, 9), "another batch"
    assert len((tmp_path / "log").read_text().splitlines()) == 9


def test_without_sharing_each_attack_asks_for_itself(registry):
    target = open_target(registry, f"callable:{painter.__file__}:plain", TargetOptions(resolution=SIZE))
    target.open(share=False)
    batch = batch_of(target)
    for name in ("one", "one", "two"):
        with target.denoiser.asked_by(name):
            target.generate(batch, batch.captions)
    assert target.denoiser.asked == {"one": 6, "two": 3} and target.denoiser.executed == 6


# What it gives ----------------------------------------------------------------------------------------------------


def test_pictures_arrays_and_files_are_the_same(registry, file):
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    array = "np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)"
    wanted = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
    save = f"    file = io.BytesIO()\n    Image.fromarray({array}).save(file, 'PNG')\n    return file.getvalue()"
    for body in (f"    return {array}", f"    return Image.fromarray({array})", save):
        target = opened(registry, file(f"def f(caption):\n{body}"))
        made = target.generate(batch_of(target), ["a", "b", "c"])
        assert made.dtype == torch.float32 and all(torch.equal(image, wanted) for image in made)


def test_other_sizes_are_brought_to_the_targets(registry):
    target = opened(registry, f"callable:{painter.__file__}:plain", resolution=16)
    made = target.generate(batch_of(target), ["a", "bb", "ccc"])
    assert made.shape == (3, 3, 16, 16)
    assert [round(float(image.mean() + 1) * 127.5) for image in made] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise ValueError('no\\nway')", r"f raised ValueError: no way at .*\.py:6"),
        ("sys.exit('enough')", r"f raised SystemExit: enough at .*\.py:6"),
        ("return None", "it gave a NoneType, not a PIL image"),
        ("return np.zeros((8, 8, 3))", r"it gave an array of float64 \(8, 8, 3\)"),
        ("return np.zeros((8, 8), dtype=np.uint8)", r"it gave an array of uint8 \(8, 8\)"),
        ("return b'<html>'", "not an image in a known format"),
        ("return Image.new('RGB', (4, 4))", "4x4 px is too small"),
    ],
)
def test_what_goes_wrong_for_one_sample_is_said_of_it(registry, file, body, why):
    ok = "    if caption != 'b': return Image.new('RGB', (8, 8))\n    "
    target = opened(registry, file(f"def f(caption):\n{ok}{body}"))
    batch = batch_of(target)
    with pytest.raises(SampleError, match=why):
        target.generate(batch, ["a", "b", "c"])
    assert target.generate(batch.single(2), ["c"]).shape == (1, 3, SIZE, SIZE)
    assert target.denoiser.executed == 2, "neither what came to nothing, nor anything twice"
    target.probe(batch)


def test_ctrl_c_is_no_fault_of_a_sample(registry, file):
    target = opened(registry, file("def f(caption):\n    raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        target.generate(batch_of(target), ["a", "b", "c"])


# What it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signature", "varies"),
    [
        ("caption, image, strength", True),
        ("caption, **rest", True),
        ("caption", False),
        ("caption, size, image=None", False),
    ],
)
def test_only_a_function_that_takes_an_image_can_vary_one(registry, file, signature, varies):
    target = open_target(registry, file(f"def f({signature}):\n    pass"))
    able = {Capability.GENERATE, Capability.CAPTION}
    assert target.capabilities == able | ({Capability.VARY} if varies else set())


def test_there_is_no_denoiser(registry):
    target = opened(registry, f"callable:{painter.__file__}:draw")
    batch = batch_of(target)
    with pytest.raises(NetworkError, match="predicts no noise"):
        target.denoiser(batch.x0, 0, Condition("", {}))
    assert len(target.schedule) == 0


def test_what_makes_it_another_target(registry, tmp_path):
    path = tmp_path / "one.py"
    path.write_text("def f(caption): ...\ndef g(caption): ...\n")

    def fingerprint(spec=f"callable:{path}:f", **options):
        return open_target(registry, spec, TargetOptions(**options)).fingerprint

    (tmp_path / "copy.py").write_bytes(path.read_bytes())
    own = fingerprint()
    assert fingerprint(f"callable:{tmp_path / 'copy.py'}:f") == own
    others = [fingerprint(f"callable:{path}:g"), fingerprint(revision="v2"), fingerprint(resolution=64)]
    path.write_text("def f(caption): return 1\n")
    assert len({own, *others, fingerprint()}) == 5


@pytest.mark.parametrize(
    ("code", "kind", "said", "fix"),
    [
        ("raise OSError('no driver')", BrokenPluginError, r"OSError: no driver at .*\.py:4", "fix the file"),
        ("sys.exit(3)", BrokenPluginError, r"SystemExit: 3 at .*\.py:4", "fix the file"),
        ("def g(caption): pass", UsageError, "it has no function 'f': known: g", "callable:"),
        ("f = 3\ndef ff(caption): pass", UsageError, "it has no function 'f': did you mean ff", "callable:"),
        ("def f(): pass", UsageError, "too many positional arguments", "write it as f(caption, *, seed"),
        ("def f(caption, depth): pass", UsageError, "missing a required argument: 'depth'", "write it as f(caption"),
        ("f = print.__self__.dict", UsageError, "no signature", "write it as f(caption"),
    ],
)
def test_files_that_will_not_do(registry, file, code, kind, said, fix):
    with pytest.raises(kind, match=said) as caught:
        _ = open_target(registry, file(code)).capabilities
    assert fix in caught.value.fix


def test_specs_that_name_no_function(registry, tmp_path):
    for spec, said in ((f"callable:{tmp_path}/no.py:f", "no such file"), ("callable:a.py", "which function")):
        with pytest.raises((UnavailableError, UsageError), match=said) as caught:
            _ = open_target(registry, spec).fingerprint
        assert "callable:" in caught.value.fix
    with pytest.raises(UsageError, match="callable does not read --lora"):
        open_target(registry, "callable:a.py:f", TargetOptions(lora=("x",)))
    with pytest.raises(UsageError, match="which function"):
        _ = open_target(registry, "callable").fingerprint


def test_the_file_is_run_once_and_lies_where_it_was(registry, file, caplog):
    caplog.set_level(logging.WARNING)
    target = opened(registry, file("calls = []\ncalls.append(1)\ndef f(caption):\n    return Image.new('L', (8, 8))"))
    target.generate(batch_of(target), ["a", "b", "c"])
    assert target.function.__globals__["calls"] == [1] and not caplog.records
    assert Path(target.facts()["file"]).exists() and target.facts()["function"] == "f"
