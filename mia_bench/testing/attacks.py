"""The checks of attacks and controls."""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_bench.attack import Access, Attack, Capability
from mia_bench.dataset import Sample
from mia_bench.engine.prepare import DEFAULT_DATASET, RunOptions
from mia_bench.engine.run import run
from mia_bench.engine.samples import take
from mia_bench.errors import UnavailableError
from mia_bench.plugins import Registry
from mia_bench.store import Store
from mia_bench.testing.common import check_summary, loads, register
from mia_bench.testing.suite import Case, Fault
from mia_bench.testing.tiny import TinyGenerator, TinyPixels, TinyTarget, batch_of, icons
from mia_bench.testing.trial import Trial, dataset_of, encoders_of, made, outcome, required_by, stubs, tried

if TYPE_CHECKING:
    from mia_bench.diffusion.denoiser import Denoiser

PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|10\.\d{4,}/\S+|openreview:\w+|https://\S+|none\b.*")
OVERTRAINED = "emoji-overtrain"  # the embedded target that remembers most
BASE = "emoji-mirror"  # of the same making, for attacks that ask a second model
EACH, QUERIES = 32, 1600  # orientation: samples of each class, fewer where they cost more queries than this
OWN_NOISE = "draw noise with batch.eps(t, draw) or batch.draw(...): torch's and numpy's generators are shared by all"
PER_SAMPLE = (
    "reduce each sample by itself with mia_bench.diffusion.reduce; keep nothing in the instance between batches, and "
    "leave the splitting into calls to the denoiser"
)


class AttackCase(Case):
    """One attack or control.

    Args:
        plugin: Its class.
        preset: What is run; `quick` if it has one, else its defaults.
        params: What is set beside it, e.g. fewer epochs of a classifier that takes long to train.
        rtol: How far terms may differ between row counts, relative to the largest value of the term.
    """

    kind = "attack"

    def __init__(
        self,
        plugin: type[Attack],
        preset: str | None = None,
        params: Mapping[str, Any] | None = None,
        rtol: float = 1e-5,
    ) -> None:
        self.plugin, self.params, self.rtol = plugin, dict(params or {}), rtol
        self.preset = preset if preset is not None else "quick" * ("quick" in plugin.presets)
        self._trials: dict[str, Trial] = {}

    @property
    def label(self) -> str:
        """What is run."""
        return self.name + (f"@{self.preset}" if self.preset else "")

    @cached_property
    def samples(self) -> list[Sample]:
        """Audit, calibration and memorised images, enough for a control."""
        given = icons(10, 10, (6, 6))
        return given + [replace(s, id=f"memorised-{s.id}", split="memorised") for s in given[:3]]

    @property
    def relabelled(self) -> list[Sample]:
        """The same with the labels of the audit set dealt out anew."""
        labels = [s.member is True for s in self.samples if s.split == "audit"]
        dealt = iter(np.random.default_rng(0).permutation(labels).tolist())
        return [replace(s, member=next(dealt)) if s.split == "audit" else s for s in self.samples]

    @property
    def plain(self) -> Trial:
        """The run that others are compared with."""
        return self.trial("plain")

    def trial(self, name: str, samples: list[Sample] | None = None, **options: Any) -> Trial:
        """A run, done once."""
        if name not in self._trials:
            given = {self.label: self.params} if self.params else {}
            self._trials[name] = tried(self.plugin, self.label, samples or self.samples, options=given, **options)
        return self._trials[name]

    def same(self, other: Trial, fix: str) -> None:
        """Raise a fault if another run differs from the plain one."""
        if found := self.plain.differs(other):
            raise Fault(found, fix)


def metadata(case: AttackCase) -> None:
    """A summary of one line, a docstring, a paper that can be found and who wrote it, access that fits the needs.

    The paper is `arXiv:2305.18355`, a DOI (`10.1109/...`), `openreview:ID`, a link, or `none` and why; the citation
    has authors, then where or when.
    """
    check_summary(case)
    meta = case.plugin.meta
    if not PAPER.fullmatch(meta.paper):
        fix = "write arXiv:YYMM.NNNNN, a DOI, openreview:ID, a link, or none: and why there is no paper"
        raise Fault(f"the paper {meta.paper!r}", fix)
    if not meta.paper.startswith("none") and not re.search(r"\w.*,\s*\w", meta.citation):
        fix = "write meta.citation as `Authors, venue year`, e.g. `Kong et al., ICLR 2024, Eq. 9`"
        raise Fault(f"the citation {meta.citation!r} of {meta.paper}", fix)
    if Capability.GRADIENT in meta.needs and meta.access is not Access.GRADIENT:
        raise Fault(f"it needs gradients and its access is {meta.access}", "write access=Access.GRADIENT")
    for alias, whole in case.plugin.aliases.items():
        if whole.partition("@")[0].partition("[")[0] != meta.name:
            raise Fault(f"the alias {alias!r} stands for {whole!r}", f"an alias stands for a label of {meta.name}")


def parameters(case: AttackCase) -> None:
    """Each parameter is explained, and each preset survives being stored, pickled and read again."""
    from mia_bench.report.parameters import parameters as described

    for record in described(case.plugin):
        if not record["meaning"]:
            fix = f"add the line `{record['name']}: what it means, with its unit` to the docstring of Params"
            raise Fault(f"nothing is said of the parameter {record['name']!r}", fix)
    for preset in ("", *case.plugin.presets):
        for kind in ("pixel", "latent"):
            params = made(case.plugin, preset, kind).params
            _survives(params, preset)


def _survives(params: Any, preset: str) -> None:
    what = f"the parameters of preset {preset!r}" if preset else "the defaults"
    try:
        again = pickle.loads(pickle.dumps(params))
        read = type(params).model_validate(params.model_dump(mode="json"))
    except Exception as error:
        fix = "define Params in the class or module, of plain values: numbers, texts, tuples"
        raise Fault(f"{what} cannot be stored and read again: {type(error).__name__}: {error}", fix) from error
    if again != params or read != params:
        fix = "give every parameter a type that JSON can hold, and no validator that changes valid values"
        raise Fault(f"{what} come back changed: {params!r}, then {again if again != params else read!r}", fix)
    if not params.model_config.get("frozen"):
        raise Fault(f"{what} can be changed after they are planned", "keep `frozen=True` in model_config")


def determinism(case: AttackCase) -> None:
    """The same run twice gives the same bits, whatever the global generators hold."""
    case.same(case.trial("again", seeded=1), OWN_NOISE)


def batches(case: AttackCase) -> None:
    """Other batches, another order, threads, nothing shared: the same bits, since a sample's numbers are its own."""
    order = case.samples[::-1]
    case.same(case.trial("cut", order, batch=7, threads=2, share=False), PER_SAMPLE)


def rows(case: AttackCase) -> None:
    """Another row count of the networks' calls changes rounding, and nothing else."""
    far, term = case.plain.distance(case.trial("rows", rows=5))
    if far > case.rtol:
        found = f"term {term!r} is off by {far:.2g} of its largest value at 5 rows a call instead of 16"
        fix = f"{PER_SAMPLE}; where rounding is what is measured, allow more: conformance(..., rtol={2 * far:.0e})"
        raise Fault(found, fix)


def finite(case: AttackCase) -> None:
    """Every sample gets a finite score, and not all the same one."""
    trial = case.plain
    if trial.failed:
        raise Fault(f"{len(trial.failed)} samples are lost, {trial.failed[0]}", "return finite terms for any image")
    if bad := [i for i, value in trial.scores.items() if not np.isfinite(value)]:
        fix = "guard divisions and logarithms in `score`"
        raise Fault(f"sample {bad[0]!r} scores {trial.scores[bad[0]]}; {len(bad)} such", fix)
    wanted = {s.id for s in case.samples if s.split == "audit"}
    if missing := wanted - trial.scores.keys():
        raise Fault(f"{len(missing)} samples of the audit set have no score", "score every row of `measured`")
    if len(set(trial.scores.values())) == 1:
        raise Fault("all samples score the same", "return what was measured of each")


def label_blindness(case: AttackCase) -> None:
    """Dealing out the labels of the audit set anew leaves every score as it was, bit for bit."""
    fix = "fit on `calibration` alone; an attack that may see audit labels is a Control"
    case.same(case.trial("relabelled", case.relabelled), fix)


def queries(case: AttackCase) -> None:
    """The denoiser counts as many queries an image as `queries()` says, with every preset, on either kind of target.

    Of a target that only generates, as many images as `generations()` says.
    """
    cls = case.plugin
    for preset in ("", *cls.presets):
        _counted(case, TinyTarget, preset)
    _counted(case, TinyPixels, case.preset)
    if Capability.DENOISE not in made(cls, case.preset, "pixel").needs():
        _counted(case, TinyGenerator, case.preset, "generations")


def _counted(case: AttackCase, target_class: type[Any], preset: str, method: str = "queries") -> None:
    samples = [replace(s, word_weights=_weights(s.caption or "")) for s in icons(2, 0)]
    if (found := _measured(case, target_class, preset, samples)) is None:
        return
    attack, denoiser = found
    asked, declared = denoiser.asked.total() / len(samples), getattr(attack, method)()
    fewer = asked < declared and denoiser.backward.total()  # a descent stops early, sample by sample
    if asked != declared and not fewer:
        what = f"preset {preset!r}" if preset else "the defaults"
        fix = f"return {asked:g} from `{method}` there, or ask as many as it says; a guided step is two"
        raise Fault(f"{what} ask {asked:g} an image of {target_class.meta.name}, and say {declared}", fix)


def _weights(caption: str) -> tuple[float, ...]:
    return tuple(float(place) for place, _ in enumerate(caption.split(" ")))


def _measured(
    case: AttackCase, target_class: type[Any], preset: str, samples: list[Sample]
) -> tuple[Attack, Denoiser] | None:
    """One batch, measured and not scored: the attack and whom it asked; None if the target cannot do what it needs."""
    import torch

    attack, target = made(case.plugin, preset, target_class.meta.kind), target_class()
    target.reference = target_class("8")
    if not attack.needs() <= target.capabilities:
        return None
    specs = encoders_of(case.plugin)
    named = stubs(specs)
    target.encoders = {spec: named[spec.partition(":")[0]](spec.partition(":")[2]) for spec in specs}
    target.open(rows=16)
    with torch.no_grad():
        attack.measure(batch_of(target, samples), target)
    return attack, target.denoiser


def resume(case: AttackCase) -> None:
    """A run that is stopped half way and started again gives the bits of one that went through."""
    fix = "keep nothing in the instance between batches: the second start has a new one"
    case.same(case.trial("halves", halves=True), fix)


def captions(case: AttackCase) -> None:
    """Captions are used as `meta.caption` says: never, where there are some, or always."""
    use = case.plugin.meta.caption
    shuffled = case.plain.differs(case.trial("shuffled", captions="shuffled"))
    if use == "unused" and shuffled:
        raise Fault(f"with other captions {shuffled}", 'write caption="optional", or leave captions alone')
    if use != "unused" and not shuffled:
        raise Fault("other captions change nothing", 'write caption="unused", or ask with batch.condition')
    if use == "optional" and not any(_does_without(case, preset) for preset in (case.preset, "", *case.plugin.presets)):
        fix = 'batch.condition takes the empty caption for a missing one; or write caption="required"'
        raise Fault("samples without captions are refused, by every preset", fix)


def _does_without(case: AttackCase, preset: str) -> bool:
    try:
        return _measured(case, TinyTarget, preset, icons(2, 0, caption=None)) is not None
    except UnavailableError:  # of these samples
        return False


def orientation(case: AttackCase) -> None:
    """On the embedded overtrained target, members score higher: the interval of the AUC lies above 0.5."""
    registry = Registry.load()
    registry.attacks.clear()
    register(registry, case.plugin)
    registry.attacks.update(required_by(case.plugin))
    given = case.plugin.presets.get(case.preset, {}) | case.params
    attack = case.plugin(case.plugin.Params.model_validate(given).resolved("latent"))
    reference = BASE if Capability.REFERENCE in attack.needs() else None
    each = max(10, min(EACH, QUERIES // (2 * max(1, attack.queries()))))
    splits = {"audit"} if case.plugin.meta.calibration == "unused" else {"audit", "calibration"}
    everything = registry.dataset(DEFAULT_DATASET)().samples()
    registry.datasets["given"] = dataset_of([s for s in take(everything, each) if s.split in splits])
    with tempfile.TemporaryDirectory(prefix="mia-bench-conformance-") as folder:
        out, names = Path(folder), {"dataset": "given", "target": OVERTRAINED, "reference": reference}
        settings = {case.label: case.params} if case.params else {}
        options: Mapping[str, Any] = {**names, "attacks": case.label, "device": "cpu", "out": out, "options": settings}
        row = outcome(run(registry, RunOptions(**options)), Store(out), case.label).row
    assert row.evaluation is not None  # of a row with scores
    auc = row.evaluation.auc
    if auc.value is None or auc.low is None or auc.low <= 0.5:
        found = f"AUC {_number(auc.value)} [{_number(auc.low)}, {_number(auc.high)}] on {row.n} samples"
        fix = (
            "return higher scores for members: negate a loss or a distance. An attack that finds nothing in this model "
            'says so: conformance(..., exempt={"orientation": "why"})'
        )
        raise Fault(found, fix)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def out_of_fold(case: AttackCase) -> None:
    """Labels dealt out at random are not found again: no score comes of a model that saw the sample's label."""
    trial = case.trial("relabelled", case.relabelled)
    member = np.array([s.member for s in case.relabelled if s.id in trial.scores], dtype=bool)
    values = np.array([trial.scores[s.id] for s in case.relabelled if s.id in trial.scores])
    above = (values[member][:, None] > values[~member][None]) + 0.5 * (values[member][:, None] == values[~member][None])
    if (auc := float(above.mean())) > 0.85:  # 10 + 10 samples by chance: under 1 in 200
        fix = "cross-validate: fit on the other folds, and keep the samples of a group together"
        raise Fault(f"AUC {auc:.3f} on random labels", fix)


SHARED = (loads, metadata, parameters, determinism, batches, finite, queries, resume, captions)
ATTACK = (*SHARED, rows, label_blindness, orientation)
CONTROL = (*SHARED, out_of_fold)
