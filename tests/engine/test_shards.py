"""A run measured in shards is the run, wherever they wrote; what is lacking or twice there is found."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench import locks
from mia_bench.engine import shards
from mia_bench.engine.measure import Outcome
from mia_bench.engine.merge import merge
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.run import run_shard
from mia_bench.engine.shards import Shard
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.store import Store

SAMPLES = tiny.icons(7, 6)


def options(folder, **more):
    base = {"attacks": "loss,pia,clid", "dataset": "given", "threads": 1, "rows": 4, "batch": 4}
    return RunOptions(out=folder, **{**base, **more})


def measure(folder, *shards, made=None, **more):
    return [run_shard(made or tiny.registry(samples=SAMPLES), options(folder, **more), Shard.parse(s)) for s in shards]


def merged(*folders, made=None, **more):
    return merge(made or tiny.registry(samples=SAMPLES), folders, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, tiny.go(folder, tiny.registry(samples=SAMPLES), attacks="loss,pia,clid")


def same(folder, whole):
    return (folder / "scores.parquet").read_bytes() == (whole[0] / "scores.parquet").read_bytes()


def test_shares_are_all_samples_and_none_twice(tmp_path):
    plan = prepare(tiny.registry(samples=SAMPLES), options(tmp_path)).plan
    for count in (1, 2, 5, 13, 20):
        owned = [Shard(number, count).owns(plan) for number in range(1, count + 1)]
        assert sorted(i for one in owned for i in one) == sorted(plan.samples.id)
        assert max(map(len, owned)) - min(map(len, owned)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "-1/4", "a/b", "1/4/2", ""])
def test_what_is_no_share(text):
    with pytest.raises(UsageError, match="share"):
        Shard.parse(text)


def test_shards_in_one_folder(tmp_path, whole):
    measure(tmp_path, "3/3", "1/3", "2/3")
    assert not (tmp_path / "results.json").exists()
    _, (result,) = merged(tmp_path)
    assert same(tmp_path, whole)
    assert [r.evaluation for r in result.rows] == [r.evaluation for r in whole[1].rows]
    assert (result.cost.asked, result.cost.images) == (whole[1].cost.asked, whole[1].cost.images)
    assert len(list((tmp_path / "measurements").iterdir())) == 1
    before = (tmp_path / "scores.parquet").read_bytes()
    merged(tmp_path)
    assert (tmp_path / "scores.parquet").read_bytes() == before, "merging again changes nothing"


def test_shards_in_folders_of_their_own(tmp_path, whole):
    for number in (1, 2):
        measure(tmp_path / str(number), f"{number}/2")
    with pytest.raises(UsageError, match="none to join them to"):
        merged(tmp_path / "1", tmp_path / "2")
    folder, _ = merged(tmp_path / "1", tmp_path / "2", out=tmp_path / "all")
    assert folder == tmp_path / "all" and same(folder, whole)
    assert len(list((tmp_path / "1" / "measurements").glob("*.parquet"))) == 2, "shards stay as they were"


def test_a_shard_is_resumed(tmp_path, monkeypatch):
    log = tmp_path / "log"
    measure(tmp_path / "run", "1/2", attacks="logged")
    monkeypatch.setenv("TINY_LOG", str(log))
    measure(tmp_path / "run", "1/2", attacks="logged")
    assert not log.exists(), "nothing is measured again"
    measure(tmp_path / "run", "2/2", attacks="logged")
    assert sorted(log.read_text().split()) == sorted(Shard(2, 2).owns(read_plan(Store(tmp_path / "run"))))


def test_what_is_lacking_is_named(tmp_path, whole):
    measure(tmp_path, "1/3", "3/3")
    with pytest.raises(UnavailableError) as caught:
        merged(tmp_path)
    plan = read_plan(Store(tmp_path))
    lacking = Shard(2, 3).owns(plan)
    assert f"{len(lacking)} of 13 samples" in caught.value.why and "unfinished: shard 2/3" in caught.value.why
    assert any(i in caught.value.why for i in lacking) and "--partial" in caught.value.fix
    _, (result,) = merged(tmp_path, incomplete=True)
    assert "not fully measured" in result.unfinished and {r.n for r in result.rows} == {13 - len(lacking)}
    measure(tmp_path, "2/3")
    merged(tmp_path)
    assert same(tmp_path, whole)


def test_what_a_shard_could_not_measure_is_not_lacking(tmp_path):
    def broken_image():
        raise OSError("image file is truncated")

    samples = [replace(SAMPLES[0], image=broken_image), *SAMPLES[1:]]
    made = tiny.registry(samples=samples)
    measure(tmp_path, "1/2", "2/2", made=made)
    _, (result,) = merged(tmp_path, made=made)
    assert [(f.sample, f.attack) for f in result.failures] == [(SAMPLES[0].id, None)]
    assert "truncated" in result.failures[0].reason and not result.unfinished


def test_an_attack_that_failed_in_a_shard_is_failed(tmp_path):
    def measure_of(self, batch, target):
        raise ZeroDivisionError("here")

    made = tiny.registry(tiny.plugin([tiny.attack("bad", measure_of)]), samples=SAMPLES)
    measure(tmp_path, "1/2", "2/2", made=made, attacks="bad,loss")
    _, (result,) = merged(tmp_path, made=made)
    assert "ZeroDivisionError: here" in tiny.row(result, "bad").reason
    assert tiny.row(result, "loss").n == 13


def test_shards_of_other_plans_are_not_merged(tmp_path):
    measure(tmp_path / "1", "1/2")
    measure(tmp_path / "2", "2/2", seed=1)
    with pytest.raises(UsageError, match="its plan is not that of"):
        merged(tmp_path / "1", tmp_path / "2", out=tmp_path / "all")
    with pytest.raises(UsageError, match="its plan is not that of"):
        merged(tmp_path / "1", out=tmp_path / "2")


def changed(folder, factor):
    """All measurements of a folder multiplied."""
    store = Store(folder)
    plan = read_plan(store)
    for attack in plan.attacks:
        found, terms = store.terms(attack.fingerprint, plan.samples.pairs)
        rows = np.flatnonzero(found)
        ids, digests = ([column[r] for r in rows] for column in (plan.samples.id, plan.samples.digest))
        yield ids, digests, attack.fingerprint, {name: values * factor for name, values in terms.items()}


@pytest.mark.parametrize("factor", [1 + 1e-7, 1.01])
def test_what_was_measured_twice_counts_once_and_must_be_the_same(tmp_path, whole, factor):
    measure(tmp_path, "1/2", "2/2")
    store = Store(tmp_path)
    provenance = next(iter(store.provenance().values()))
    for ids, digests, fingerprint, terms in list(changed(tmp_path, factor)):
        store.add(ids, digests, {fingerprint: terms}, provenance)
    if factor > 1.001:
        with pytest.raises(UnavailableError, match="measured twice with different outcomes"):
            merged(tmp_path)
        return
    merged(tmp_path)
    counts = [len(store.terms(a.fingerprint, read_plan(store).samples.pairs)[0]) for a in read_plan(store).attacks]
    assert set(counts) == {13} and not store._twice()


def test_shards_do_not_wait_for_each_other_but_a_run_does(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_S", 0.2)
    monkeypatch.setattr(shards, "LOOKS", 1)
    measure(tmp_path, "1/2")
    store = Store(tmp_path)
    with store.locked("1-of-2"):
        measure(tmp_path, "2/2")
        with pytest.raises(UsageError, match="shard 1/2 is writing"), store.locked():
            pass
        with pytest.raises(UsageError, match="shard 1/2 is writing"):
            measure(tmp_path, "1/2")
        measure(tmp_path, "2/2", seed=1)  # who holds the other part has finished it, and only looks
        shards.record(Shard(1, 2), read_plan(store), store)
        before = (tmp_path / "shards" / "2-of-2.json").read_bytes()
        with pytest.raises(UsageError, match="another plan"):
            measure(tmp_path, "2/2", seed=2)
        assert (tmp_path / "shards" / "2-of-2.json").read_bytes() == before
    with store.locked(), pytest.raises(UsageError, match="another run is writing"):
        measure(tmp_path, "1/2")


def test_shards_of_a_new_plan_start_together_where_an_older_one_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LOOKS", 1)
    made = tiny.registry(samples=SAMPLES)
    for number in (1, 2):
        measure(tmp_path, f"{number}/2", limit=2)
    plan = prepare(made, options(tmp_path)).plan
    store = Store(tmp_path)
    with store.locked("1-of-2"):  # of the new plan, and no further than this
        shards.record(Shard(1, 2), plan, store)
        measure(tmp_path, "2/2")
    measure(tmp_path, "1/2")
    _, (result,) = merged(tmp_path)
    assert {row.n for row in result.rows} == {13}


def test_of_two_plans_that_start_at_once_none_overlooks_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LOOKS", 1)
    made = tiny.registry(samples=SAMPLES)
    store, plan = Store(tmp_path), prepare(made, options(tmp_path)).plan
    with store.locked("1-of-2"), store.locked("2-of-2"):
        shards.record(Shard(1, 2), plan, store)
        with pytest.raises(UsageError, match="shard 1/2 of another plan"):
            shards.begin(Shard(2, 2), prepare(made, options(tmp_path, seed=1)).plan, store)
        assert not (tmp_path / "shards" / "2-of-2.json").exists()
        shards.begin(Shard(2, 2), plan, store)


def test_a_merge_that_failed_can_be_repeated(tmp_path, whole):
    measure(tmp_path / "1", "1/2")
    with pytest.raises(UnavailableError, match="not fully measured"):
        merged(tmp_path / "1", out=tmp_path / "all")
    measure(tmp_path / "2", "2/2")
    merged(tmp_path / "1", tmp_path / "2", out=tmp_path / "all")
    assert same(tmp_path / "all", whole)


def test_what_two_shards_measured_is_paid_twice_and_asked_once_an_image(tmp_path, whole):
    measure(tmp_path / "1", "1/2")
    measure(tmp_path / "2", "1/1")
    _, (result,) = merged(tmp_path / "1", tmp_path / "2", out=tmp_path / "all")
    assert same(tmp_path / "all", whole)
    assert {row.label: row.queries for row in result.rows} == {row.label: row.queries for row in whole[1].rows}
    assert (result.cost.asked, result.cost.images) == (whole[1].cost.asked, 13)
    _, (again,) = merged(tmp_path / "all")
    assert again.cost.asked == result.cost.asked


def test_a_control_that_a_shard_lacks_is_named_or_left_partial(tmp_path):
    made = tiny.registry(samples=SAMPLES)
    measure(tmp_path / "1", "1/2", made=made, attacks="clid", controls=True)
    measure(tmp_path / "2", "2/2", made=made, attacks="clid")
    with pytest.raises(UnavailableError, match=r"controls.neutral.* not fully measured"):
        merged(tmp_path / "1", tmp_path / "2", made=made, out=tmp_path / "all")
    _, (result,) = merged(tmp_path / "1", tmp_path / "2", made=made, out=tmp_path / "all", incomplete=True)
    assert not result.unfinished and tiny.row(result, "clid").n == 13


def test_what_a_shard_said_counts_only_while_it_is_true(tmp_path, whole):
    measure(tmp_path, "1/2", "2/2")
    plan, store = read_plan(Store(tmp_path)), Store(tmp_path)
    told = Outcome({(SAMPLES[0].id, "pia"): "an earlier fault"}, {"loss": "an earlier fault"})
    shards.record(Shard(1, 2), plan, store, told)
    _, (result,) = merged(tmp_path)
    assert same(tmp_path, whole) and not result.failures


def test_a_shard_speaks_for_its_own_samples_alone(tmp_path):
    measure(tmp_path, "1/2")
    plan, store = read_plan(Store(tmp_path)), Store(tmp_path)
    shards.record(Shard(1, 2), plan, store, Outcome({}, dict.fromkeys(("loss", "pia", "clid"), "failed")))
    with pytest.raises(UnavailableError, match="unfinished: shard 2/2"):
        merged(tmp_path)


def test_a_damaged_file_is_measured_anew_by_a_shard(tmp_path, whole):
    measure(tmp_path, "1/2", "2/2")
    path = next((tmp_path / "measurements").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    measure(tmp_path, "1/2", "2/2")
    merged(tmp_path)
    assert same(tmp_path, whole)


def test_a_shard_that_has_nothing_to_do_leaves_the_result(tmp_path):
    measure(tmp_path, "1/2", "2/2")
    merged(tmp_path)
    measure(tmp_path, "2/2")
    assert (tmp_path / "results.json").exists()


def test_what_calibrates_is_found_from_where_shards_are_joined(tmp_path):
    made = tiny.registry(samples=SAMPLES)
    others = [s for s in tiny.icons(14, 12) if s.id not in {own.id for own in SAMPLES}]
    tiny.go(tmp_path / "shadow", tiny.registry(samples=others), attacks="clid", target="tiny:8")
    below = tmp_path / "deep" / "down"
    measure(below / "1", "1/1", made=made, attacks="clid", calibrate_on=tmp_path / "shadow")
    _, (result,) = merged(below / "1", made=made, out=tmp_path / "joined")
    assert result.shadow and tiny.row(result, "clid").n == 13


def test_controls_are_merged_too(tmp_path):
    made = tiny.registry(samples=SAMPLES)
    more = {"attacks": "clid", "controls": True}
    measure(tmp_path / "two", "1/2", "2/2", made=made, **more)
    _, (result,) = merged(tmp_path / "two", made=made)
    whole = tiny.go(tmp_path / "one", made, **more)
    assert result.controls and result.controls == whole.controls


def test_pictures_come_after_the_merge(tmp_path):
    with pytest.raises(UsageError, match="not scored"):
        measure(tmp_path, "1/2", artifacts=1)


def test_a_damaged_record_is_named(tmp_path):
    measure(tmp_path, "1/1")
    path = tmp_path / "shards" / "1-of-1.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "samples": 3}))
    with pytest.raises(UnavailableError, match="not the record of a shard"):
        merged(tmp_path)
    shutil.rmtree(path.parent)
    merged(tmp_path)
