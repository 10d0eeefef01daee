"""A benchmark harness for membership-inference attacks on diffusion models."""

from mia_bench.attack import (
    Access,
    Attack,
    Capability,
    Control,
    Measured,
    Meta,
    Scores,
    Timestep,
    by_kind,
    scoring,
)
from mia_bench.dataset import Dataset, DatasetMeta, Sample
from mia_bench.hookspecs import hookimpl
from mia_bench.target import Target, TargetMeta

__version__ = "0.1.0"

__all__ = [
    "Access",
    "Attack",
    "Capability",
    "Control",
    "Dataset",
    "DatasetMeta",
    "Measured",
    "Meta",
    "Sample",
    "Scores",
    "Target",
    "TargetMeta",
    "Timestep",
    "__version__",
    "by_kind",
    "hookimpl",
    "scoring",
]
