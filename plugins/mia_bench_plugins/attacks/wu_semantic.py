"""Wu et al., by an encoder's view of the image generated from the caption (2022, arXiv:2210.00968).

`wu_distance` holds the two that are one number each.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import PositiveInt

from mia_bench import Attack, Measured, hookimpl, scoring
from mia_bench.encoder import Offer
from mia_bench_plugins.attacks.wu import Wu, about

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

QUICK = {"samples": 75, "steps": 25, "encoder": "emoji-clip", "epochs": 100}
PRESETS: Mapping[str, Mapping[str, Any]] = {"captioned": {"captions": "generated"}, "quick": QUICK}


class WuSemantic(Wu):
    """Of embeddings: a perceptron of three layers, as SMP-LoRA trains it when it repeats II-S (its App. G).

    What the encoder E makes of x, x' and the caption is kept; inputs of the classifier are made of it.
    """

    class Params(Wu.Params):
        """Parameters.

        Attributes:
            encoder: E.
            hidden: Widths of the classifier's hidden layers.
        """

        encoder: str = "blip"
        hidden: tuple[PositiveInt, ...] = scoring((256, 128), min_length=1)

    presets = PRESETS
    reads: ClassVar[tuple[str, ...]]  # what is embedded: `original`, `generated`, `caption`

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        named, own = dict(super().encoders()), self.params.encoder
        offers = {Offer.EMBED, Offer.TEXT} if "caption" in self.reads else {Offer.EMBED}
        return {**named, own: named.get(own, frozenset()) | offers}

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        encoder, (captions, made) = target.encoders[self.params.encoder], self.generated(batch, target)
        ways = {
            "original": lambda: encoder.embed(batch.pixels),
            "generated": lambda: encoder.embed(made),
            "caption": lambda: encoder.text(captions),
        }
        return {name: ways[name]() for name in self.reads}  # each (B, D)

    def network(self, features: NDArray[np.float64]) -> torch.nn.Module:
        from torch.nn import Linear, ReLU, Sequential

        widths = [features.shape[1], *self.params.hidden]
        hidden = [layer for ends in pairwise(widths) for layer in (Linear(*ends), ReLU())]
        return Sequential(*hidden, Linear(widths[-1], 1))


class WuIS(WuSemantic):
    """Generation quality, by an encoder: the classifier sees E(x')."""

    meta = about(
        "wu-is",
        "classifier of an encoder's view of an image generated from the caption",
        "P(member | E(x')), x' = T2I(caption)",
    )
    reads = ("generated",)

    def features(self, measured: Measured) -> NDArray[np.float64]:
        return measured["generated"]


class WuIV(WuSemantic):
    """All that I-S, II-S and III see, side by side."""

    meta = about(
        "wu-iv",
        "classifier of all that wu-is, wu-iis and wu-iii see",
        "P(member | E(x'), ‖E(x) − E(x')‖₂, cos(E(c), E(x'))), x' = T2I(c)",
    )
    reads = ("original", "generated", "caption")

    class Params(WuSemantic.Params):
        """Parameters.

        Attributes:
            error: Of II-S: the `l2` distance, or the embeddings' `difference`, entry by entry.
            match: Of III: the `cosine`, or the embeddings' `concatenation`.
        """

        error: Literal["l2", "difference"] = scoring("l2")
        match: Literal["cosine", "concatenation"] = scoring("cosine")

    def features(self, measured: Measured) -> NDArray[np.float64]:
        parts = (measured["generated"], errors(measured, self.params.error), matches(measured, self.params.match))
        return np.concatenate(parts, axis=1)


def errors(measured: Measured, kind: str) -> NDArray[np.float64]:
    """E(x) - E(x') `(N, D)`, or its length `(N, 1)`."""
    difference = measured["original"] - measured["generated"]
    return np.linalg.norm(difference, axis=1, keepdims=True) if kind == "l2" else difference


def matches(measured: Measured, kind: str) -> NDArray[np.float64]:
    """E(c) and E(x') side by side `(N, 2 D)`, or their cosine `(N, 1)`."""
    pair = measured["caption"], measured["generated"]
    if kind == "concatenation":
        return np.concatenate(pair, axis=1)
    caption, image = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in pair)
    cosine: NDArray[np.float64] = (caption * image).sum(axis=1, keepdims=True)
    return cosine


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [WuIS, WuIV]
