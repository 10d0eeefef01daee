"""The benchmarks that are shipped: `pytest benchmarks/` measures them; here it is checked that they are whole."""

from pathlib import Path

import pytest

from mia_bench.benches.benchmark import Benchmark
from mia_bench.engine.paired import finished_run
from mia_bench.engine.plan import read_plan
from mia_bench.plugins import Registry
from mia_bench.store import Store

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(FOLDER.glob("*.bench.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_baseline_is_recorded_of_what_is_defined(path):
    benchmark = Benchmark.open(path)
    recorded = finished_run(benchmark.bench.baseline_folder)
    scored = {row.label for row in recorded.result.rows if row.status == "ok" and not row.control}
    assert scored == set(benchmark.labels) - recorded.result.skipped.keys()
    assert recorded.result.target == (benchmark.bench.baseline_target or benchmark.bench.target)
    assert recorded.result.n_members == benchmark.bench.limit and not recorded.result.failures
    assert recorded.plan.command == f"pytest benchmarks/{path.name} --mia-update-baseline"


def test_every_attack_is_gated():
    plans = [read_plan(Store(FOLDER / "baselines" / path.name.removesuffix(".bench.toml"))) for path in FILES]
    assert {a.name for plan in plans for a in plan.attacks} == Registry.load().attacks.keys()


def test_baselines_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("baselines/*/*")) < 600_000
