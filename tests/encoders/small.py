"""Tiny copies of encoders in the hub's layout, random, and the same every time."""

import json
import shutil

import torch

from mia_bench_plugins.encoders import ICONS

SIDE, HIDDEN = 32, 32
SMALL = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "palace", "daisy", "red", "[DEC]"]


def prepared(folder, **size):
    config = {
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
        "resample": 3,
        "do_resize": True,
        **size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def clip(folder):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    for path in (ICONS / "tokenizer").iterdir():
        shutil.copy(path, folder)
    words = CLIPTokenizer.from_pretrained(folder)
    text = {**SMALL, "vocab_size": len(words), "max_position_embeddings": 24, "eos_token_id": words.eos_token_id}
    text |= {"bos_token_id": words.bos_token_id, "pad_token_id": words.pad_token_id}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    prepared(folder, size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True)
    return str(folder)


def dino(folder):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**SMALL, image_size=SIDE, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    prepared(folder, size={"height": SIDE, "width": SIDE})
    return str(folder)


def blip(above):
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

    (above / "vocab.txt").write_text("\n".join(WORDS))
    text = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 32, "encoder_hidden_size": HIDDEN}
    text |= {"pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3, "bos_token_id": 11, "initializer_range": 0.5}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8, "initializer_range": 0.5}
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16, projection_dim=16)
    for cls, name in ((BlipForConditionalGeneration, "captioning-base"), (BlipForImageTextRetrieval, "base-coco")):
        folder = above / f"blip-{'image-' if 'caption' in name else 'itm-'}{name}"
        torch.manual_seed(0)
        cls(config).save_pretrained(folder)
        BertTokenizer.from_pretrained(above).save_pretrained(folder)
        prepared(folder, size={"height": SIDE, "width": SIDE})
    return str(above)
