"""What the doctor finds: the machine, what a target is, and for every attack whether it runs, or why not."""

import painter
import pipelines
import pytest
import tiny
import torch

from mia_bench import Capability, TargetMeta, TargetOptions
from mia_bench.attack import Control
from mia_bench.engine.doctor import examine
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.run import run
from mia_bench.errors import BrokenPluginError, UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.testing import TinyTarget
from mia_bench_plugins.attacks import ensemble


@pytest.fixture(scope="module")
def registry():
    made = Registry.load()
    made.targets |= {"able": TinyTarget, "tiny-mute": tiny.TinyWithoutCaptions}
    made.datasets["bare"] = tiny.dataset(tiny.icons(3, 2, (2, 0), caption=None), ())
    return made


def healthy(registry, *arguments, **options):
    found, error = examine(registry, *arguments, device="cpu", **options)
    assert error is None
    return found


def test_the_machine(registry, monkeypatch, tmp_path):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "not yet there"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = healthy(registry)
    machine = found["machine"]
    assert set(found) == {"machine", "broken plugins"}, "nothing is loaded"
    assert machine["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert {"diffusers", "transformers"} <= set(machine["libraries"]) and set(machine["extras"]) >= {
        "peft",
        "accelerate",
    }
    assert 0 < machine["free_memory_bytes"] <= machine["memory_bytes"] and machine["cores"] >= 1
    assert machine["cache"]["path"] == str(tmp_path / "not yet there") and machine["cache"]["free_bytes"] > 0
    assert machine["hub_cache"]["path"] == str(tmp_path / "hub") and machine["hub_offline"] is True
    assert not list(tmp_path.iterdir())


def test_what_an_attack_requires_decides_whether_it_runs(registry):
    registry.attacks = registry.attacks | {"ensemble": ensemble.Ensemble}
    able = healthy(registry, "able")["attacks"]["ensemble"]
    assert able["runs"] and able["queries"] == 5
    kept = registry.attacks.pop("pian")
    why = healthy(registry, "able")["attacks"]["ensemble"]["why"]
    registry.attacks["pian"] = kept
    del registry.attacks["ensemble"]
    assert why.startswith("it requires pian: unknown attack 'pian'")


def test_a_target_and_all_attacks(registry):
    found = healthy(registry, "able")
    target, attacks = found["target"], found["attacks"]
    assert (target["kind"], target["image_size"], target["input"]) == ("latent", 32, [4, 8, 8])
    assert target["fingerprint"] == TinyTarget().fingerprint and set(target["seconds_per_row"]) == {"denoiser", "vae"}
    assert set(attacks) == {n for n, c in registry.attacks.items() if not issubclass(c, Control)}
    assert attacks["loss"] == {"runs": True, "queries": 1, "presets": [], "why": None}
    assert "--reference" in attacks["noise-probe"]["why"]
    assert healthy(registry, "able", reference="able:8")["attacks"]["noise-probe"]["runs"]


def test_an_attack_whose_encoder_is_not_there_says_what_runs_instead(registry, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    verdict = healthy(registry, "able")["attacks"]["wu-iis"]
    assert not verdict["runs"] and verdict["presets"] == ["quick", "quick-training-free"]
    assert "encoder blip is not at hand: `mia-bench describe blip`" in verdict["why"]


@pytest.mark.parametrize("spec", ["able", "tiny-mute", f"callable:{painter.__file__}:plain", str(pipelines.TINY_DDPM)])
def test_what_it_says_is_what_a_run_does(registry, spec, tmp_path):
    """Attack by attack, with the presets it names; encoders that are not at hand aside."""
    options = TargetOptions(resolution=32) if spec.startswith("callable") else TargetOptions()
    attacks = healthy(registry, spec, "fluent-emoji", options=options)["attacks"]
    able = {name: v for name, v in attacks.items() if v["runs"] or v["presets"]}
    labels = {name if v["runs"] else f"{name}@{v['presets'][0]}" for name, v in able.items()}
    assert labels and {v["why"] for v in attacks.values()} != {None}

    def plan(chosen):
        given = {"dataset": "fluent-emoji", "target": spec, "target_options": options, "limit": 2}
        return prepare(registry, RunOptions(chosen, out=tmp_path, **given)).plan

    assert {a.name for a in plan(",".join(labels)).attacks if not a.control} == {x.partition("@")[0] for x in labels}
    for name, verdict in attacks.items():
        if not verdict["runs"]:
            with pytest.raises((UsageError, UnavailableError)):
                plan(name)


def test_a_dataset_decides_too(registry):
    found = healthy(registry, "able", "bare")
    assert found["dataset"] == {
        "name": "bare",
        "audit": {"members": 3, "non-members": 2},
        "calibration": {"members": 2},
        "memorised": {},
        "captioned": 0,
        "samples": 7,
        "no calibration": "the calibration set holds no non-members",
    }
    assert "no sample has one" in found["attacks"]["clid"]["why"]
    assert "holds no non-members" in found["attacks"]["secmi-nns"]["why"]
    assert found["attacks"]["loss"]["runs"]


def test_a_target_without_a_denoiser(registry):
    spec = f"callable:{painter.__file__}:draw"
    found = healthy(registry, spec, options=TargetOptions(resolution=64))
    assert found["target"]["seconds_per_row"] == {} and found["target"]["image_size"] == 64
    attacks = found["attacks"]
    assert attacks["loss"]["why"] == "target callable shows no predicted noise"
    assert attacks["gsa"]["why"] == "target callable shows no predicted noise and gives no gradients"
    assert attacks["wu-iip"] == {"runs": True, "queries": 1, "presets": [], "why": None}
    assert "draws from captions alone" in healthy(registry, spec.replace("draw", "plain"))["attacks"]["sweep"]["why"]


@pytest.mark.parametrize(
    ("arguments", "kind", "said", "kept"),
    [
        (("./nowhere",), UnavailableError, "no such folder", {"machine"}),
        (("sd-v1-6",), UsageError, "did you mean", {"machine"}),
        (("able", "folder:nowhere"), UnavailableError, "no such folder", {"machine"}),
        (("./nowhere", "fluent-emoji"), UnavailableError, "no such folder", {"machine", "dataset"}),
    ],
)
def test_what_cannot_be_had_costs_no_more_than_itself(registry, arguments, kind, said, kept):
    found, error = examine(registry, *arguments, device="cpu")
    assert isinstance(error, kind) and said in str(error) and error.fix
    assert set(found) - {"broken plugins"} == kept


def test_a_faulty_target_plugin_is_named(registry):
    class Faulty(TinyTarget):
        meta = TargetMeta(name="faulty", summary="", kind="latent", capabilities=frozenset({Capability.DENOISE}))

        def load(self):
            raise KeyError("conv_in")

    registry.targets["faulty"] = Faulty
    _, error = examine(registry, "faulty", device="cpu")
    assert isinstance(error, BrokenPluginError) and "KeyError: 'conv_in'" in error.why


def test_weights_that_do_not_fit(registry, tmp_path):
    class Huge(TinyTarget):
        meta = TinyTarget.meta.model_copy(update={"name": "huge"})
        reads = frozenset({"offload"})

        def load(self):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    registry.targets["huge"] = Huge
    _, error = examine(registry, "huge", device="cpu")
    assert isinstance(error, UnavailableError) and "do not fit in the memory of cpu" in error.why
    assert "--dtype float16" in error.fix and "--offload" in error.fix
    with pytest.raises(UnavailableError, match="do not fit"):
        run(registry, RunOptions("loss", dataset="fluent-emoji", target="huge", limit=1, out=tmp_path))


def test_options_are_the_runs(registry):
    folder = str(pipelines.TINY_SD)
    found = healthy(registry, folder, options=TargetOptions(resolution=64))["target"]
    assert (found["image_size"], found["dtype"]) == (64, "float32")
    _, error = examine(registry, folder, device="cpu", options=TargetOptions(revision="main"))
    assert isinstance(error, UsageError) and "--revision" in error.what
