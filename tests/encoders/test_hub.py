"""Models in the hub's layout: what transformers itself gives, from a folder or the cache, complete or not at all."""

import shutil
from pathlib import Path

import pytest
import small
import torch
from opened import opened, photograph
from PIL import Image
from small import SIDE

from mia_bench.errors import UnavailableError
from mia_bench_plugins.encoders.blip import Blip
from mia_bench_plugins.encoders.clip import Clip
from mia_bench_plugins.encoders.dino import Dino


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Path(small.clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return Path(small.dino(tmp_path_factory.mktemp("dino")))


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return Path(small.blip(tmp_path_factory.mktemp("blip")))


def picture(side):
    """A picture in 8 bit, and as an encoder is given it."""
    pixels = torch.cat([photograph("china", side), photograph("flower", side)])
    images = [Image.fromarray(((p.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()) for p in pixels]
    return images, pixels


def theirs(processor, folder, images):
    return processor.from_pretrained(folder)(images, return_tensors="pt").pixel_values


@pytest.mark.parametrize("side", [SIDE, 64])
def test_clip_is_transformers_clip(clip, side):
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    images, pixels = picture(side)
    encoder, net = opened(Clip(str(clip))), CLIPModel.from_pretrained(clip).eval()
    texts = ["red apple", "a dog on a boat"]
    tokens = CLIPTokenizer.from_pretrained(clip)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = net(pixel_values=theirs(CLIPImageProcessor, clip, images), **tokens)
    cosine = torch.nn.functional.cosine_similarity
    tolerance = 1e-5 if side == SIDE else 0.02  # they resize in 8 bit
    assert (1 - cosine(encoder.embed(pixels), out.image_embeds)).abs().max() < tolerance
    assert (1 - cosine(encoder.text(texts), out.text_embeds)).abs().max() < 1e-5
    between = encoder.distance(pixels, pixels.flip(0))
    assert torch.allclose(between, 1 - cosine(encoder.embed(pixels), encoder.embed(pixels.flip(0))), atol=1e-6)
    assert encoder.embed(pixels[:1]).equal(encoder.embed(pixels)[:1])
    assert encoder.text(["word " * 100]).isfinite().all(), "cut to what the tower takes"


def test_dino_is_transformers_vit_and_its_last_attention(dino):
    from transformers import ViTImageProcessor, ViTModel

    images, pixels = picture(SIDE)
    encoder = opened(Dino(str(dino)))
    net = ViTModel.from_pretrained(dino, add_pooling_layer=False, attn_implementation="eager").eval()
    with torch.no_grad():
        out = net(theirs(ViTImageProcessor, dino, images), output_attentions=True)
    assert torch.allclose(encoder.embed(pixels), out.last_hidden_state[:, 0], atol=1e-5)
    found = encoder.attention(pixels)
    assert found.shape == (2, 4, 4) and (found >= 0).all()
    assert torch.allclose(found.flatten(1), out.attentions[-1][:, :, 0, 1:].mean(1), atol=1e-6)
    assert torch.equal(found[1:], encoder.attention(pixels[1:]))
    assert encoder.attention(photograph("china", 100)).shape == (1, 4, 4)


def test_blip_is_transformers_blip(blip):
    from transformers import BertTokenizer, BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipImageProcessor

    images, pixels = picture(SIDE)
    encoder = opened(Blip(str(blip)))
    texts = ["a picture of a palace", "red daisy"]
    folder = blip / "blip-itm-base-coco"
    tokens = BertTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
    given = theirs(BlipImageProcessor, folder, images)
    with torch.no_grad():
        net = BlipForImageTextRetrieval.from_pretrained(folder).eval()
        expected = net(pixel_values=given, use_itm_head=False, **inputs).itm_score
        writer = BlipForConditionalGeneration.from_pretrained(blip / "blip-image-captioning-base").eval()
        written = writer.generate(pixel_values=given, num_beams=3, min_length=5, max_length=20)
    unit = torch.nn.functional.normalize
    assert torch.allclose(unit(encoder.embed(pixels)) @ unit(encoder.text(texts)).T, expected, atol=1e-5)
    decoded = BertTokenizer.from_pretrained(folder).batch_decode(written, skip_special_tokens=True)
    assert encoder.captions(pixels) == [text.strip() for text in decoded]
    assert all(encoder.captions(pixels))


def test_found_in_the_hubs_cache(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnavailableError) as error:
        Clip().weights()
    assert "openai/clip-vit-large-patch14 is not in the hub's cache" in error.value.why
    assert "https://huggingface.co/openai/clip-vit-large-patch14" in error.value.why
    for part in ("hf download openai/clip-vit-large-patch14", "clip:FOLDER"):
        assert part in error.value.fix
    repository = tmp_path / "models--openai--clip-vit-large-patch14"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copytree(clip, repository / "snapshots" / "abc")
    assert Clip().fingerprint == Clip(str(clip)).fingerprint
    assert opened(Clip()).embed(photograph("china", SIDE)).shape == (1, 16)


def test_a_checkpoint_that_lacks_weights_is_refused(clip, dino, blip, tmp_path):
    from safetensors.torch import load_file, save_file

    half = shutil.copytree(clip, tmp_path / "half")
    weights = {k: v for k, v in load_file(half / "model.safetensors").items() if not k.startswith("text_")}
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnavailableError, match=r"no whole CLIPModel: it lacks \d+ weights, e.g. text_"):
        opened(Clip(str(half)))
    (half / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UnavailableError, match="cannot be read"):
        opened(Clip(str(half)))
    (half / "model.safetensors").rename(half / "pytorch_model.bin")
    with pytest.raises(UnavailableError, match="save_pretrained"):
        Clip(str(half)).files()
    with pytest.raises(UnavailableError, match="preprocessor_config"):
        (half / "preprocessor_config.json").unlink()
        Clip(str(half)).files()
    with pytest.raises(UnavailableError, match="is no folder"):
        Dino(str(tmp_path / "none")).files()
    with pytest.raises(UnavailableError, match=r"blip-image-captioning-base is no folder"):
        Blip(str(dino)).files()
    assert set(Blip(str(blip)).files()) >= {f"{name}/model.safetensors" for name in Blip.repositories}
