"""Captions with part of their meaning taken away (Zhai et al. 2024, arXiv:2405.14800, App. D.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mia_bench.diffusion.reduce import mean, power_mean
from mia_bench.errors import SampleError

if TYPE_CHECKING:
    from mia_bench.batch import Batch
    from mia_bench.diffusion.denoiser import Condition

PADDING = "<|endoftext|>"  # what CLIP's tokenizer pads with


def thirds(caption: str) -> list[str]:
    """First, middle and last third of the characters."""
    n = len(caption)
    return [caption[: n // 3], caption[n // 3 : 2 * n // 3], caption[2 * n // 3 :]]


def without_important(caption: str, weights: Sequence[float], rates: Sequence[float]) -> list[str]:
    """The caption with its most important words replaced by padding, ties included.

    Args:
        caption: Words with single spaces between.
        weights: Importance of each.
        rates: Shares of the words replaced, one text each.
    """
    words, ranked = caption.split(" "), sorted(weights, reverse=True)
    limits = [ranked[int(rate * len(ranked) - 0.01)] for rate in rates]
    return [
        " ".join(PADDING if weight >= limit else word for word, weight in zip(words, weights, strict=True))
        for limit in limits
    ]


def word_weights(batch: Batch, row: int) -> tuple[float, ...]:
    """Importance of the words of a sample's caption, from the dataset.

    Raises:
        SampleError: There is not one weight per word.
    """
    words, weights = len((batch.captions[row] or "").split(" ")), batch.word_weights[row]
    if weights is None or len(weights) != words:
        got = "none" if weights is None else str(len(weights))
        raise SampleError(
            f"importance of words for sample {batch.ids[row]!r}",
            f"{words} words in the caption, word weights: {got}",
            "give one weight per word in the dataset, or run `clid` (clipping) instead",
        )
    return weights


def disturbed(batch: Batch, scale: float, draw: int) -> Condition:
    """Text states c + s std(c) xi, std over all of a caption's states, xi the sample's noise of number `draw`."""
    from mia_bench.diffusion.denoiser import Condition

    whole = batch.condition
    states = whole.states["encoder_hidden_states"]  # (B, L, D)
    centred = states - mean(states[:, None])[:, None, None]
    spread = power_mean(centred[:, None]).sqrt()[:, None, None]
    noise = batch.draw("text", tuple(states.shape[1:]), draw)
    name = f"disturbed({whole.key},{scale},{batch.noise.identity},{draw})"
    return Condition(name, {"encoder_hidden_states": (states + scale * spread * noise).to(states.dtype)})
