"""Benchmarks as pytest items: a `*.bench.toml` says what is run, and a recorded baseline what is expected of it."""

SUFFIX = ".bench.toml"
RECORDED = "mia_bench_recorded"  # property of an item: where its baseline was recorded
