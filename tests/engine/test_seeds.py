"""Several noise seeds: one run each, one target for all, and what the noise moves."""

from statistics import mean, stdev

import pytest
import tiny

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import read_result
from mia_bench.engine.seeds import only_seeds_differ, over_seeds, run_seeds
from mia_bench.errors import UsageError

SAMPLES = tiny.icons(12, 12, (6, 6))


def seeds(folder, count=3, registry=None, attacks="loss,pia,clid", **options):
    defaults = {"dataset": "given", "threads": 1, "rows": 4, "batch": 4, "seed": 3}
    made = registry or tiny.registry(samples=SAMPLES)
    return run_seeds(made, RunOptions(attacks=attacks, out=folder, **{**defaults, **options}), count)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    found, folders = seeds(folder)
    return folder, [one for (one,) in found], folders


def test_each_seed_is_a_run_like_any_other(three, tmp_path):
    folder, results, folders = three
    assert [f.relative_to(folder).name for f in folders] == ["seed3", "seed4", "seed5"]
    assert [r.seed for r in results] == [3, 4, 5] and [read_result(f) for f in folders] == results
    alone = tiny.go(tmp_path, tiny.registry(samples=SAMPLES), "loss,pia,clid", seed=4)
    assert tiny.scores(tmp_path) == tiny.scores(folders[1]), "a target that is loaded already gives the same bits"
    assert [r.evaluation for r in alone.rows] == [r.evaluation for r in results[1].rows]


def test_without_a_folder_each_has_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, folders = seeds(None, 2, attacks="loss")
    assert [str(f) for f in folders] == ["runs/given--tiny--seed3", "runs/given--tiny--seed4"]


def test_the_spread_is_of_the_noise_and_the_interval_of_the_images(three):
    found = over_seeds(three[1][::-1])
    assert found.seeds == (3, 4, 5)
    row = next(r for r in found.rows if r.label == "loss")
    each = [tiny.row(r, "loss").evaluation.auc for r in three[1]]
    values = [m.value for m in each]
    auc = row.metrics["auc"]
    assert auc.values == tuple(values) and not row.fixed
    assert (auc.mean, auc.sd, auc.low, auc.high) == (mean(values), stdev(values), min(values), max(values))
    assert auc.images == each[0] and auc.sd > 0


def test_an_attack_without_noise_has_no_spread(three):
    fixed = {r.label: r.fixed for r in over_seeds(three[1]).rows}
    assert fixed == {"loss": False, "clid": False, "pia": True}
    assert not next(r for r in over_seeds(three[1][:1]).rows if r.label == "pia").fixed, "one seed cannot tell"


def test_equal_aucs_of_other_scores_are_a_spread_of_nought(tmp_path):
    """Perfect separation whatever the noise."""
    member = {s.id: s.member for s in SAMPLES}

    def score(self, measured, calibration):
        return measured["loss"] + [100.0 * bool(member[i]) for i in measured.ids]

    registry = tiny.registry(tiny.plugin([tiny.attack("perfect", score=score)]), samples=SAMPLES)
    found, _ = seeds(tmp_path, 2, registry, "perfect")
    row = over_seeds([one for (one,) in found]).rows[0]
    assert row.metrics["auc"].values == (1.0, 1.0) and row.metrics["auc"].sd == 0 and not row.fixed


def test_the_target_is_loaded_once(tmp_path):
    loads = []

    class Heavy(tiny.Tiny):
        meta = tiny.Tiny.meta.model_copy(update={"name": "heavy"})

        def load(self):
            loads.append(1)
            super().load()

    registry = tiny.registry(samples=SAMPLES)
    registry.targets["heavy"] = Heavy
    seeds(tmp_path / "run", 3, registry, "loss", target="heavy")
    assert len(loads) == 1
    seeds(tmp_path / "run", 3, registry, "loss", target="heavy")
    assert len(loads) == 1, "nothing is left to measure"


def test_interrupted_in_the_third_seed_it_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    batches = []

    def stop(event):
        batches.append(event)
        if len(batches) == 2 * 9 + 4:  # nine batches a seed
            raise KeyboardInterrupt

    halted = tiny.registry(tiny.plugin(batch_measured=stop), samples=SAMPLES)
    with pytest.raises(KeyboardInterrupt):
        seeds(tmp_path / "run", 4, halted, "logged")
    done = (tmp_path / "log").read_text().splitlines()
    assert len(done) == 2 * 36 + 16
    assert [(tmp_path / "run" / f"seed{n}" / "results.json").exists() for n in (3, 4, 5)] == [True, True, False]
    found, _ = seeds(tmp_path / "run", 4, attacks="logged")
    assert len((tmp_path / "log").read_text().splitlines()) == 4 * 36, "nothing twice"
    monkeypatch.delenv("TINY_LOG")
    straight, folders = seeds(tmp_path / "straight", 4, attacks="logged")
    for seed in range(3, 7):
        assert tiny.scores(tmp_path / "run" / f"seed{seed}") == tiny.scores(tmp_path / "straight" / f"seed{seed}")
    assert len(found) == len(straight) == len(folders)


def test_recorded_noise_has_no_seeds(tmp_path):
    with pytest.raises(UsageError, match="recorded noise is the same under any seed"):
        seeds(tmp_path, noise=tmp_path / "noise.npz")


def test_an_attack_that_failed_under_one_seed(tmp_path):
    def measure(self, batch, target):
        if batch.noise.identity == "keyed:4":
            raise RuntimeError("no")
        return tiny.Logged.measure(self, batch, target)

    registry = tiny.registry(tiny.plugin([tiny.attack("brittle", measure)]), samples=SAMPLES)
    found, _ = seeds(tmp_path, 3, registry, "brittle")
    (row,) = over_seeds([one for (one,) in found]).rows
    assert row.seeds == (3, 5) and len(row.metrics["auc"].values) == 2
    assert row.reason.startswith("seed 4: measure failed")


def test_runs_that_differ_in_more_are_no_seeds(three, tmp_path):
    results = three[1]
    assert only_seeds_differ(results) and only_seeds_differ(results[1:])
    assert not only_seeds_differ(results[:1]) and not only_seeds_differ([results[0], results[0]])
    for change in (
        {"samples_hash": "other"},
        {"captions": "null"},
        {"target": "other"},
        {"noise": "recorded"},
        {"unfinished": "half"},
        {"dtype": "float16"},
    ):
        assert not only_seeds_differ([results[0], results[1].model_copy(update=change)]), change
    rows = tuple(r.model_copy(update={"params": {"t": 1}}) for r in results[1].rows)
    assert not only_seeds_differ([results[0], results[1].model_copy(update={"rows": rows})])
