"""The record of a run: everything a report, a leaderboard or a gate reads; `results.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mia_bench.metrics import Evaluation, Gap, Metric, Suspects, Verdict

ASKED = ("seed", "noise", "independent_noise", "dtype", "latent")
"""How a target was asked: fields of plan and result that must be equal where scores are held against each other."""

RESULT_VERSION = 2


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Record):
    """Which audited samples the scores are asked to tell apart."""

    positives: Literal["members", "memorised", "suspects"] = "members"
    """`memorised`: samples of that split, which the target saw far more often than its other members; `suspects`:
    audited samples whose membership is unknown."""

    negatives: Literal["nonmembers", "members"] = "nonmembers"
    """From the audit set."""

    @property
    def names(self) -> tuple[str, str]:
        """What positives and negatives are called."""
        if self.positives == "members":
            return "members", "non-members"
        if self.positives == "suspects":
            return "samples of unknown membership", "non-members"
        return "memorised images", "other members" if self.negatives == "members" else "non-members"


MEMBERSHIP = Task()
SUSPECTS = Task(positives="suspects")


class Calibration(_Record):
    """What a row's threshold, scalers, weights and classifiers were fitted on."""

    source: Literal["own", "same target", "shadow", "none"]
    """`own`: the run's calibration set; `same target`: known members of the target in another run; `shadow`: another
    run on another target. Known members of the target are more than most attackers have; a shadow, they can make."""

    n_members: int = 0
    """Members fitted on."""

    n_nonmembers: int = 0
    """Non-members fitted on."""

    left_out: int = 0
    """Labelled samples of the other run that this one scores too, so that nothing was fitted on them."""

    reason: str | None = None
    """Why there is none."""


class Shadow(_Record):
    """Another run whose labelled samples stand in for the calibration set."""

    run: str
    """Its folder, as it was named."""

    dataset: str
    dataset_revision: str
    target: str
    target_fingerprint: str
    target_options: dict[str, Any] = {}
    samples_hash: str
    seed: int
    noise: str
    dtype: str
    latent: str


class Row(_Record):
    """One attack or control on the audit set."""

    label: str
    """`attack` or `attack@preset`."""

    control: bool
    """Whether it is a control, which never asks the target."""

    params: dict[str, Any]
    """Resolved parameters."""

    changed: tuple[str, ...] = ()
    """Parameters the user set to other than the default or the preset."""

    fingerprint: str
    """Identity of its measurements."""

    definition: str = ""
    """The same without target, noise and precision: equal in rows that may be compared."""

    status: Literal["ok", "failed", "empty"]
    """`failed`: its own fault left it without scores; `empty`: no sample could be measured or compared."""

    reason: str | None = None
    """Why it has no scores."""

    n: int = 0
    """Samples of the task (audit samples with known membership) that were scored."""

    uncaptioned: int = 0
    """Samples left out because they have no caption."""

    evaluation: Evaluation | None = None
    """Metrics with intervals."""

    verdicts: dict[str, Verdict] = {}
    """Metric -> what it shows beside chance and the blind baselines; empty for controls."""

    behind: dict[str, Gap] = {}
    """Metric -> this attack minus the one with the largest value in the table, paired; not for that one itself."""

    suspects: Suspects | None = None
    """How many samples of unknown membership score above thresholds from known non-members; None without such."""

    tags: tuple[str, ...] = ()
    """Marks such as `transductive`."""

    calibration: Calibration | None = None
    """What it was calibrated on; None for controls, and in results of earlier versions."""

    fitted: dict[str, float] = {}
    """What was fitted on the calibration set or its stand-in."""

    queries: float | None = None
    """Denoiser queries asked per image."""

    backward: float | None = None
    """Backward passes per image."""

    seconds: float | None = None
    """Seconds per image, charged by the queries asked."""


class CaptionControl(_Record):
    """One attack again with other captions than the samples' own; see `run --controls`."""

    captions: str
    """`neutral`: one for all; `shuffled`: each sample has another's, of its split."""

    label: str
    """The attack; empty where the whole control could not be run."""

    n: int = 0
    """Samples that were scored with both."""

    auc: Metric | None = None
    """With those captions."""

    lost: Gap | None = None
    """AUC with the samples' own captions minus that, paired; adjusted over all attacks and both controls (Holm)."""

    reason: str | None = None
    """Why there is no difference, or what else differs."""


class Division(_Record):
    """How the harness itself chose among a dataset's samples: `--calibration`, `--balance`."""

    calibration: float | None
    """Share of each class that was set apart as calibration set, if that was asked for."""

    members: int
    """Of the calibration set; the other count likewise."""
    nonmembers: int

    balance: bool
    """Whether the larger class of each split was cut to the size of the smaller."""

    seed: int
    """What the choice depends on, beside the samples."""

    near: int
    """Bits in which the hashes of two images may differ to be taken for near-duplicates."""

    together: int
    """Samples that share a group with another, which is never divided."""

    unread: int
    """Images that could not be read, so that their near-duplicates are unknown."""

    digest: str
    """Hash of the outcome: every audit and calibration sample with its split."""


class Source(_Record):
    """A file that scores were imported from."""

    file: str
    """As the user named it."""

    sha256: str
    split: str
    """Of its samples, where the file itself does not say."""


class Failure(_Record):
    """One sample that could not be used."""

    sample: str
    attack: str | None
    """None: by no attack."""
    reason: str


class Cost(_Record):
    """What the rows' measurements of the result's own samples cost, over all starts of the run.

    Shards that hold other samples too are scaled by the share that is the result's own; see `engine/cost.py`.
    """

    images: int
    asked: int
    """Queries asked by the rows' attacks."""
    executed: int | None
    """Queries run; None where the shards also hold attacks that are no rows of this result."""
    padding: int
    """Rows of padding."""
    backward: int
    """Backward passes."""
    stages: dict[str, float]
    """Wall seconds of each stage: load, measure, controls."""
    networks: dict[str, float]
    """Wall seconds within `measure` spent waiting for each network, on the host's clock."""


class Result(_Record):
    """A finished run."""

    schema_version: int = RESULT_VERSION
    task: Task = MEMBERSHIP
    """What is compared; `results.json` and leaderboards hold membership alone."""
    dataset: str
    dataset_revision: str
    target: str
    target_kind: str
    target_fingerprint: str
    target_options: dict[str, Any] = {}
    """How it was loaded, where that differs from the defaults."""
    target_facts: dict[str, Any] = {}
    """Where it came from: repository, commit, weight files with their sha256, notes, fixed inputs."""
    reference: str | None = None
    """The model that some attacks asked beside the target."""
    reference_fingerprint: str | None = None
    seed: int | None
    """None where that is unknown: of imported scores."""
    noise: str
    independent_noise: bool = False
    """Whether each attack drew noise of its own."""
    dtype: str
    latent: str
    samples_hash: str
    shadow: Shadow | None = None
    """The run that attacks were calibrated on, in place of the calibration set."""
    division: Division | None = None
    """How the samples were chosen, where the dataset does not fix it."""
    captions: str = "true"
    """What attacks took for the samples' captions: their own, or as `run --captions` was told."""
    n_members: int
    """Positives of the task (audit members) that at least one row could read; the other counts likewise."""
    n_nonmembers: int
    n_unknown: int
    n_left_out: int = 0
    """Samples of the task that no row could read; `failures` says why."""
    calibration: str | None
    """Why no calibration set could be used, or None."""
    rows: tuple[Row, ...]
    controls: tuple[CaptionControl, ...] = ()
    """What `run --controls` found; empty if it was not asked for, or no attack reads captions."""
    skipped: dict[str, str]
    """Attacks that cannot run on this target or dataset, and why."""
    failures: tuple[Failure, ...]
    sources: tuple[Source, ...] = ()
    """Files that all scores were imported from: target, noise, queries and time are unknown then. None if measured."""
    unfinished: str | None = None
    """How far the run has come and what goes on with it, if it was interrupted."""
    cost: Cost
    environments: tuple[dict[str, Any], ...]
    """Distinct environments that measured it."""
