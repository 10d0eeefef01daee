"""The record of an audit: what can be said of suspects beside images known to be unseen; `mia-bench audit --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from mia_bench.metrics import Gap, Metric

EVIDENCE_VERSION = 1

SetVerdict = Literal["evidence", "unresolved", "unchecked", "split", "none", "thin"]
ImageVerdict = Literal["stands out", "does not", "thin"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Draws(_Record):
    """How often the test rejects on random sets of one size."""

    n: int
    """Suspects in each draw."""
    rejected: int
    draws: int
    low: float
    """Lower end of the share's 95 % interval over draws (Clopper-Pearson); it is not about other images."""
    high: float


class Blind(_Record):
    """A control on the same suspects and non-members."""

    label: str
    auc: Metric

    @property
    def finds(self) -> bool:
        """Whether its interval lies above chance: it tells them apart by itself."""
        return self.auc.low is not None and self.auc.low > 0.5


class SetEvidence(_Record):
    """Dataset inference: do the suspects as a set score higher than known non-members?"""

    verdict: SetVerdict
    """`evidence`: the test rejects and attacks do better than all controls that never ask the target; `unresolved`: it
    rejects and attacks are not shown to do better, but controls that they are not shown to beat find nothing by
    themselves; `unchecked`: it rejects, and some control or all could not be compared; `split`: it rejects, and a
    control that attacks are not shown to beat finds a difference by itself, so that nothing says which of the two it
    is; `none`: it does not reject; `thin`: with so few samples it could not."""

    p_value: float
    """One-sided, by permutation; see `metrics/set_test.py`."""

    alpha: float
    """Level of the test."""

    n: int
    """Units among the suspects; near-duplicates are one."""
    n_nonmembers: int

    arrangements: int
    """Shuffles counted."""
    exact: bool
    """Whether these are all that there are."""

    weights: dict[str, float]
    """Attack -> its share in what is tested."""

    left_out: dict[str, str]
    """Attack -> why it has no part."""

    straddling: int
    """Samples left out because near-duplicates are among the suspects and among the non-members."""

    auc: Metric
    """Chance that a suspect scores above a non-member, by weights that neither had a part in."""

    blind: Gap | None
    """That minus a control, as if measured on other samples: the best of those that the verdict rests on; None if there
    is none to compare with."""

    unchecked: str = ""
    """Why there is none, or not all."""

    controls: tuple[Blind, ...]

    @property
    def best_finding(self) -> Blind | None:
        """The best of the controls that tell suspects from non-members by themselves."""
        return max((one for one in self.controls if one.finds), key=lambda one: one.auc.value or 0.0, default=None)

    detectable_auc: float
    """The AUC that sets of these sizes show in 80 % of cases; approximate."""

    needed: int
    """Known non-members that so many suspects need for a test at all."""

    power: tuple[Draws, ...]
    """Share of random subsets of the suspects (known members, if the run has some beside them) that is found."""
    power_of: Literal["suspects", "known members"]

    false_positives: tuple[Draws, ...]
    """The same of sets of known non-members against the other known non-members."""


class Reading(_Record):
    """One attack's score of one image among those of known non-members."""

    score: float
    percentile: float
    """Share of known non-members below, 0 to 1, ties counted one half."""
    p_value: float
    """Conformal: (1 + non-members as high) / (non-members + 1)."""
    holm: float
    """Adjusted over the image's attacks."""
    n_nonmembers: int


class Usual(_Record):
    """Where an attack's scores of known non-members lie: a histogram."""

    low: float
    """Left edge of the first bin; scores below are in it."""
    high: float
    """Right edge of the last; scores above are in it."""
    counts: tuple[int, ...]
    """Bins of equal width."""
    median: float | None = None
    top: float | None = None
    """One in twenty scores is higher."""


class ImageEvidence(_Record):
    """One image."""

    sample: str
    verdict: ImageVerdict
    p_value: float
    """The smallest adjusted one: chance that an image that was never seen stands out as much in any of the attacks."""
    over_all: float
    """The same adjusted over all images (Holm): for whoever picks an image because it stands out."""
    readings: dict[str, Reading]
    """Attack -> reading."""
    pictures: dict[str, dict[str, str]] = {}
    """Attack -> title -> file in the run folder."""


class Audit(_Record):
    """What a run says of its suspects."""

    schema_version: int = EVIDENCE_VERSION
    dataset: str
    target: str
    target_fingerprint: str
    seed: int | None
    """Of the run's noise."""
    samples_hash: str
    folder: str
    suspects: Literal["unknown", "members"]
    """Samples of unknown membership, or without such those that are labelled members."""
    n_suspects: int
    """Images that some attack scored; near-duplicates counted each."""
    n_nonmembers: int
    left_out: int
    """Images of either kind that could not be read or measured."""
    nonmembers: Literal["audit", "calibration"]
    """The split that known non-members are of."""
    alpha: float
    attacks: tuple[str, ...]
    without: dict[str, str]
    """Attacks and controls of the run that have no scores, and why."""
    failed: bool
    """Whether one of them is at fault itself."""
    usual: dict[str, Usual]
    """Attack -> scores of known non-members."""
    needed: int
    """Known non-members without which no image can stand out in so many attacks."""
    set: SetEvidence | None
    """None where no attack can take part."""
    images: tuple[ImageEvidence, ...]
    """Smallest p-value first."""
    unfinished: str | None = None
