"""Ensemble: several attacks' scores in one, weighted on the calibration set (after CDI's scorer, arXiv:2411.12858)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import field_validator

from mia_bench import Access, Attack, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.errors import MiaBenchError
from mia_bench.fit import TAG, held_out, logistic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class Ensemble(Attack):
    """Log-odds of membership, by logistic regression on the scores of other attacks.

    Scores are standardised by the calibration set; weights are fitted on it with penalty L2, C = 1, so that attacks
    which say the same share their weight. The scores of calibration samples come from fits that did not see them: an
    attack that only remembers its calibration set earns no weight. `fitted` has the weights: how much a standard
    deviation of each score adds to the log-odds.

    It asks the target nothing of its own: what it combines is run with it, and is in the table too.
    """

    meta = Meta(
        name="ensemble",
        summary="logistic combination of other attacks' scores",
        paper="arXiv:2411.12858",
        citation="after the scoring model of Dubiński et al., CVPR 2025",
        access=Access.NOISE,
        needs=frozenset(),
        caption="optional",
        calibration="required",
        orientation="higher is member",
        faults=(
            "CDI fits its logistic regression on features of attacks and judges a whole set; here it is on "
            "finished scores and judges each image. For sets there is `mia-bench audit`.",
        ),
        equation="s = b + Σ_a w_a (s_a - mean(s_a)) / std(s_a), mean, std, w and b from the calibration set",
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            of: Labels of the attacks that are combined, two or more, presets included. The defaults cost 5 queries an
                image and need neither captions nor gradients; they read the loss, the predicted noise and its size.
        """

        of: tuple[str, ...] = scoring(("loss", "pia", "pian"), min_length=2)

        @field_validator("of")
        @classmethod
        def _distinct(cls, of: tuple[str, ...]) -> tuple[str, ...]:
            if len(set(of)) < len(of):
                raise ValueError("an attack is named twice")
            return of

    presets = {
        "caption": {"of": ("clid", "loss", "pia")},
        "all-cheap": {"of": ("clid", "loss", "mc", "pfami", "pia", "pian", "secmi", "sima")},
    }

    def requires(self) -> tuple[str, ...]:
        return tuple(self.params.of)

    def queries(self) -> int:
        return 0

    def generations(self) -> int:
        return 0

    def measure(self, batch: Batch, target: Target) -> Mapping[str, Any]:
        return {}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        features = stacked(measured)
        scores = held_out(features, measured, calibration, logistic)
        assert calibration is not None and calibration.member is not None, "held_out refuses to do without"
        weights = logistic(stacked(calibration), calibration.member).weights
        return Scores(scores, tags=(TAG,), fitted=dict(zip(calibration, weights.tolist(), strict=True)))


def stacked(measured: Measured) -> NDArray[np.float64]:
    """Scores of all attacks, `(N, attacks)`.

    Raises:
        MiaBenchError: One has an infinite score, which cannot be standardised.
    """
    for label, values in measured.items():
        if not np.isfinite(values).all():
            raise MiaBenchError(f"scores of {label}", "some are infinite", "leave it out of the ensemble")
    return np.stack([*measured.values()], axis=1)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Ensemble]
