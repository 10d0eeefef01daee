"""Metadata, determinism, independence of batches and the rest of what mia-bench asks of an attack."""

from mia_bench_example import Flip

from mia_bench.testing import conformance

test_conformance = conformance(Flip)
