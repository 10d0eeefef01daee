"""What a row is called: `name`, `name@preset`, and `name[encoder]@preset` where pictures are compared."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mia_bench.attack import Attack

_GRAMMAR = re.compile(r"(?P<name>[^@\[\]*?]+)(\[(?P<encoder>[^\[\]]+)\])?(@(?P<preset>[^@\[\]*?]+))?")


@dataclass(frozen=True)
class Label:
    """A label in its parts; `encoder` is `name` or `name:PATH`."""

    name: str
    encoder: str = ""
    preset: str = ""

    @classmethod
    def parse(cls, text: str) -> Label:
        """The parts of a label; what is no label is taken for a name, which nobody will know."""
        found = _GRAMMAR.fullmatch(text)
        return cls(**{part: value or "" for part, value in found.groupdict().items()}) if found else cls(text)

    def of(self, attack: Attack) -> Label:
        """With the encoder that the attack's parameters name, if it asks that: what compares is part of a score."""
        named = getattr(attack.params, "encoder", None)
        return replace(self, encoder=named if named and named in attack.encoders() else self.encoder)

    @property
    def unset(self) -> str:
        """Without the preset: the column `attack` of stored scores."""
        return str(replace(self, preset=""))

    @property
    def bare(self) -> str:
        """Without the encoder: what options are keyed by."""
        return self.name + (f"@{self.preset}" if self.preset else "")

    def __str__(self) -> str:
        encoder = f"[{self.encoder}]" if self.encoder else ""
        return self.name + encoder + (f"@{self.preset}" if self.preset else "")
