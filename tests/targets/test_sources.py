"""One pipeline as folder, hub cache, single file and object: the same scores; and what may not be read."""

import functools
import json
import os
import shutil

import pipelines
import pytest
import tiny
import torch
from singlefile import sd3_file, single_file

from mia_bench import TargetOptions
from mia_bench.diffusion import hub
from mia_bench.engine.named import open_target
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry

REPOSITORY, COMMIT = "someone/tiny", "c" * 40


@pytest.fixture(scope="module")
def registry():
    made = Registry.load()
    made.datasets["given"] = tiny.dataset(tiny.icons(2, 2), ())
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub._snapshot.cache_clear()
    return tmp_path / "hub"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(pipelines.TINY_SD, tmp_path / "pipeline")


def scored(registry, folder, target, **options):
    """Scores of three attacks on a few images, and the result."""
    given = {"dataset": "given", "threads": 1, "rows": 4, "batch": 4, "out": folder}
    result = run(registry, RunOptions("loss,pia,clid", target=target, target_options=TargetOptions(**options), **given))
    assert {row.status for row in result.rows if not row.control} == {"ok"} and not result.failures
    found = {key: value for key, value in tiny.scores(folder).items() if not key[0].startswith("blind")}
    assert len(found) == 12 == len(set(found.values()))
    return found, result


def refused(registry, spec, kind=UnavailableError, **options):
    """What the user is told, and the fix."""
    with pytest.raises(kind) as caught:
        target = open_target(registry, str(spec) if not hasattr(spec, "config") else spec, TargetOptions(**options))
        target.weights()
        target.open()
    assert caught.value.fix
    return str(caught.value), caught.value.fix


def test_the_same_scores_wherever_the_pipeline_is(registry, cache, tmp_path):
    folder = pipelines.TINY_SD
    pipelines.in_hub_cache(folder, cache, REPOSITORY, COMMIT)
    file = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    wanted, local = scored(registry, tmp_path / "a", str(folder))
    from_hub, on_hub = scored(registry, tmp_path / "b", REPOSITORY, revision="main")
    from_file, in_file = scored(registry, tmp_path / "c", str(file), config=str(folder))
    from_object, loaded = scored(registry, tmp_path / "d", pipelines.sd())
    assert wanted == from_hub == from_file == from_object, "bit for bit"
    assert on_hub.target_fingerprint == local.target_fingerprint, "the same files"
    assert len({r.target_fingerprint for r in (local, in_file, loaded)}) == 3
    facts = on_hub.target_facts
    assert (facts["repository"], facts["revision"], facts["asked revision"]) == (REPOSITORY, COMMIT, "main")
    assert on_hub.target_options == {"revision": "main"} and local.target_options == {}
    assert in_file.target_facts["file"] == "tiny.safetensors" and in_file.target_facts["weights"]["file"]
    assert loaded.target == "StableDiffusionPipeline" == loaded.target_facts["object"]
    stored = json.loads((tmp_path / "b" / "run.json").read_text())
    assert stored["target_facts"]["revision"] == COMMIT and stored["target_options"] == {"revision": "main"}


def test_a_tensor_more_or_less_is_another_object():
    from mia_bench.diffusion.loaded import Loaded

    pipeline = pipelines.sd()
    before = Loaded(pipeline).hashes(["unet", "tokenizer", "scheduler"])
    assert Loaded(pipelines.sd()).hashes(["unet", "tokenizer", "scheduler"]) == before
    next(pipeline.unet.parameters()).data.view(-1)[0] += 1e-3
    after = Loaded(pipeline).hashes(["unet", "tokenizer", "scheduler"])
    assert {n for n in before if before[n] != after[n]} == {"unet/weights"}


def test_an_object_stays_itself(registry, copy, tmp_path):
    """Wherever it was loaded from, after it was used, and after it was saved."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(copy, local_files_only=True)
    wanted = open_target(registry, pipelines.sd()).weights()
    target = open_target(registry, pipeline)
    assert target.weights() == wanted
    target.open(rows=2)
    target.condition(["x", "a dog"])
    pipeline.tokenizer(["a", "dog that runs"], padding=True, truncation=True, max_length=5)
    pipeline.save_pretrained(tmp_path / "saved")
    assert open_target(registry, pipeline).weights() == wanted


@pytest.mark.parametrize(("name", "value"), [("pad_token", "!"), ("model_max_length", 20), ("padding_side", "left")])
def test_how_an_object_pads_is_part_of_its_identity(registry, name, value):
    pipeline = pipelines.sd()
    before = open_target(registry, pipelines.sd()).weights()
    setattr(pipeline.tokenizer, name, value)
    after = open_target(registry, pipeline).weights()
    assert {n for n in before if before[n] != after[n]} == {"tokenizer/vocabulary"}


@pytest.mark.parametrize(
    ("name", "setting", "values"),
    [
        ("sdxl", "force_zeros_for_empty_prompt", (True, False)),
        ("ddpm_class", "id2label", ({"0": "cat", "1": "dog"}, {"0": "dog", "1": "cat"})),
    ],
)
def test_what_the_index_says_of_conditions_is_part_of_the_identity(registry, tmp_path, name, setting, values):
    found = set()
    for number, value in enumerate(values):
        folder = pipelines.saved(name, tmp_path / str(number))
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {setting: value}))
        found.add(open_target(registry, str(folder)).fingerprint)
    assert len(found) == 2


def test_half_precision_variants_are_read_where_there_is_nothing_else(registry, copy):
    pipeline = pipelines.sd().to(torch.float16)
    pipeline.save_pretrained(copy, variant="fp16")
    assert not any(".fp16." in n for n in open_target(registry, str(copy)).weights()), "full precision first"
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    target = open_target(registry, str(copy))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in target.weights()
    target.open(rows=2)
    assert target.unet.dtype == torch.float32
    torch.testing.assert_close(target.unet.conv_in.weight, pipeline.unet.conv_in.weight.float(), rtol=0, atol=0)


def test_sharded_weights_are_read_and_hashed(registry, copy):
    whole = open_target(registry, str(copy))
    whole.open(rows=2)
    for path in (copy / "unet").glob("*.safetensors"):
        path.unlink()
    whole.unet.save_pretrained(copy / "unet", max_shard_size="100KB")
    target = open_target(registry, str(copy))
    shards = [n for n in target.weights() if "-of-" in n]
    assert len(shards) > 2 and "unet/diffusion_pytorch_model.safetensors.index.json" in target.weights()
    target.open(rows=2)
    assert all(torch.equal(a, b) for a, b in zip(target.unet.parameters(), whole.unet.parameters(), strict=True))


@pytest.mark.parametrize(("start", "part"), [("cond_stage_model.", "text_encoder"), ("first_stage_model.", "vae")])
def test_what_a_file_lacks_comes_from_its_configuration(registry, tmp_path, start, part):
    from safetensors.torch import load_file, save_file

    whole = single_file(pipelines.sd(), tmp_path / "whole.safetensors")
    path = tmp_path / "part.safetensors"
    save_file({name: value for name, value in load_file(whole).items() if not name.startswith(start)}, path)
    target = open_target(registry, str(path), TargetOptions(config=str(pipelines.TINY_SD)))
    assert {n.partition("/")[0] for n in target.weights() if n.endswith(".safetensors")} == {part}
    target.open(rows=2)
    for name in ("text_encoder", "vae", "unet"):
        wanted = getattr(pipelines.sd(), name).state_dict()
        found = getattr(target, name).state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_a_file_of_a_transformer_alone(registry, tmp_path):
    """As SD3 medium is published: the encoders come from the configuration, T5 in several files."""
    pipeline, folder = pipelines.made("sd3"), pipelines.saved("sd3", tmp_path / "pipeline")
    shutil.rmtree(folder / "text_encoder_3")
    pipeline.text_encoder_3.save_pretrained(folder / "text_encoder_3", max_shard_size="20KB")
    for path in (folder / "transformer").glob("*.safetensors"):
        path.unlink()
    file = sd3_file(pipeline, tmp_path / "sd3.safetensors")
    target = open_target(registry, str(file), TargetOptions(config=str(folder)))
    assert sum("-of-" in name and name.startswith("text_encoder_3/") for name in target.weights()) > 1
    assert set(target.fetch()) == set(target.weights())
    target.open(rows=2)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"):
        wanted, found = getattr(pipeline, name).state_dict(), getattr(target, name).state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted), name


def test_a_file_is_the_same_model_under_another_name(registry, tmp_path):
    first = single_file(pipelines.sd(), tmp_path / "a.safetensors")
    second = shutil.copy(first, tmp_path / "b.safetensors")
    given = TargetOptions(config=str(pipelines.TINY_SD))
    one, other = (open_target(registry, str(path), given) for path in (first, second))
    assert one.fingerprint == other.fingerprint and other.facts()["file"] == "b.safetensors"


def test_of_a_file_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    """One network at a time, so that two precisions do not make two pipelines."""
    from diffusers import StableDiffusionPipeline

    from mia_bench.diffusion.checkpoint import Folder
    from mia_bench.diffusion.loaded import SingleFile

    made, plain, path = [], StableDiffusionPipeline.__init__, single_file(pipelines.sd(), tmp_path / "tiny.safetensors")

    @functools.wraps(plain)
    def init(self, **parts):
        made.append({name for name, part in parts.items() if isinstance(part, torch.nn.Module)})
        plain(self, **parts)

    monkeypatch.setattr(StableDiffusionPipeline, "__init__", init)
    file = SingleFile(path, Folder(pipelines.TINY_SD))
    assert file.load(("UNet2DConditionModel",), "unet", "float16").dtype == torch.float16
    assert file.load(("AutoencoderKL",), "vae", "float32").dtype == torch.float32
    assert made == [{"unet"}, {"vae"}]


# What may not be read -----------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickled_weights_are_refused_unless_allowed(registry, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipelines.sd().unet.save_pretrained(copy / "unet", safe_serialization=False)
    whole = open_target(registry, str(pipelines.TINY_SD))
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    why, fix = refused(registry, copy)
    assert "its weights are pickled (diffusion_pytorch_model.bin)" in why and "--allow-pickle" in fix
    target = open_target(registry, str(copy), TargetOptions(allow_pickle=True))
    assert "unet/diffusion_pytorch_model.bin" in target.weights()
    for one in (target, whole):
        one.open(rows=2)
    assert all(torch.equal(a, b) for a, b in zip(target.unet.parameters(), whole.unet.parameters(), strict=True))
    torch.save({"conv_in.weight": Bomb()}, copy / "unet" / "diffusion_pytorch_model.bin")
    why, _ = refused(registry, copy, allow_pickle=True)
    assert not (tmp_path / "exploded").exists(), "tensors alone are unpickled"


def test_a_pickled_file_is_refused_and_never_run(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": Bomb()}}, path)
    why, fix = refused(registry, path, config=str(pipelines.TINY_SD))
    assert "it is pickled (.ckpt)" in why and "--allow-pickle" in fix
    refused(registry, path, config=str(pipelines.TINY_SD), allow_pickle=True)
    assert not (tmp_path / "exploded").exists()


def test_a_pickled_file_of_tensors_alone_is_read_where_that_is_allowed(registry, tmp_path):
    from safetensors.torch import load_file

    safe = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    torch.save({"state_dict": load_file(safe)}, tmp_path / "tiny.ckpt")
    target = open_target(
        registry, str(tmp_path / "tiny.ckpt"), TargetOptions(config=str(pipelines.TINY_SD), allow_pickle=True)
    )
    target.open(rows=2)
    wanted = pipelines.sd().unet.parameters()
    assert all(torch.equal(a, b) for a, b in zip(target.unet.parameters(), wanted, strict=True))


def test_code_in_a_repository_is_never_run(registry, copy):
    (copy / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    why, _ = refused(registry, copy, UsageError)
    assert "code of its own (pipeline.Mine), which is never run" in why


def test_the_safety_checker_is_never_loaded(registry, copy, tmp_path):
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    (copy / "safety_checker").mkdir()
    (copy / "safety_checker" / "model.safetensors").write_bytes(b"damaged")
    file = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    for spec, options in ((copy, {}), (file, {"config": str(copy)})):
        target = open_target(registry, str(spec), TargetOptions(**options))
        assert not any("safety" in name for name in target.weights())
        target.open(rows=2)


# What does not fit --------------------------------------------------------------------------------------------------


def test_weights_that_lack_a_tensor_are_refused(registry, copy, tmp_path):
    from safetensors.torch import load_file, save_file

    for name in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        path = copy / f"{name}.safetensors"
        weights = load_file(path)
        lost = sorted(weights)[3]
        save_file({k: v for k, v in weights.items() if k != lost}, path, metadata={"format": "pt"})
        why, _ = refused(registry, copy)
        assert "it lacks 1 weights, e.g." in why
        save_file(weights, path, metadata={"format": "pt"})
    file = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    weights = load_file(file)
    for lost in ("model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_out.weight"):
        save_file({k: v for k, v in weights.items() if k != lost}, file)
        refused(registry, file, config=str(copy))


def test_a_file_that_does_not_tell_its_configuration(registry, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "some.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    why, fix = refused(registry, path)
    assert "does not say which configuration it has" in why and "--config FOLDER" in fix
    assert "no such folder" in refused(registry, path, config="./nowhere")[0]
    path.write_bytes(b"damaged")
    assert "fetch it again" in refused(registry, path)[1]
    (tmp_path / "notes.txt").write_text("hello")
    assert "not a file of weights" in refused(registry, tmp_path / "notes.txt")[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lora_unet_mid_block.lora_down.weight", "it is a LoRA"),
        ("unet.mid_block.to_q.lora_A.weight", "it is a LoRA"),
        ("unet.mid_block.processor.to_q_lora.down.weight", "it is a LoRA"),
        ("control_model.input_blocks.0.0.weight", "it is a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", "it is a ControlNet"),
    ],
)
def test_a_file_of_what_goes_beside_a_model(registry, tmp_path, name, why):
    from safetensors.torch import save_file

    path = tmp_path / "beside.safetensors"
    save_file({name: torch.zeros(2, 2)}, path)
    for options in ({}, {"config": str(pipelines.TINY_SD)}):
        said, fix = refused(registry, path, **options)
        assert why in said and ("--lora" in fix) == ("LoRA" in why)


def test_a_configuration_with_code_of_its_own(registry, copy, tmp_path):
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "Mine"]}))
    file = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    assert "--config" in refused(registry, f"stable-diffusion:{file}", config=str(copy))[1]


def test_the_repository_that_a_file_goes_by(registry, cache, tmp_path):
    pipelines.in_hub_cache(pipelines.TINY_SD, cache, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    file = single_file(pipelines.sd(), tmp_path / "tiny.safetensors")
    target = open_target(registry, str(file))
    facts = target.facts()
    assert facts["config repository"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert "unet/config.json" in target.weights() and not any("unet/diffusion" in n for n in target.weights())
    target.open(rows=2)
    hub._snapshot.cache_clear()
    shutil.rmtree(cache)
    why, fix = refused(registry, file)
    assert "configuration of tiny.safetensors" in why and "--config FOLDER" in fix


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"revision": "main"}, "--revision: the target is a folder"),
        ({"config": "x"}, "--config: the target is a folder"),
    ],
)
def test_options_that_say_nothing_about_a_folder(registry, options, said):
    assert refused(registry, pipelines.TINY_SD, UsageError, **options)[0].startswith(said)


def test_options_that_a_target_does_not_read(registry):
    assert "ddpm does not read --lora" in refused(registry, pipelines.TINY_DDPM, UsageError, lora=("x",))[0]
    assert (
        "emoji-realworld does not read --revision" in refused(registry, "emoji-realworld", UsageError, revision="x")[0]
    )


@pytest.mark.parametrize(
    ("part", "changes", "why"),
    [
        ("unet", {"in_channels": 9}, "9 channels in and 4 out"),
        ("unet", {"sample_size": [16, 24]}, "sample_size is"),
        ("unet", {"time_cond_proj_dim": 8}, "wants further inputs (time_cond_proj_dim=8)"),
        ("scheduler", {"_class_name": "KarrasVeScheduler"}, "scheduler KarrasVeScheduler"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "unknown prediction type"),
    ],
)
def test_models_of_another_kind_are_refused(registry, copy, part, changes, why):
    from diffusers import UNet2DConditionModel

    path = copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config))
    if part == "unet":
        UNet2DConditionModel.from_config(config).save_pretrained(copy / part)
    assert why in refused(registry, copy)[0]


@pytest.mark.parametrize(("name", "part"), [("sd", "vae"), ("sdxl", "text_encoder"), ("sd3", "text_encoder_2")])
def test_a_pipeline_without_a_part_is_refused(registry, tmp_path, name, part):
    """As SDXL's refiner is without its first text encoder; only SD3 can do without one, its T5."""
    folder = pipelines.saved(name, tmp_path / "pipeline")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {part: [None, None]}))
    why, _ = refused(registry, folder)
    assert f"target part {part}: this {index['_class_name']} has none" in why
    with pytest.raises(UnavailableError, match=f"target part {part}"):
        open_target(registry, str(folder)).open(rows=2)
    with pytest.raises(UnavailableError, match=f"target part {part}"):
        open_target(registry, str(folder)).fetch()


def test_a_pipeline_that_no_family_loads(registry, copy):
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionInpaintPipeline"}))
    why, fix = refused(registry, copy, UsageError)
    assert "no plugin loads a StableDiffusionInpaintPipeline" in why and "FluxPipeline" in fix
    index["unet"] = ["diffusers", "UNet2DModel"]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert "it is a UNet2DModel, not a UNet2DConditionModel" in refused(registry, copy)[0]


def test_resolution(registry):
    target = open_target(registry, str(pipelines.TINY_SD), TargetOptions(resolution=64))
    plain = open_target(registry, str(pipelines.TINY_SD))
    assert target.fingerprint != plain.fingerprint and target.facts()["resolution"] == 64
    target.open(rows=2)
    assert (target.image_size, target.sample_shape) == (64, (4, 32, 32))
    assert target.denoiser(torch.zeros(1, 4, 32, 32), 1, target.condition([""])).shape == (1, 4, 32, 32)
    why, fix = refused(registry, pipelines.TINY_SD, UsageError, resolution=30)
    assert "multiple of 4" in why and "its own is 32" in fix


def test_a_model_of_no_size_of_its_own(registry, copy):
    path = copy / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": None}))
    why, fix = refused(registry, copy)
    assert "does not say of which size" in why and "--resolution" in fix
    target = open_target(registry, str(copy), TargetOptions(resolution=64))
    target.open(rows=2)
    assert (target.image_size, target.sample_shape) == (64, (4, 32, 32))
    why, fix = refused(registry, copy, UsageError, resolution=30)
    assert "multiple of 4" in why and "try 512" in fix


def test_files_are_hashed_once_until_they_change(tmp_path, monkeypatch):
    import hashlib

    from mia_bench.diffusion.checkpoint import hash_file

    path, read = tmp_path / "file", []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda *a: read.append(1) or digest(*a))
    path.write_bytes(b"one")
    assert hash_file(path) == hash_file(path) == hashlib.sha256(b"one").hexdigest() and len(read) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 1))
    assert hash_file(path) == hashlib.sha256(b"two").hexdigest()


def test_a_name_that_a_folder_also_has(registry, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="it is a family") as caught:
        open_target(registry, "ddpm")
    assert caught.value.fix == "write --target ddpm:PATH"
    for name in ("ddpm", "sd-v1-4"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError) as caught:
        open_target(registry, "ddpm")
    assert "or --target ./ddpm for" in caught.value.fix
    assert open_target(registry, "sd-v1-4").meta.name == "sd-v1-4"
    assert "what is called so here is ./sd-v1-4" in caplog.text
