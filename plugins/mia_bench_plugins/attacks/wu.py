"""Wu et al.: what their six attacks share (2022, arXiv:2210.00968).

`wu_pixel` holds I-P and II-P, which look at pixels; `wu_semantic` I-S and IV, `wu_distance` II-S and III, which ask an
encoder.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, scoring
from mia_bench.attack import PARTIAL
from mia_bench.encoder import Offer
from mia_bench.errors import SampleError
from mia_bench.fit import TAG, Predict, held_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


def about(name: str, summary: str, equation: str, *faults: str, **known: Any) -> Meta:
    """What the six attacks have in common."""
    return Meta(
        name=name,
        summary=summary,
        paper="arXiv:2210.00968",
        citation="Wu et al., 2022",
        licence="no program",
        access=Access.IMAGES,
        needs=frozenset({Capability.GENERATE, Capability.CAPTION}),
        orientation="higher is member",
        equation=equation,
        faults=(
            "Rebuilt from what other papers say of it: the ideas and II-S's inputs and encoder are established; what "
            "III and IV see, and the networks, are ours.",
            "The paper draws what BLIP says of the image (`captioned`); by default the dataset's caption is drawn, "
            "which an attacker may not have.",
            "The paper's accuracy near 1 compares members and others of different datasets (SecMI, Section 2).",
            *faults,
        ),
        **{"calibration": "required", **known},
    )


class Wu(Attack):
    """The model knows how to draw what it was trained on: one image x' is generated from the caption, and judged.

    All six attacks judge the same x': equal requests of one batch are answered once. Only generated images are seen.
    Each has a classifier, fitted on the calibration set; inputs are standardised by the mean and spread (a channel's,
    for images) of the rows it is fitted on. A classifier of the images alone can do as well where members and others
    come from different sources: compare with the control `blind@encoder`, which never asks the target (a
    weaker one than the same classifier on E(x) would be: its encoder is made for icons).
    """

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            captions: What is drawn: the sample's `true` caption, or one `generated` from the image, as in the paper.
            captioner: The encoder that writes generated captions.
            steps: Of DDIM.
            guidance: w; each step is two queries unless it is 0 or 1.
            draw: Number of the noise that the generation starts from.
            epochs: Passes of the classifier over the calibration set; the last is kept.
            rate: Of Adam.
            rows: Most samples per step of Adam.
            seed: Of the network's first weights and the order of samples.
        """

        captions: Literal["true", "generated"] = "true"
        captioner: str = "blip"
        steps: int = Field(50, ge=1, le=999)
        guidance: float = Field(7.5, ge=0)
        draw: int = Field(0, ge=0)
        epochs: int = scoring(200, ge=1)
        rate: float = scoring(1e-4, gt=0)
        rows: int = scoring(64, ge=2)
        seed: int = scoring(0, ge=0)

    folds = 5

    def queries(self) -> int:
        steps: int = self.params.steps
        return steps * (1 if self.params.guidance in (0, 1) else 2)

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        return {self.params.captioner: frozenset({Offer.CAPTION})} if self.params.captions == "generated" else {}

    def generated(self, batch: Batch, target: Target) -> tuple[list[str], torch.Tensor]:
        """A caption for each sample, and what the target makes of it: float32 `(B, 3, H, W)` in [-1, 1].

        Raises:
            SampleError: The sample has no caption.
        """
        p = self.params
        if p.captions == "generated":
            captions = target.encoders[p.captioner].captions(batch.pixels)
        else:
            captions = [caption or "" for caption in batch.captions]
            for sample, caption in zip(batch.ids, captions, strict=True):
                if not caption:
                    fix = f"give it one, or let an encoder write it: {self.meta.name}@captioned"
                    raise SampleError(f"what to generate for sample {sample!r}", "it has no caption", fix)
        return captions, target.generate(batch, captions, steps=p.steps, guidance=p.guidance, draw=p.draw)

    def artifacts(self, batch: Batch, target: Target) -> dict[str, torch.Tensor]:
        original, (_, made) = batch.pixels, self.generated(batch, target)
        return {"original": original, "generated": made, "difference": (original - made).abs() - 1}

    @abstractmethod
    def features(self, measured: Measured) -> NDArray[np.float64]:
        """What the classifier sees, `(N, ...)`."""

    @abstractmethod
    def network(self, features: NDArray[np.float64]) -> torch.nn.Module:
        """A new classifier of inputs like these, with one output."""

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        features = self.features(measured)
        values = held_out(features, measured, calibration, self.fit, self.folds, at_once=True)
        return Scores(values, tags=(PARTIAL, TAG))

    def fit(self, features: NDArray[np.float64], member: NDArray[np.bool_]) -> Predict:
        """The classifier's logit of membership, by cross-entropy."""
        from torch.nn.functional import binary_cross_entropy_with_logits
        from torch.optim import Adam

        from mia_bench.resnet import trained

        p, over = self.params, (0, *range(2, features.ndim))
        centre, spread = (f(features, axis=over, keepdims=True) for f in (np.mean, np.std))
        spread[spread == 0] = 1.0
        network = trained(
            lambda: self.network(features),
            (features - centre) / spread,
            member[:, None].astype(np.float32),
            loss=binary_cross_entropy_with_logits,
            optimizer=lambda weights: Adam(weights, lr=p.rate),
            epochs=p.epochs,
            batch=p.rows,
            seed=p.seed,
        )
        return lambda x: network((x - centre) / spread)[:, 0]
