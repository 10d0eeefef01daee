"""What a `*.bench.toml` says; keys are called as the options of `mia-bench run`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mia_bench.benches import SUFFIX
from mia_bench.engine.captions import parse
from mia_bench.engine.compare import Gate
from mia_bench.engine.label import Label
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.select import GLOB
from mia_bench.errors import UsageError, brief
from mia_bench.metrics.gate import METRICS, Direction
from mia_bench.plugins import suggest
from mia_bench.target import TargetOptions

OWN = {
    "path",
    "baseline",
    "baseline_target",
    "gate",
    "marks",
    "plugins",
    "attacks",
}  # all others are fields of `RunOptions`


class GateTable(BaseModel):
    """When a difference from the baseline is a failure: `[gate]`; see `mia_bench.engine.compare.Gate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(Gate.metrics, min_length=1)
    fail_on: Direction = Gate.fail_on
    margin: float = Field(Gate.margin, ge=0, lt=1)
    alpha: float = Field(Gate.alpha, gt=0, lt=1)
    tolerance: float = Field(Gate.tolerance, gt=0)

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in metrics if name not in METRICS]:
            raise ValueError(f"{unknown[0]!r}: {suggest(unknown[0], METRICS)}")
        return metrics

    def gate(self, labels: Iterable[str]) -> Gate:
        """For these attacks together."""
        return Gate(**self.model_dump(), attacks=tuple(labels))


class Bench(BaseModel):
    """One benchmark. Paths of files are relative to the one that defines it; a dataset or target is what it is on the
    command line.

    Attributes:
        path: Where it is defined.
        attacks: As `--attacks`, in one text or a list.
        dataset: As `--dataset`.
        target: As `--target`; `pytest --mia-target` takes its place.
        options: Parameters of attacks: `[options.clid]`, then `alpha = 0.5`.
        target_options: How the target is loaded: `[target_options]`, then `lora = [...]`.
        baseline_target: What `--mia-update-baseline` records, if that is another model: what `target` must not leak
            more than.
        baseline: Folder of what is expected; by default `baselines/NAME` beside `NAME.bench.toml`.
        gate: When a difference from it is a failure.
        marks: Markers of its items, beside `mia_bench`.
        plugins: Plugin files to load.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    attacks: str | tuple[str, ...] = "all"
    full: bool = False
    dataset: str | None = None
    target: str | None = None
    target_options: TargetOptions = TargetOptions()
    reference: str | None = None
    limit: int | None = Field(None, ge=1)
    calibration: float | None = Field(None, gt=0, lt=1)
    balance: bool = False
    split_seed: int | None = Field(None, ge=0)
    captions: str = "true"
    seed: int = Field(0, ge=0)
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    latent: Literal["mode", "sample"] = "mode"
    rows: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)
    independent_noise: bool = False
    options: dict[str, dict[str, Any]] = {}
    baseline_target: str | None = None
    baseline: Path | None = None
    gate: GateTable = GateTable()
    marks: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()

    @field_validator("captions")
    @classmethod
    def _meant(cls, captions: str) -> str:
        try:
            parse(captions)
        except UsageError as error:
            raise ValueError(error.why) from error
        return captions

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    @property
    def pattern(self) -> str:
        """As `--attacks`."""
        return self.attacks if isinstance(self.attacks, str) else ",".join(self.attacks)

    @property
    def baseline_folder(self) -> Path:
        return self.path.parent / (self.baseline or Path("baselines") / self.name)

    @property
    def plugin_files(self) -> list[Path]:
        return [self.path.parent / file for file in self.plugins]

    def run_options(self, target: str | None = None, update: bool = False) -> RunOptions:
        """What `mia-bench run` would be told.

        Args:
            target: Instead of its own.
            update: Whether that is for a new baseline.
        """
        target = target or (self.baseline_target if update else None)
        given = {name: getattr(self, name) for name in self.model_fields_set - OWN}
        return RunOptions(**given | ({"target": target} if target else {}), attacks=self.pattern)

    def covers(self, label: str) -> bool:
        """Whether `all` or a glob of `attacks` means this label, so that its absence is a fault."""
        name, preset = Label.parse(label).name, Label.parse(label).preset
        return any(
            part == "all" or (GLOB.search(part) and fnmatchcase(f"{name}@{preset}" if "@" in part else name, part))
            for part in (part.strip() for part in self.pattern.split(","))
        )


def read_bench(path: Path) -> Bench:
    """The definition in a file.

    Raises:
        UsageError: It is no TOML, or has a key that is unknown or has a value of another kind; the error names both.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            str(path), f"not TOML: {brief(error)}", "correct that line; docs/how-to/gate.md has an example"
        ) from error
    if "path" in content:
        raise UsageError(f"{path}: path", "no such key", "leave it out")
    try:
        return Bench.model_validate_json(json.dumps({**content, "path": str(path)}, default=str), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        where, model = [str(part) for part in problem["loc"]], _model_at(problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = [name for name in model.model_fields if name != "path"]
            what, why = f"{path}: {'.'.join(where)}", f"no such key; {suggest(where[-1], known)}"
            raise UsageError(what, why, f"it may have: {', '.join(known)}") from None
        # Of a union the location ends with the kind that was tried.
        key = ".".join(part for part in where if not part.startswith(("tuple[", "str")))
        why = f"{problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
        raise UsageError(f"{path}: {key}", why, "give another value; docs/reference/schema.md has them all") from None


def _model_at(where: tuple[int | str, ...]) -> type[BaseModel]:
    """The table that a key is in."""
    tables: dict[str, type[BaseModel]] = {"gate": GateTable, "target_options": TargetOptions}
    return tables.get(str(where[0]), Bench) if len(where) > 1 else Bench
