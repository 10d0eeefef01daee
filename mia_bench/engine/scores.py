"""The stored scores of a run folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_bench.errors import UnavailableError, brief

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ["attack", "preset", "sample_id", "split", "label", "score"]


@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores of one attack or control, all of one length N.

    Attributes:
        ids: Sample ids.
        split: Split of each sample.
        member: Whether each is a member; None where that is unknown.
        values: float64 `(N,)`, higher = member.
    """

    ids: tuple[str, ...]
    split: tuple[str, ...]
    member: tuple[bool | None, ...]
    values: NDArray[np.float64]

    @cached_property
    def by_id(self) -> dict[str, float]:
        """Sample id -> score."""
        return dict(zip(self.ids, self.values.tolist(), strict=True))

    def audited(self, member: bool | None) -> NDArray[np.int64]:
        """Rows of the audit samples that are members, non-members, or unknown (None)."""
        kinds = zip(self.split, self.member, strict=True)
        return np.flatnonzero([split == "audit" and known is member for split, known in kinds])


def read_scores(folder: Path) -> dict[str, StoredScores]:
    """Label -> scores, as `scores.parquet` has them.

    Raises:
        UnavailableError: The file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return by_label(pq.read_table(folder / "scores.parquet", columns=COLUMNS))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        why = f"its scores cannot be read: {brief(error)}"
        raise UnavailableError(f"run {folder}", why, f"`mia-bench score {folder}`") from error


def by_label(table: pa.Table) -> dict[str, StoredScores]:
    """Label -> scores of a table like `scores.parquet`."""
    columns = table.to_pydict()
    found: dict[str, list[tuple[str, str, bool | None, float]]] = defaultdict(list)
    for attack, preset, *row in zip(*(columns[name] for name in COLUMNS), strict=True):
        found[f"{attack}@{preset}" if preset else attack].append((row[0], row[1], row[2], row[3]))
    return {label: _stored(rows) for label, rows in found.items()}


def _stored(rows: list[tuple[str, str, bool | None, float]]) -> StoredScores:
    ids, split, member, values = zip(*rows, strict=True)
    return StoredScores(ids, split, member, np.array(values, dtype=np.float64))
