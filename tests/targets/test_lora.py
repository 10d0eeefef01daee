"""Adapters fused into the weights: B A x scale is added, and named in the identity."""

import importlib.util

import pipelines
import pytest
import torch
from safetensors.torch import load_file, save_file

from mia_bench import TargetOptions
from mia_bench.diffusion.lora import parse
from mia_bench.engine.named import open_target
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry

MODULE = {
    "sd": "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "sdxl": "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "sd3": "transformer.transformer_blocks.0.attn.to_q",
    "flux": "transformer.transformer_blocks.0.attn.to_v",
}
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


def adapter(path, module, target):
    """Of rank 2; and the change it makes."""
    weight = target.get_submodule(module.partition(".")[2]).weight
    source = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, weight.shape[1], generator=source), torch.randn(weight.shape[0], 2, generator=source)
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, path)
    return up @ down


@needs_peft
@pytest.mark.parametrize("name", MODULE)
def test_an_adapter_is_added_to_the_weights(registry, tmp_path, name):
    folder = str(pipelines.saved(name, tmp_path / "pipeline"))
    plain = open_target(registry, folder)
    plain.open(rows=2)
    inner = MODULE[name].partition(".")[2]
    path = tmp_path / "adapter.safetensors"
    change = adapter(path, MODULE[name], plain.denoiser_module)
    before = dict(plain.denoiser_module.named_parameters())
    prints = {plain.fingerprint}
    for given, scale in ((str(path), 1.0), (f"{path}:0.5", 0.5), (f"{tmp_path}:-2", -2.0)):
        target = open_target(registry, folder, TargetOptions(lora=(given,)))
        assert f"lora 0 x {scale}" in target.weights() and f"lora 0 x {scale}" in target.facts()["weights"]
        target.open(rows=2)
        after = dict(target.denoiser_module.named_parameters())
        assert after.keys() == before.keys()
        changed = {n for n in before if not torch.equal(before[n], after[n])}
        assert changed == {f"{inner}.weight"}
        torch.testing.assert_close(after[f"{inner}.weight"], before[f"{inner}.weight"] + scale * change)
        prints.add(target.fingerprint)
    assert len(prints) == 4
    both = open_target(registry, folder, TargetOptions(lora=(str(path), f"{path}:0.5")))
    both.open(rows=2)
    torch.testing.assert_close(
        both.denoiser_module.get_submodule(inner).weight, before[f"{inner}.weight"] + 1.5 * change
    )


@needs_peft
@pytest.mark.parametrize("name", MODULE)
def test_an_adapter_of_the_text_encoder_is_added_too(registry, tmp_path, name):
    folder = str(pipelines.saved(name, tmp_path / "pipeline"))
    plain = open_target(registry, folder)
    plain.open(rows=2)
    changes = {}
    for part in ("text_encoder", MODULE[name].partition(".")[0]):
        network, inner = getattr(plain, part), MODULE[name].partition(".")[2]
        if part == "text_encoder":
            inner = next(n for n, _ in network.named_modules() if n.endswith("layers.0.self_attn.q_proj"))
        changes[part] = inner, adapter(tmp_path / f"{part}.safetensors", f"{part}.{inner}", network)
    both = {k: v for part in changes for k, v in load_file(tmp_path / f"{part}.safetensors").items()}
    save_file(both, tmp_path / "both.safetensors")
    target = open_target(registry, folder, TargetOptions(lora=(f"{tmp_path}/both.safetensors:0.5",)))
    target.open(rows=2)
    for part, (inner, change) in changes.items():
        before, after = (getattr(t, part).get_submodule(inner).weight for t in (plain, target))
        torch.testing.assert_close(after, before + 0.5 * change)


@needs_peft
def test_an_adapter_of_another_model_is_refused(registry, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_file(
        {"unet.nowhere.to_q.lora_A.weight": torch.ones(2, 4), "unet.nowhere.to_q.lora_B.weight": torch.ones(4, 2)}, path
    )
    target = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(str(path),)))
    with pytest.raises(UnavailableError, match=f"--lora {path}") as caught:
        target.open(rows=2)
    assert caught.value.fix


@needs_peft
@pytest.mark.parametrize("form", ["peft", "kohya", "diffusers"])
@pytest.mark.parametrize("more", ["", "unet.nowhere.to_q", "text_encoder_2.encoder.layers.0.self_attn.out_proj"])
def test_an_adapter_that_fits_in_part_is_refused(registry, tmp_path, form, more):
    """In every form that adapters are published in; without a layer too many they fit."""
    text = "text_encoder.text_model.encoder.layers.0.self_attn.out_proj"
    target = open_target(registry, str(pipelines.TINY_SD))
    target.open(rows=2)
    width = target.text_encoder.config.hidden_size, target.unet.get_submodule(MODULE["sd"][5:]).in_features
    tensors = {}
    for name, size in zip((text, MODULE["sd"], *([more] if more else [])), (*width, 8), strict=False):
        pair = torch.ones(2, size), torch.ones(size, 2)
        begin, end = name, ("lora_A.weight", "lora_B.weight")
        if form == "kohya":
            begin = name.replace("text_encoder_2", "lora_te2").replace("text_encoder", "lora_te").replace(".", "_")
            begin = begin if begin.startswith("lora") else f"lora_{begin}"
            end = ("lora_down.weight", "lora_up.weight")
            tensors[f"{begin}.alpha"] = torch.tensor(2.0)
        if form == "diffusers":
            end = ("lora.down.weight", "lora.up.weight")
            if name.startswith("text"):
                begin, end = name, ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
        tensors |= {f"{begin}.{e}": value for e, value in zip(end, pair, strict=True)}
    save_file(tensors, tmp_path / "adapter.safetensors")
    given = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(str(tmp_path),)))
    if not more:
        given.open(rows=2)
        for part, inner in (
            ("unet", MODULE["sd"][5:]),
            ("text_encoder", text.removeprefix("text_encoder.text_model.")),
        ):
            before, after = (getattr(t, part).get_submodule(inner).weight for t in (target, given))
            torch.testing.assert_close(after, before + 2)
        return
    with pytest.raises(UnavailableError, match="--lora") as caught:
        given.open(rows=2)
    assert "lacks 1 of the layers that it changes, e.g. " in str(caught.value) and caught.value.fix


@needs_peft
def test_an_adapter_that_diffusers_reads_in_part_is_refused(registry, tmp_path):
    path, plain = tmp_path / "adapter.safetensors", open_target(registry, str(pipelines.TINY_SD))
    plain.open(rows=2)
    adapter(path, MODULE["sd"], plain.unet)
    save_file(load_file(path) | {f"{MODULE['sd']}.dora_scale": torch.ones(1)}, path)
    target = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(str(path),)))
    with pytest.raises(UnavailableError, match="a DoRA"):
        target.open(rows=2)


def test_an_object_gets_no_adapters(registry, tmp_path):
    """Its own weights would be changed, once more at each run."""
    with pytest.raises(UsageError, match="--lora") as caught:
        open_target(registry, pipelines.sd(), TargetOptions(lora=(str(tmp_path),)))
    assert "fuse_lora()" in caught.value.fix


def test_every_digit_of_a_scale_counts(registry, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    given = [TargetOptions(lora=(f"{tmp_path}:{scale}",)) for scale in ("0.12345671", "0.12345674")]
    assert len({open_target(registry, str(pipelines.TINY_SD), options).fingerprint for options in given}) == 2


@needs_peft
def test_adapters_that_an_object_brings_are_part_of_its_identity(registry, tmp_path):
    def made(scale=None):
        pipeline = pipelines.sd()
        if scale is not None:
            adapter(tmp_path / "adapter.safetensors", MODULE["sd"], pipeline.unet)
            pipeline.load_lora_weights(str(tmp_path), weight_name="adapter.safetensors", adapter_name="a")
            pipeline.set_adapters("a", [scale])
        return open_target(registry, pipeline).fingerprint

    assert len({made(), made(1.0), made(0.3)}) == 3 and made(0.3) == made(0.3)


def test_what_is_no_adapter(registry, tmp_path):
    def refused(given, kind=UnavailableError):
        with pytest.raises(kind) as caught:
            _ = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(str(given),))).fingerprint
        assert caught.value.fix
        return str(caught.value)

    assert "no *.safetensors" in refused(tmp_path)
    assert "no such file" in refused("./nowhere.safetensors:0.5")
    (tmp_path / "a.bin").write_bytes(b"")
    assert "not a .safetensors file" in refused(tmp_path / "a.bin")
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert "a.safetensors, b.safetensors in" in refused(tmp_path)
    assert "'much' is no number" in refused("x:much", UsageError)
    assert parse("owner/name:0.8") == ("owner/name", 0.8) and parse("x") == ("x", 1.0)


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="peft is installed")
def test_without_peft_its_installation_is_named(registry, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    target = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(str(tmp_path),)))
    assert "lora 0 x 1.0" in target.weights()
    with pytest.raises(UnavailableError, match="peft, which is not installed") as caught:
        target.open(rows=2)
    assert "pip install 'mia-bench[lora]'" in caught.value.fix
