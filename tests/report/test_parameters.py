"""Parameters in words."""

from typing import Literal

import pytest
from pydantic import Field

from mia_bench import Attack, by_kind
from mia_bench.report.parameters import parameters


class Some(Attack):
    class Params(Attack.Params):
        """What can be set.

        Attributes:
            t: First line,
                and second.
            tt: Another.
        """

        t: int = by_kind(pixel=1, latent=2, gt=0)
        tt: float | None = Field(None, le=1)
        names: tuple[str, ...] = ("a", "b")
        how: Literal["x", "y"] = "x"
        on: bool = True


class Plain(Attack):
    """Nothing to set."""


@pytest.mark.parametrize(
    ("name", "kind", "default", "meaning"),
    [
        ("t", "int, > 0", "1 (pixel), 2 (latent)", "First line, and second."),
        ("tt", "float, <= 1, or none", "none", "Another."),
        ("names", "tuple of text", "a,b", ""),
        ("how", "x | y", "x", ""),
        ("on", "bool", "true", ""),
    ],
)
def test_types_defaults_and_meanings(name, kind, default, meaning):
    found = next(p for p in parameters(Some) if p["name"] == name)
    assert (found["type"], found["default"], found["meaning"]) == (kind, default, meaning)


def test_an_attack_without_parameters():
    assert [p["name"] for p in parameters(Plain)] == ["samples"], "what every attack has, with its meaning"
    assert parameters(Plain)[0]["meaning"] and parameters(Plain)[0]["stage"] == "plan"
