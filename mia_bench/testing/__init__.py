"""For authors of plugins: the conformance suite, and small things to test against.

One line in a plugin's own tests checks it, one test for each check, named like `flip-determinism`:

    test_conformance = conformance(MyAttack)

The same line takes a dataset, a target or an encoder. What a check asks for is in the first line of its docstring, and
in the message of a plugin that fails it. A check that a plugin cannot satisfy is declared, and shown as skipped:

    test_conformance = conformance(MyAttack, exempt={"orientation": "finds memorised images, not members"})

`TinyTarget` and its kin need no weights.
"""

from mia_bench.testing.suite import Check, NonconformingError, checks, conformance
from mia_bench.testing.tiny import StubEncoder, TinyGenerator, TinyPixels, TinyTarget, batch_of, icons

__all__ = [
    "Check",
    "NonconformingError",
    "StubEncoder",
    "TinyGenerator",
    "TinyPixels",
    "TinyTarget",
    "batch_of",
    "checks",
    "conformance",
    "icons",
]
