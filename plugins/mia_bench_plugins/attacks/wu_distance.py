"""Wu et al., by how near the generated image is to the image or to its caption (2022, arXiv:2210.00968)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from mia_bench import Attack, Measured, Scores, hookimpl, scoring
from mia_bench.attack import PARTIAL
from mia_bench_plugins.attacks.wu import about
from mia_bench_plugins.attacks.wu_semantic import PRESETS, WuSemantic, errors, matches

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FREE = {"classifier": "none"}


class WuDistance(WuSemantic):
    """One number each, which can also be the score: then no calibration set is needed."""

    class Params(WuSemantic.Params):
        """Parameters.

        Attributes:
            classifier: The perceptron `mlp`, or `none`; without a calibration set there is none either.
        """

        classifier: Literal["mlp", "none"] = scoring("mlp")

    presets = {**PRESETS, "training-free": FREE, "quick-training-free": {**PRESETS["quick"], **FREE}}

    @abstractmethod
    def number(self, measured: Measured) -> NDArray[np.float64]:
        """Higher = member, `(N,)`."""

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        if self.params.classifier == "none":
            return Scores(self.number(measured), tags=(PARTIAL,))
        if calibration is None:
            return Scores(self.number(measured), tags=(PARTIAL, "training-free"))
        return super().score(measured, calibration)


class WuIIS(WuDistance):
    """Reconstruction error, by an encoder: the classifier sees how far E(x') is from E(x).

    Without a classifier the negated distance is the score, and no calibration set is needed.
    """

    meta = about(
        "wu-iis",
        "classifier of the distance of the image from one generated from its caption, to an encoder",
        "P(member | ‖E(x) − E(x')‖₂), x' = T2I(caption); without a classifier −‖E(x) − E(x')‖₂",
        "SMP-LoRA's replication on a tuned model has accuracy 72.4 % at an AUC of about 0.67 (its Table 11).",
        calibration="optional",
    )
    reads = ("original", "generated")

    class Params(WuDistance.Params):
        """Parameters.

        Attributes:
            error: What the classifier sees: the `l2` distance, or the embeddings' `difference`, entry by entry.
        """

        error: Literal["l2", "difference"] = scoring("l2")

    def features(self, measured: Measured) -> NDArray[np.float64]:
        return errors(measured, self.params.error)

    def number(self, measured: Measured) -> NDArray[np.float64]:
        return -errors(measured, "l2")[:, 0]


class WuIII(WuDistance):
    """Faithfulness to the text: the classifier sees how well x' fits the caption, to an encoder of both.

    Without a classifier the cosine is the score, and no calibration set is needed. Captions fit images well or badly
    whatever the model has seen, and a memorised image fits no better than the original does: this spread hides most of
    what there is to see, also where the image itself is drawn again.
    """

    meta = about(
        "wu-iii",
        "classifier of how well an image generated from the caption fits it, to an encoder",
        "P(member | cos(E(c), E(x'))), x' = T2I(c); without a classifier cos(E(c), E(x'))",
        calibration="optional",
    )
    reads = ("generated", "caption")

    class Params(WuDistance.Params):
        """Parameters.

        Attributes:
            match: What the classifier sees: the `cosine`, or the embeddings' `concatenation`.
        """

        match: Literal["cosine", "concatenation"] = scoring("cosine")

    def features(self, measured: Measured) -> NDArray[np.float64]:
        return matches(measured, self.params.match)

    def number(self, measured: Measured) -> NDArray[np.float64]:
        return matches(measured, "cosine")[:, 0]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [WuIIS, WuIII]
