"""Attacks that combine others: what they require is run too, and comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from mia_bench.engine.label import Label
from mia_bench.errors import UsageError


def ordered(chosen: Iterable[Label], required: Callable[[Label], Sequence[Label]]) -> list[Label]:
    """The chosen rows and all that they require, each once, after what it requires; else in the order chosen.

    Args:
        chosen: What the user selected.
        required: What one row combines.

    Raises:
        UsageError: Rows require each other.
    """
    graph: dict[Label, Sequence[Label]] = {}
    waiting = list(chosen)
    while waiting:
        label = waiting.pop(0)
        if label not in graph:
            graph[label] = required(label)
            waiting += graph[label]
    if not any(graph.values()):
        return list(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " requires ".join(map(str, reversed(error.args[1])))
        raise UsageError(f"attack {error.args[1][0]}", f"it requires itself: {circle}", "break the circle") from None
    found: dict[Label, None] = {}

    def place(label: Label) -> None:
        for base in graph[label]:
            place(base)
        found.setdefault(label)

    for label in graph:
        place(label)
    return list(found)
