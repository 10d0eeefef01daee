"""What the targets share and never train: VAE, tokenizer, text encoder, image tower, perceptual encoder.

All of it sees the public styles only, where member and non-member concepts are alike.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Regex, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mia_bench_plugins.encoders.icons import TEXT_WIDTH, IconNet

SEED = 1
TOKENS, VOCABULARY, END = 24, 2000, "</w>"
EMBEDDING = 64
VAE_STEPS, VAE_BATCH = 800, 32
CLIP_STEPS, CLIP_BATCH = 400, 128
PERCEPTUAL_STEPS, PERCEPTUAL_BATCH = 300, 64


def pixels_of(images: NDArray[np.uint8]) -> Tensor:
    """(N, 32, 32, 3) bytes as (N, 3, 32, 32) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def cosine(step: int, steps: int, warm: int, least: float = 0.02) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine to `least`."""
    if step < warm:
        return (step + 1) / warm
    return least + (1 - least) * (1 + float(np.cos(np.pi * (step - warm) / (steps - warm)))) / 2


class Average:
    """Exponential moving average of a network's weights, with a short memory at the start."""

    def __init__(self, net: torch.nn.Module, most: float) -> None:
        self.net, self.most, self.steps = net, most, 0
        self.weights = {name: value.detach().clone() for name, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.most, (self.steps + 1) / (self.steps + 10))
        self.steps += 1
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As shipped: rounded to float16. Targets are trained on the rounded parts, and computed with in float32."""
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in weights.items()}


def train_vae(public: dict[str, NDArray[np.uint8]], out: Path) -> None:
    """The VAE on the public styles; per-channel whitening is baked into the two 1x1 convolutions."""
    torch.manual_seed(SEED)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    pixels = pixels_of(np.concatenate(list(public.values())))
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99), fused=True)
    average = Average(vae, 0.995)
    for step in range(VAE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, VAE_STEPS, 50)
        batch = pixels[torch.randint(len(pixels), (VAE_BATCH,))]
        batch = torch.where(torch.rand(VAE_BATCH, 1, 1, 1) < 0.5, batch.flip(3), batch)
        share = torch.where(torch.rand(VAE_BATCH, 1, 1, 1) < 0.3, torch.rand(VAE_BATCH, 1, 1, 1), 0)
        batch = batch.lerp(torch.rand(VAE_BATCH, 3, 1, 1) * 2 - 1, share)  # flat colours: icons are mostly white
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            drawn = vae.decode(posterior.mean + posterior.std * torch.randn_like(posterior.mean)).sample.float()
        edges = sum((drawn.diff(dim=d) - batch.diff(dim=d)).abs().mean() for d in (2, 3))
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = (drawn - batch).abs().mean() + 0.5 * edges + 5 * (drawn - batch).square().mean() + 1e-3 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
    vae.load_state_dict(average.weights)
    _whiten(vae.eval(), pixels)
    save_diffusers(vae, out / "vae")


@torch.no_grad()
def _whiten(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Make latents zero-mean and unit-variance per channel, without changing any reconstruction."""
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    before.weight[:channels] /= spread[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / spread
    before.bias[channels:] -= 2 * spread.log()  # the second half is the log-variance
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= spread[None, :, None, None]


def save_diffusers(model: torch.nn.Module, folder: Path) -> None:
    """A part of a pipeline in float16, its config without the path it was saved to."""
    model.half().save_pretrained(folder)
    path = folder / "config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k != "_name_or_path"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def train_tokenizer(texts: list[str], out: Path) -> CLIPTokenizer:
    """A byte-level BPE of 2,000 entries in CLIP's manner, on labels and tags of all concepts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(letter + END for letter in alphabet)]
    merges = byte_pairs(words_of(texts), VOCABULARY - len(symbols) - 2)
    entries = [*symbols, *(left + right for left, right in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)
    tokenizer.save_pretrained(out / "tokenizer")
    return tokenizer


def words_of(texts: list[str]) -> Counter[str]:
    """Words as CLIP splits them, in lower case, each byte a printable letter."""
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    cut = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return Counter(word for text in texts for word, _ in cut.pre_tokenize_str(text.lower()))


def byte_pairs(words: Mapping[str, int], count: int) -> list[tuple[str, str]]:
    """The `count` most frequent pairs, one after another (Sennrich et al. 2016), ties in alphabetical order.

    The library's trainer breaks ties in the order of a hash table, which differs between processes.
    """
    parts = {word: [*word[:-1], word[-1] + END] for word in words}
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in parts.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in parts.values():
            place = 0
            while place < len(symbols) - 1:
                if (symbols[place], symbols[place + 1]) == best:
                    symbols[place : place + 2] = ["".join(best)]
                place += 1
    return merges


def train_clip(public: dict[str, NDArray[np.uint8]], captions: list[str], tokenizer: CLIPTokenizer, out: Path) -> None:
    """Text encoder and image tower by symmetric InfoNCE (CLIP, Radford et al. 2021, Fig. 3)."""
    torch.manual_seed(SEED)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text, image = CLIPTextModel(config), IconNet(EMBEDDING)
    projection = torch.nn.Parameter(torch.randn(EMBEDDING, TEXT_WIDTH) / TEXT_WIDTH**0.5)
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07)))
    parameters = [*text.parameters(), *image.parameters(), projection, scale]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    styles = torch.stack([pixels_of(images) for images in public.values()])
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    for step in range(CLIP_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, CLIP_STEPS, 20)
        which = torch.randperm(len(captions))[:CLIP_BATCH]
        pictures = shifted(styles[torch.randint(len(styles), (CLIP_BATCH,)), which])
        texts = functional.normalize(text(tokens[which]).pooler_output @ projection.T, dim=1)
        logits = scale.clamp(max=np.log(100)).exp() * image(pictures) @ texts.T
        loss = _contrast(logits)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_diffusers(text, out / "text_encoder")
    _save({**image.state_dict(), "text_projection": projection.detach()}, out / "image_text")


def train_perceptual(public: dict[str, NDArray[np.uint8]], subgroups: list[str], out: Path) -> None:
    """The perceptual encoder: one concept in two styles lies close, and subgroups of concepts can be told apart."""
    torch.manual_seed(SEED)
    names = sorted({*subgroups})
    labels = torch.tensor([names.index(name) for name in subgroups])
    net, classify = IconNet(EMBEDDING), torch.nn.Linear(EMBEDDING, len(names))
    parameters = [*net.parameters(), *classify.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    styles = torch.stack([pixels_of(images) for images in public.values()])
    for step in range(PERCEPTUAL_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, PERCEPTUAL_STEPS, 20)
        which = torch.randperm(len(labels))[:PERCEPTUAL_BATCH]
        left, right = net(shifted(styles[0, which])), net(shifted(styles[1, which]))
        loss = _contrast(left @ right.T / 0.07)
        loss = loss + sum(functional.cross_entropy(10 * classify(side), labels[which]) for side in (left, right))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _save(net.state_dict(), out / "perceptual")


def _contrast(logits: Tensor) -> Tensor:
    """Symmetric InfoNCE of a (B, B) matrix whose diagonal matches."""
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def shifted(pixels: Tensor, most: int = 2) -> Tensor:
    """Each image flipped with probability one half and shifted by up to `most` pixels, white coming in."""
    flips = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    pixels = torch.where(flips, pixels.flip(3), pixels)
    padded = functional.pad(pixels, (most,) * 4, value=1.0)
    side = pixels.shape[-1]
    corners = torch.randint(2 * most + 1, (len(pixels), 2)).tolist()
    return torch.stack(
        [image[:, top : top + side, left : left + side] for image, (top, left) in zip(padded, corners, strict=True)]
    )


def _save(weights: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half(weights), folder / "model.safetensors")
