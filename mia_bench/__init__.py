"""A benchmark harness for membership-inference attacks on diffusion models."""

from __future__ import annotations

TYPE_CHECKING = False  # true to type checkers; importing `typing` is left to whoever needs it
if TYPE_CHECKING:
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
    from mia_bench.encoder import Encoder, EncoderMeta, Offer
    from mia_bench.hookspecs import hookimpl
    from mia_bench.target import Target, TargetMeta, TargetOptions

__version__ = "0.1.0"

__all__ = [
    "Access",
    "Attack",
    "Capability",
    "Control",
    "Dataset",
    "DatasetMeta",
    "Encoder",
    "EncoderMeta",
    "Measured",
    "Meta",
    "Offer",
    "Sample",
    "Scores",
    "Target",
    "TargetMeta",
    "TargetOptions",
    "Timestep",
    "__version__",
    "by_kind",
    "hookimpl",
    "scoring",
]


if not TYPE_CHECKING:  # type checkers would take any name for known

    def __getattr__(name: str) -> object:
        """The contracts, imported when first asked for: the command starts without them."""
        if name in __all__:
            from importlib import import_module

            for module in ("attack", "dataset", "encoder", "target", "hookspecs"):
                contract = import_module(f"mia_bench.{module}")
                if name in vars(contract):
                    return vars(contract)[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
