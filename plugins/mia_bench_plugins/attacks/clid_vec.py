"""CLiD_vec: boosted trees on conditional likelihood discrepancies (Zhai et al. 2024, arXiv:2405.14800)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, Timestep, hookimpl, scoring
from mia_bench.fit import TAG, held_out
from mia_bench_plugins.attacks.clid import CLiD, Reduction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.fit import Predict


class CLiDVec(CLiD):
    """Boosted trees that tell members by (l(c), D_1, ..., D_K), unscaled: the loss and each reduced caption's rise.

    The authors use XGBoost: 20 trees of depth 3, rate 0.3, 0.7 of the rows and 0.7 of the columns, gamma 0.7, L1 and
    L2 penalties of 1, hessian of at least 1 in a leaf. These are scikit-learn's trees with the same number, depth, rate
    and shares; columns are drawn for each split instead of each tree; a leaf holds at least 4 rows, which is a hessian
    of 1 while nothing is learned yet. There is no gamma and no penalty, so leaves go further. They are fitted on the
    calibration set (the authors': a shadow model), whose own samples are scored out of fold.
    """

    meta = Meta(
        name="clid-vec",
        summary="classifier of the denoising error's rises when the caption is reduced",
        paper="arXiv:2405.14800",
        citation="Zhai et al., NeurIPS 2024, CLiD_vec",
        licence="none stated",
        access=Access.LOSS,
        needs=frozenset({Capability.DENOISE, Capability.CAPTION}),
        caption="required",
        calibration="required",
        orientation="lower is member",
        equation="s = P(member | l(c), D_1, ..., D_K), D_i = l(c*_i) - l(c), l(c) = mean_t (e(x_t, t, c) - ε)²",
        faults=(
            *CLiD.meta.faults[:-2],
            "Target and shadow images come of one set of 5,000, so that trees may be judged on what they were fitted "
            "on.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timesteps, one noise draw each.
            reduction: `clip` thirds of the characters + null, `importance` the most important words + null (needs
                word weights from the dataset), `gaussian` noise of 0.5, 0.7 and 0.9 standard deviations on the text
                states + null (unverified: the paper gives no formula), `null` the empty caption alone.
            seed: Of the rows and columns that a tree sees.
        """

        t: tuple[Timestep, ...] = Field((440, 450, 460), min_length=1)
        reduction: Reduction = "clip"
        seed: int = scoring(0, ge=0, lt=2**32)

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        losses = measured["losses"].mean(axis=1)  # (N, captions): full, reduced, null
        features = np.hstack([losses[:, :1], losses[:, 1:] - losses[:, :1]])
        return Scores(held_out(features, measured, calibration, self.fit), tags=(TAG,))

    def fit(self, features: NDArray[np.float64], member: NDArray[np.bool_]) -> Predict:
        """The trees fitted on features `(n, 1 + K)`."""
        from sklearn.ensemble import GradientBoostingClassifier

        trees = GradientBoostingClassifier(
            n_estimators=20,
            max_depth=3,
            learning_rate=0.3,
            subsample=0.7,
            max_features=0.7,
            min_samples_leaf=4,
            random_state=self.params.seed,
        )
        trees.fit(features, member)
        return lambda x: trees.predict_proba(x)[:, 1]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [CLiDVec]
