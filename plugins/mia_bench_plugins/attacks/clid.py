"""CLiD: conditional likelihood discrepancy (Zhai et al. 2024, arXiv:2405.14800, Eq. 12-16, App. D)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, Timestep, hookimpl, scoring
from mia_bench.diffusion.captions import disturbed, thirds, without_important, word_weights
from mia_bench.diffusion.reduce import power_mean
from mia_bench.fit import TRANSDUCTIVE, robust

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

Reduction = Literal["clip", "importance", "gaussian", "null"]
RATES = (0.3, 0.5, 0.7)  # shares of words taken away by `importance` (App. D.2)
NOISES = (0.5, 0.7, 0.9)  # of `gaussian`, in standard deviations of the text states
ALPHAS = np.linspace(0, 1, 11)
UNCALIBRATED_ALPHA = 0.9  # what the authors' released COCO scores select


class CLiD(Attack):
    """How much worse the model predicts the noise when part of the caption is taken away.

    With l(c) the loss under caption c, averaged over timesteps, D_i = l(c*_i) - l(c) for reduced captions c*_i and
    L = -l(c), the score is alpha S(mean D) + (1 - alpha) S(L), where S centres at the median and divides by the
    interquartile range. All captions share timesteps, noise and latents.

    S and alpha are fitted on the calibration set. Without one that holds members and non-members, alpha is 0.9 and S
    comes from the unlabelled audit scores, so that a score depends on the other samples: tagged `transductive`.
    """

    meta = Meta(
        name="clid",
        summary="rise of the denoising error when the caption is reduced",
        paper="arXiv:2405.14800",
        citation="Zhai et al., NeurIPS 2024, Eq. 16",
        licence="none stated",
        access=Access.LOSS,
        needs=frozenset({Capability.DENOISE, Capability.CAPTION}),
        caption="required",
        calibration="optional",
        orientation="higher is member",
        equation="s = α S(mean_i [l(c*_i) - l(c)]) + (1 - α) S(-l(c)), l(c) = mean_t (e(x_t, t, c) - ε)²",
        faults=(
            "Any difference of wording between members' and others' captions shows in the score.",
            "The clipping script computes timesteps 485, 495, 505 and, as released, stops before it attacks.",
            "The word weights behind the main tables are not released; `importance` takes the dataset's.",
            "The paper's Gaussian noise on text states has neither formula nor code: `gaussian` is our reading.",
            "Evaluation skips the first sample as if it were a header, and takes TPR at the first FPR of 1 % or more, "
            "with non-members for the positive class.",
            "Target and shadow images come of one set of 5,000, so that they probably overlap.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timesteps, one noise draw each.
            reduction: `clip` thirds of the characters + null, `importance` the most important words + null (needs
                word weights from the dataset), `gaussian` noise of 0.5, 0.7 and 0.9 standard deviations on the text
                states + null (unverified: the paper gives no formula), `null` the empty caption alone.
            alpha: Weight of D against L in [0, 1]; fitted on the calibration set if not given.
        """

        t: tuple[Timestep, ...] = Field((440, 450, 460), min_length=1)
        reduction: Reduction = "clip"
        alpha: float | None = scoring(None, ge=0, le=1)

    presets = {
        "null": {"reduction": "null"},
        "importance": {"reduction": "importance"},
        "gaussian": {"reduction": "gaussian"},
        "clip-script": {"t": (485, 495, 505)},  # what the released clipping script computes
    }

    def queries(self) -> int:
        return len(self.params.t) * (2 if self.params.reduction == "null" else 5)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        t = self.params.t
        if self.params.reduction == "gaussian":
            reduced = [disturbed(batch, scale, draw) for draw, scale in enumerate(NOISES)]
        else:
            reduced = [target.condition(texts) for texts in self.reduced(batch)]
        captions = [batch.condition, *reduced, batch.null]
        eps = batch.eps(t)  # (B, T, C, H, W)
        predicted = target.denoiser(target.schedule.noised(batch.x0, eps, t), t, captions)
        return {"losses": power_mean(predicted - eps[:, :, None])}  # (B, T, captions): full, reduced, null

    def reduced(self, batch: Batch) -> list[list[str]]:
        """The reduced captions but the null one: K lists of B texts, none where no text is reduced."""
        match self.params.reduction:
            case "clip":
                each = [thirds(caption or "") for caption in batch.captions]
            case "importance":
                each = [
                    without_important(caption or "", word_weights(batch, row), RATES)
                    for row, caption in enumerate(batch.captions)
                ]
            case _:
                return []
        return [list(texts) for texts in zip(*each, strict=True)]

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        pool = measured.select(measured.audit) if calibration is None else calibration
        discrepancy, likelihood = (
            robust(values, fitted_on) for values, fitted_on in zip(self.terms(measured), self.terms(pool), strict=True)
        )
        alpha = self.params.alpha
        if alpha is None:
            alpha = UNCALIBRATED_ALPHA if calibration is None else best_alpha(*self.terms(calibration), calibration)
        return Scores(
            alpha * discrepancy + (1 - alpha) * likelihood,
            tags=(TRANSDUCTIVE,) if calibration is None else (),
            fitted={"alpha": float(alpha)},
        )

    @staticmethod
    def terms(measured: Measured) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """mean_i D_i and L, each `(N,)`."""
        losses = measured["losses"].mean(axis=1)  # (N, captions)
        return losses[:, 1:].mean(axis=1) - losses[:, 0], -losses[:, 0]


def best_alpha(discrepancy: NDArray[np.float64], likelihood: NDArray[np.float64], calibration: Measured) -> float:
    """The alpha in {0, 0.1, ..., 1} with the best AUC on the calibration set; the largest of equals."""
    from mia_bench.metrics import auc

    member = calibration.member
    assert member is not None, "a calibration set is labelled"
    scaled = robust(discrepancy, discrepancy), robust(likelihood, likelihood)
    return float(max(ALPHAS, key=lambda a: (auc(a * scaled[0] + (1 - a) * scaled[1], member), a)))


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [CLiD]
