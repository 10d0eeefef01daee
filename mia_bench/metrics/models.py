"""What the metrics leave behind: frozen models that serialise to strict JSON and back without loss."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

Status = Literal["ok", "flagged", "undefined"]


def _write_threshold(value: float) -> float | str:
    """Infinite thresholds as the texts "inf" and "-inf": JSON has no number for them."""
    return value if math.isfinite(value) else str(value)


Threshold = Annotated[float, PlainSerializer(_write_threshold)]
"""A threshold on scores. Infinite ones are written as the texts "inf" and "-inf" and read back as numbers."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Record):
    """One number with its interval and standing, or the reason why there is none."""

    value: float | None = Field(ge=0, le=1)
    """The number, a share (0.5, not 50); None when undefined, never 0."""

    low: float | None = Field(ge=0, le=1)
    """Lower end of the interval."""

    high: float | None = Field(ge=0, le=1)
    """Upper end of the interval."""

    level: float = Field(gt=0, lt=1)
    """Nominal coverage of the interval."""

    status: Status
    """`flagged`: too few samples to lean on; `undefined`: too few, or nothing, to compute it from."""

    reason: str | None = None
    """Why the status is not `ok`."""

    method: str | None = None
    """How the interval was made."""

    rankable: bool = False
    """Whether rows may be ordered by this number."""

    realised: float | None = Field(default=None, ge=0, le=1)
    """The error rate that the threshold really has: FNR for `tnr_at_*`, FPR for the others."""

    count: int | None = Field(default=None, ge=0)
    """That error rate as a number of samples."""

    threshold: Annotated[Threshold | None, Field(allow_inf_nan=True)] = None
    """Scores at or above it are called members; +inf calls nothing a member."""

    @model_validator(mode="after")
    def _complete(self) -> Metric:
        """No number without its interval, no gap without its reason."""
        if self.status == "undefined":
            if any(part is not None for part in (self.value, self.low, self.high)):
                raise ValueError("an undefined metric has neither value nor interval")
        elif self.value is None or self.low is None or self.high is None:
            raise ValueError("a metric needs its value and both ends of its interval")
        elif not self.low <= self.value <= self.high:
            raise ValueError(f"the interval {self.low} to {self.high} does not hold the value {self.value}")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a metric that is {self.status} needs a reason")
        if self.threshold is not None and math.isnan(self.threshold):
            raise ValueError("the threshold is NaN")
        return self


class RocPoints(_Record):
    """Corners of the ROC curve for log-log plots, to be joined by steps that hold until the next point."""

    fpr: tuple[float, ...] = ()
    """From 1 / n_nonmembers, the least that can be resolved, rising to 1."""

    tpr: tuple[float, ...] = ()
    """Largest TPR within each FPR."""


class Transferred(_Record):
    """Rates on the audit set at a threshold that was chosen on the calibration set for a false-positive rate."""

    max_fpr: float = Field(ge=0, le=1)
    """Largest FPR on the calibration set."""

    n_calibration: int = Field(ge=0)
    """Non-members of the calibration set, from which the threshold comes."""

    chosen_fpr: float | None = Field(default=None, ge=0, le=1)
    """FPR on the calibration set at the threshold; None when undefined."""

    tpr: Metric
    """TPR on the audit set; `realised` and `count` are of its non-members, here and in `fpr`."""

    fpr: Metric
    """FPR on the audit set; it need not be near `max_fpr`."""

    holds: Literal["yes", "too high", "too low"] | None = None
    """Whether that FPR can be that of non-members like those of the calibration set; None when undefined."""


class Evaluation(_Record):
    """All metrics of one attack on one audit set."""

    n_members: int = Field(ge=0)
    """Members scored."""

    n_nonmembers: int = Field(ge=0)
    """Non-members scored."""

    auc: Metric
    """Chance that a member scores above a non-member."""

    tpr_at_1: Metric
    """Largest TPR with FPR at most 1 %."""

    tpr_at_01: Metric
    """Largest TPR with FPR at most 0.1 %."""

    tnr_at_1: Metric
    """Largest TNR with FNR at most 1 %: the other tail."""

    tnr_at_01: Metric
    """Largest TNR with FNR at most 0.1 %."""

    asr_oracle: Metric
    """Largest (TPR + TNR) / 2 over thresholds chosen on the audit set itself: optimistic."""

    asr_calibrated: Metric
    """(TPR + TNR) / 2 at the threshold chosen on the calibration set."""

    transferred: tuple[Transferred, ...] = ()
    """TPR and FPR at thresholds chosen on the calibration set; empty in results of earlier versions."""

    roc: RocPoints = RocPoints()
    """The curve."""

    bootstrap_seed: int
    """Seed of the bootstrap."""

    bootstrap_resamples: int = Field(ge=1)
    """Number of resamples."""


class Gap(_Record):
    """A difference of one metric between two scores of the same samples."""

    against: str
    """What is taken off: the label of a row, or what it was run on."""

    value: float | None = Field(ge=-1, le=1)
    """None when undefined."""

    low: float | None = Field(ge=-1, le=1)
    """Lower end of the 95 % interval; None where there is none."""

    high: float | None = Field(ge=-1, le=1)
    """Upper end."""

    p_value: float | None = Field(ge=0, le=1)
    """Two-sided, of no difference, not adjusted."""

    adjusted: float | None = Field(default=None, ge=0, le=1)
    """The same, adjusted for all that were tested together (Holm); None where that is not done."""

    method: str | None = None
    """How the interval was made."""

    reason: str | None = None
    """Why there is no difference, or no interval of it."""


Word = Literal["clears blind", "does not clear blind", "at chance", "too few samples", "no blind baseline"]


class Verdict(_Record):
    """What one metric of one attack shows beside chance and classifiers that never ask the target."""

    verdict: Word
    """See `metrics/verdict.py`."""

    chance: float = Field(ge=0, le=1)
    """What a score that knows nothing gives."""

    blind: Gap | None = None
    """Difference to the best blind baseline of what the attack reads, on the same samples."""

    p_value: float | None = Field(default=None, ge=0, le=1)
    """Of doing no better than some blind baseline or chance: the largest over all of them."""

    adjusted: float | None = Field(default=None, ge=0, le=1)
    """The same, adjusted over the attacks of the table (Holm)."""

    reason: str | None = None
    """What is to be said of it: why samples are too few, or a baseline is missing."""


class Exceedance(_Record):
    """Samples of unknown membership above a threshold that few non-members reach."""

    max_fpr: float = Field(ge=0, le=1)
    """Chance of a new non-member to reach it, at most."""

    above: int | None = Field(ge=0)
    """Samples whose score is at or above the threshold; None when undefined."""

    share: Metric
    """The same as a share; `realised` and `count` are of the non-members."""


class Suspects(_Record):
    """What thresholds from known non-members alone say of samples whose membership is unknown."""

    n: int = Field(ge=0)
    """Samples of unknown membership that were scored."""

    n_nonmembers: int = Field(ge=0)
    """Known non-members that the thresholds come from."""

    rates: tuple[Exceedance, ...]
    """At each allowed false-positive rate."""
