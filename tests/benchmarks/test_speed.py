"""The speed benchmarks in small: what they count is what was run, and naive loops give the harness's numbers."""

import gc
import json
import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

HERE = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture(autouse=True)
def _speed(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's tables, made from records in the test's own folder."""
    monkeypatch.delitem(sys.modules, "page", raising=False)
    import page

    monkeypatch.setattr(page, "RESULTS", tmp_path)
    yield page
    del sys.modules["page"]


@pytest.fixture
def tiny(tmp_path):
    from mid import make

    make(tmp_path / "tiny", "tiny")
    return str(tmp_path / "tiny")


def test_loops_by_hand_give_the_numbers_of_the_harness(tiny, tmp_path):
    import naive

    from mia_bench.engine.prepare import RunOptions, prepare
    from mia_bench.engine.run import run_prepared
    from mia_bench.plugins import Registry

    registry, attacks = Registry.load(), "loss,mc,pia,secmi,pfami,clid"
    options = RunOptions(attacks=attacks, target=tiny, dataset="fluent-emoji", limit=1, threads=1, out=tmp_path / "run")
    ready = prepare(registry, options)
    run_prepared(registry, ready, options)
    ids = [(s.id, s.digest) for s in ready.samples.values()]
    for attack in (a for a in ready.plan.attacks if a.label in naive.LOOPS):
        stored = ready.store.terms(attack.fingerprint, ids)[1]
        for row, sample in enumerate(list(ready.samples.values())[:2]):
            (terms,) = naive.terms(naive.LOOPS[attack.label], ready.target, [sample])
            assert terms.keys() == stored.keys()
            for name, values in terms.items():
                np.testing.assert_allclose(
                    np.array(values), stored[name][row], rtol=2e-3, err_msg=f"{attack.label} {name}"
                )


def test_work_is_what_was_executed(tiny):
    from efficiency import ALL, Suite
    from once import Counting, run_once

    suite = Suite(tiny, "pia,pian,sima,gsa,structural", 2, 1)
    ready = suite.only(ALL, 2)
    counting = Counting(ready)
    with counting():
        run = run_once(suite.registry, ready, suite.options)
    works = counting.found(run)
    for network in ("denoiser", "vae", "text", "decoder"):
        rows = sum(w.rows for w in works if w.network == network)
        assert rows == pytest.approx(run.rows[network]) and rows > 0, network
    weights = [w for w in works if w.gradient == "weights"]
    assert [w.batch for w in weights] == [10] and weights[0].rows == 10 * run.backward > 0
    assert run.images == len(ready.samples) and run.asked > run.rows["denoiser"] > 0
    assert not any("predict" in vars(thing) for thing in (ready.target, suite.opened.target))


@pytest.mark.parametrize(("pooled", "rows", "calls"), [(True, 80, 4), (True, 20, 2), (False, 80, 5)])
def test_a_bare_network_is_timed_with_all_threads_at_work(pooled, rows, calls):
    import torch
    from bare import Bare, Way
    from once import Work

    class Target:
        asked = ()

        def predict(self, x):
            self.asked = (*self.asked, len(x))
            return x

    target, row = Target(), ((torch.zeros(1, 2),), {})
    Bare(target, Work("target", "denoiser", "predict", "", row), 2).seconds(Way(16, pooled), rows)
    assert target.asked == (16,) * (2 + calls), "two to warm up, and an odd one would keep one thread waiting"


def test_efficiency_resumes_and_sums_up(tmp_path, page):
    from efficiency import main

    out = tmp_path / "speed.json"
    asked = [
        "--target",
        "tiny",
        "--attacks",
        "loss,pia",
        "--limit",
        "2",
        "--threads",
        "1",
        "--search",
        "0.001",
        "--pairs",
        "1",
    ]
    done = CliRunner().invoke(main, [*asked, "--no-memory", "--out", str(out)], catch_exceptions=False)
    first = json.loads(out.read_text())
    assert done.exit_code == 0 and [row["label"] for row in first["figures"]["attacks"]] == ["loss", "pia", "all"]
    row = first["figures"]["attacks"][1]
    assert row["asked"] == row["executed"] == 2 and row["efficiency"]["median"] > 0
    assert row["naive"]["median"] > 0 and row["by_hand"]["median"] > 0
    asked[-1] = "2"
    CliRunner().invoke(main, [*asked, "--no-memory", "--out", str(out)], catch_exceptions=False)
    second = json.loads(out.read_text())
    assert first["steps"].items() <= second["steps"].items() and len(second["steps"]) == len(first["steps"]) + 2
    assert len(second["figures"]["suite"]["together_over_apart"]["all"]) == 1
    other = CliRunner().invoke(main, ["--target", "tiny", "--attacks", "loss", "--out", str(out)])
    assert other.exit_code and "another" in other.output
    assert json.loads(out.read_text()) == second
    out.rename(tmp_path / "speed-mid.json")
    assert re.search(r"\| `pia` +\| \d+ +\| 2 +\| 2 +\| .* ms", page.mid()) and "All at once take" in page.mid()
    assert page.emoji() == ""


def test_peak_is_of_the_command_alone():
    import torch
    from once import command

    held = torch.zeros(2**28)  # a gigabyte here
    found = command(["list", "--json"])
    assert len(held) and 5 < found["peak_mb"] < 700 and found["seconds"] > 0
    with pytest.raises(RuntimeError, match="status 2"):
        command(["run", "--attacks", "nonsense"])


def test_interval_of_the_median():
    from timing import coverage, sign_interval

    assert sign_interval([3.0, 1.0, 2.0]) == (1.0, 3.0) and coverage(6) == pytest.approx(1 - 2 / 64)
    rng = np.random.default_rng(0)
    found = [sign_interval(rng.normal(size=15)) for _ in range(400)]
    assert 0.93 < np.mean([low <= 0 <= high for low, high in found]) <= 1


def test_seconds_a_sample_after_start_up():
    from workers import per_sample

    assert per_sample([(10.0, 4), (12.0, 8), (14.0, 12), (16.0, 16)], 1) == 0.5
    assert per_sample([(10.0, 4), (10.5, 8), *((11.0 + i, 12 + 4 * i) for i in range(4))], 2) == pytest.approx(3.5 / 16)
    with pytest.raises(SystemExit, match="too few"):
        per_sample([(1.0, 1)] * 5, 2)


def test_overhead_of_the_harness(tmp_path, page):
    from linear import main

    out = tmp_path / "linear.json"
    main(["--repeats", "1", "--counts", "64,128", "--each", "0", "--out", str(out)], standalone_mode=False)
    figures = json.loads(out.read_text())["figures"]
    rows = figures["rows"]
    assert rows["128 images"]["images"] == 128 and rows["128 images"]["queries"] == 128 * 53
    assert all(0 < row["networks_s"] < row["seconds"] for row in rows.values())
    assert 0 < figures["noise_us"]["1024"] < figures["noise_us"]["4x64x64"]
    assert "| 128 images | 6,784 " in page.linear() and "Keyed noise" in page.linear()
    assert "the second half of 128 images" in page.linear()


def test_memory_that_grows_is_seen():
    from linear import Resident

    gc.collect()
    resident, held = Resident(), []
    for _ in range(10):
        held.append(mmap.mmap(-1, 2**23))  # 8 MB of the system, not of what earlier tests have given back
        held[-1].write(bytes(2**23))
        resident.mia_bench_batch_measured(None)
    assert 10 < resident.grown() < 80
