"""Scores that another program computed, as an attack that was measured elsewhere.

What was imported is stored as a measurement: one score of each sample, or several (one per timestep, say) that `score`
reduces to one. So everything that reads a run reads an import, and another reduction is `mia-bench score` away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mia_bench.attack import Access, Attack, Measured, Meta, Scores, scoring
from mia_bench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.target import Batch, Target

IMPORTED = "imported"
"""Name in plans; no plugin may have it."""

UNKNOWN_TARGET = "an unknown target"
"""What a model is called that the user has not named."""

TERM = "score"
"""The one term of the measurement, `(N, T)`: T scores of each sample."""

TRANSDUCTIVE = "transductive"

BOTH_SIGNS = "corr of scores of both signs"
"""Where a mean over the pool may cross zero, dividing by it turns the order of scores around."""


class Imported(Attack):
    """Scores from a file."""

    meta = Meta(
        name=IMPORTED,
        summary="scores that another program computed",
        paper="",
        access=Access.NONE,
        needs=frozenset(),
        caption="unused",
        orientation="higher is member",
    )

    class Params(Attack.Params):
        """How a file's numbers become scores.

        Attributes:
            reduce: Of the scores of one sample: `only` (there is one), their `sum`, `mean`, `median`, `min` or `max`,
                or `corr`: each divided by its mean over all samples of the split, then their mean (CopyMark).
            lower_is_member: Whether low numbers mean members.
        """

        reduce: Literal["only", "sum", "mean", "median", "min", "max", "corr"] = scoring("only")
        lower_is_member: bool = scoring(False)

    def queries(self) -> int:
        """Unknown; what is known is that none is asked here."""
        return 0

    def measure(self, batch: Batch, target: Target) -> Mapping[str, Any]:
        raise UsageError("imported scores", "they come from files: there is nothing to measure", "use `mia-bench run`")

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        import numpy as np

        values = measured[TERM]
        tags: tuple[str, ...] = (IMPORTED,)
        reduce = self.params.reduce
        if reduce == "corr":
            tags += (TRANSDUCTIVE, *((BOTH_SIGNS,) if (values < 0).any() and (values > 0).any() else ()))
            values = self._by_pool_mean(values, measured.audit)
            reduce = "mean"
        if reduce == "only" and values.shape[1] > 1:
            raise UsageError(
                "imported scores", f"each sample has {values.shape[1]}", "say what becomes of them: --reduce mean"
            )
        one: NDArray[np.float64] = values[:, 0] if reduce == "only" else getattr(np, reduce)(values, axis=1)
        return Scores(-one if self.params.lower_is_member else one, tags)

    @staticmethod
    def _by_pool_mean(values: NDArray[np.float64], audit: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Scores `(N, T)` over their mean among all samples of the same split, whatever their label."""
        import numpy as np

        scaled = np.empty_like(values)
        for part in (audit, ~audit):
            means = values[part].mean(axis=0) if part.any() else np.ones(values.shape[1])
            if not (np.isfinite(means) & (means != 0)).all():
                raise UsageError("--reduce corr", "a mean over all samples is zero or infinite", "use --reduce mean")
            scaled[part] = values[part] / means
        return scaled
