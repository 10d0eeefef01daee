"""What a run would cost, foreseen: counts are bounds, times are measured, and nothing is stored."""

from pathlib import Path

import painter
import pytest
import tiny

from mia_bench.engine.estimate import estimate
from mia_bench.engine.measure import pending
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.run import foresee
from mia_bench.plugins import Registry
from mia_bench.store import Store

ATTACKS = "loss,pia,clid"


def foreseen(folder, made=None, **options):
    given = {"attacks": ATTACKS, "dataset": "given", "out": folder, "threads": 1, "rows": 4, "batch": 4, **options}
    options = RunOptions(**given)
    return foresee(prepare(made or tiny.registry(), options), options)


def ran(folder, attacks=ATTACKS, **options):
    tiny.go(folder, attacks=attacks, **options)
    networks = [shard["networks"]["denoiser"] for shard in Store(folder).provenance().values()]
    asked = [sum(shard["asked"].values()) for shard in Store(folder).provenance().values()]
    return sum(asked), sum(n["rows"] + n["padding"] for n in networks)


def test_queries_are_those_that_the_run_asks(tmp_path):
    found = foreseen(tmp_path)
    assert (found.samples, found.rows) == (12, 4)
    asked, rows = ran(tmp_path)
    assert found.queries == asked == 12 * (1 + 2 + 15) and rows <= found.filled == asked


@pytest.mark.parametrize(("batch", "rows", "filled"), [(4, 4, 12), (4, 5, 15), (5, 4, 20), (12, 8, 16), (1, 4, 48)])
def test_calls_are_filled_up(tmp_path, batch, rows, filled):
    found = foreseen(tmp_path, attacks="loss", batch=batch, rows=rows)
    assert (found.queries, found.filled) == (12, filled)
    assert ran(tmp_path, "loss", batch=batch, rows=rows) == (12, filled)


def test_calls_at_once_share_a_time(tmp_path):
    assert foreseen(tmp_path, attacks="loss", batch=8, threads=2).filled == 16


def test_only_what_is_left_is_counted(tmp_path):
    tiny.go(tmp_path, attacks="loss", limit=3)
    found = foreseen(tmp_path)
    assert (found.samples, found.queries) == (12, 12 * (2 + 15) + 6)
    tiny.go(tmp_path, attacks=ATTACKS)
    found = foreseen(tmp_path)
    assert (found.samples, found.queries, found.filled, found.seconds) == (0, 0, 0, 0.0)


def test_networks_are_timed_and_nothing_is_stored(tmp_path):
    found = foreseen(tmp_path / "run")
    assert set(found.seconds_per_row) == {"denoiser", "vae"} and min(found.seconds_per_row.values()) > 0
    per_row = found.seconds_per_row
    assert found.seconds == pytest.approx(found.filled * per_row["denoiser"] + 12 * per_row["vae"])
    assert not (tmp_path / "run").exists()


def test_a_slower_network_takes_longer(tmp_path):
    class Slow(tiny.Tiny):
        meta = tiny.Tiny.meta.model_copy(update={"name": "slow"})

        def predict(self, x, t, **states):
            for _ in range(1000):
                super().predict(x, t, **states)
            return super().predict(x, t, **states)

    made = tiny.registry()
    made.targets["slow"] = Slow
    quick, slow = foreseen(tmp_path, made), foreseen(tmp_path, made, target="slow")
    assert slow.seconds > 3 * quick.seconds and slow.queries == quick.queries


def test_pictures_of_a_target_without_a_denoiser_are_counted_and_never_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PAINTER_LOG", str(tmp_path / "log"))
    target = f"callable:{painter.__file__}:draw"
    options = RunOptions(
        "wu-iip@quick,sweep@quick", dataset="fluent-emoji", target=target, limit=2, out=tmp_path / "run"
    )
    prepared = prepare(Registry.load(), options)
    found = foresee(prepared, options)
    assert (found.samples, found.queries, found.seconds, found.seconds_per_row) == (10, 70, None, {})
    assert not Path(tmp_path / "log").exists()
    assert estimate([], prepared.target).seconds == 0.0, "nothing left takes no time"
    assert pending(prepared.plan, prepared.samples, prepared.store)
