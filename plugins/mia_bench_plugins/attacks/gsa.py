"""GSA: gradients of the loss with respect to the weights (Pang et al. 2023, arXiv:2308.06405)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, Timestep, hookimpl
from mia_bench.diffusion.reduce import power_sum
from mia_bench.fit import TAG, Predict, held_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class GSA(Attack):
    """How strongly each weight tensor would still be pulled by training on the image: a white-box upper bound.

    With L_t = sum of (e(q(x0, eps_t, t), t) - eps_t)^2, the features are the L2 norms of the gradient of sum_t L_t, one
    for each tensor of the denoiser's weights in the order of the checkpoint (GSA1), or the sums over t of the norms of
    the gradients of L_t (GSA2). A classifier of boosted trees, fitted on the calibration set, scores them. Sums or
    means over pixels and timesteps only scale a feature, and a tree does not see scales: nothing is standardised.

    One image is differentiated at a time. Memory holds the activations of all its timesteps at once, whatever the row
    count (GSA2: of one timestep), and one gradient as large as the weights.
    """

    meta = Meta(
        name="gsa",
        summary="norms of the loss's gradient with respect to each weight tensor",
        paper="arXiv:2308.06405",
        citation="Pang et al., 2023",
        licence="none stated",
        access=Access.GRADIENT,
        needs=frozenset({Capability.DENOISE, Capability.GRADIENT}),
        calibration="required",
        orientation="higher is member",
        equation="P(member | ‖∇_w Σ_t L_t‖₂ for each weight tensor w); GSA2: Σ_t ‖∇_w L_t‖₂",
        faults=(
            "Shadow models supply the labelled samples in the paper; here the calibration set does.",
            "The paper squares the norms of a layer; the program takes unsquared norms of each tensor, as here.",
            "The program standardises every set by its own statistics: a score depends on the other samples.",
            "Its pixel-space script takes 15 timesteps, 100, 200, ..., 1400, 1499 of 1500, where the paper has 10.",
            "XGBoost there; scikit-learn's trees here, with its number, depth, shrinkage and penalty, on coarser bins.",
            "CopyMark's scores are hard 0/1 labels, from half-precision gradients with NaN replaced; its evaluation "
            "rows are the classifier's training data.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timesteps, one noise draw each. Ten equidistant ones; which is ours, after the spacing of the authors'
                pixel-space script (multiples of 100, then the last).
            backward: `once` through the loss summed over t (GSA1), or through `each` t by itself (GSA2).
        """

        t: tuple[Timestep, ...] = Field((*range(100, 1000, 100), 999), min_length=1)
        backward: Literal["once", "each"] = "once"

    presets = {
        "quick": {"samples": 75},
        "gsa2": {"backward": "each"},
        "copymark": {"t": tuple(range(951, 0, -50))},
        "copymark-gsa2": {"t": tuple(range(951, 0, -50)), "backward": "each"},
    }

    def queries(self) -> int:
        return len(self.params.t)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        from mia_bench.diffusion.keyed import plain

        t, denoiser, given = self.params.t, target.denoiser, batch.condition
        x, eps = plain(target.schedule.noised(batch.x0, batch.eps(t), t)), plain(batch.eps(t))  # (B, T, C, H, W)
        at_once = len(t) if self.params.backward == "once" else 1
        with target.differentiable() as weights:

            def norms(i: int) -> torch.Tensor:
                """Of one sample's gradients; a call for several would add them up."""
                one, row = given.select(torch.tensor([i], device=x.device)), slice(i, i + 1)
                total = torch.zeros(len(weights), device=x.device)
                for start in range(0, len(t), at_once):
                    some = slice(start, start + at_once)
                    with torch.enable_grad():
                        predicted = denoiser(x[row, some], t[some], one, grad=True, pad=False)
                        loss = power_sum(predicted - eps[row, some]).sum(dim=1)  # (1,)
                        gradients = denoiser.gradient(loss, list(weights.values()))
                    total = total + torch.stack([g.float().norm() for g in gradients])
                return total

            rows = denoiser.rows.each(norms, len(batch))
        return {"norms": torch.stack(rows)}  # (B, weight tensors)

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        return Scores(held_out(measured["norms"], measured, calibration, boosted_trees), tags=(TAG,))


def boosted_trees(features: NDArray[np.float64], member: NDArray[np.bool_]) -> Predict:
    """200 trees as XGBoost grows them by default; scores are log-odds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    trees = HistGradientBoostingClassifier(
        learning_rate=0.3,
        max_iter=200,
        max_depth=6,
        max_leaf_nodes=None,
        min_samples_leaf=4,  # XGBoost's least weight of 1, where a sample weighs at most 1/4
        l2_regularization=1.0,
        max_bins=32,  # quantiles of a feature; 255 take six times as long
        early_stopping=False,
    )
    with threadpool_limits(1):  # the same sums on any number of cores; threads gain nothing at this size
        trees.fit(features, member)

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        with threadpool_limits(1):
            scores: NDArray[np.float64] = trees.decision_function(rows)
        return scores

    return predict


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [GSA]
