"""Several processes of this machine: the same numbers, whoever measures and whoever dies on the way."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from placed import PLUGIN

from mia_bench.engine.run import run
from mia_bench.errors import BrokenPluginError, UnavailableError, UsageError
from mia_bench.executor import Job, failed
from mia_bench.hookspecs import hookimpl
from mia_bench.plugins import Registry
from mia_bench.store import Store
from mia_bench.trace import record

LOCAL = {"executor": "local", "workers": 2}


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(one) for one in found]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not stat.startswith("Z")


def waited(condition, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    return condition()


def test_two_workers_give_the_bytes_of_one(place, monkeypatch):
    alone = place.run("one", executor="local")
    assert {pid for pid, _ in place.logged()} == {str(os.getpid())}, "a single worker is this process"
    place.log.unlink()
    monkeypatch.setenv("SLOWLY_TOGETHER", "2")
    both = place.run("two", **LOCAL)
    assert place.bytes("one") == place.bytes("two")
    assert len({pid for pid, _ in place.logged()}) == 2
    assert set(place.measured().values()) == {1}
    assert [r.evaluation for r in both.rows] == [r.evaluation for r in alone.rows]
    assert both.cost.asked == alone.cost.asked and both.cost.images == alone.cost.images


def test_progress_is_told_in_one_place(place):
    told = []

    class Listener:
        @hookimpl
        def mia_bench_run_started(self, event):
            told.append((event.workers, event.pending))

        @hookimpl
        def mia_bench_batch_measured(self, event):
            told.append((event.batch, event.done))

        @hookimpl
        def mia_bench_run_finished(self, event):
            told.append(event.done)

    place.registry.manager.register(Listener())
    place.run("two", **LOCAL)
    assert told[0] == (2, 24) and told[-1] == 24
    assert [batch for batch, _ in told[1:-1]] == list(range(1, len(told) - 1))
    assert [done for _, done in told[1:-1]] == sorted(done for _, done in told[1:-1])


def test_a_profile_has_what_workers_did(place, monkeypatch):
    monkeypatch.setenv("SLOWLY_TOGETHER", "2")
    with record() as recorder:
        place.run("two", **LOCAL)
    events = recorder.events()
    named = {event["name"] for event in events if event["pid"] != os.getpid()}
    assert {"denoiser", "images", "storing", "loading the target"} <= named
    assert len({event["pid"] for event in events}) == 3
    here = {event["name"] for event in events if event["main"]}
    assert "workers" in here and "denoiser" not in here


def test_a_lost_worker_is_replaced_and_costs_its_batch_alone(place, monkeypatch, caplog):
    place.run("one")
    victim = place.logged()[9][1]
    monkeypatch.setenv("SLOWLY_DEADLY", victim)
    monkeypatch.setenv("SLOWLY_ONCE", str(place.folder / "killed"))
    result = place.run("two", **LOCAL)
    assert (place.folder / "killed").exists()
    assert place.bytes("one") == place.bytes("two") and not result.failures
    again = [sample for sample, count in place.measured().items() if count > 1]
    assert victim in again and len(again) <= 4, "the batch in flight"
    assert "SIGKILL" in caplog.text
    key = ["fingerprint", "sample_id", "term"]
    table = pq.read_table(next(Store(place.folder / "two").shards.iterdir()), columns=key)
    counts = table.group_by(key).aggregate([([], "count_all")])
    assert set(counts["count_all"].to_pylist()) == {1}


def test_a_batch_that_kills_every_worker_ends_the_run_by_name(place, monkeypatch):
    place.run("one")
    victim = place.logged()[-1][1]
    monkeypatch.setenv("SLOWLY_DEADLY", victim)
    with pytest.raises(UnavailableError) as caught:
        place.run("two", **LOCAL)
    assert victim in caught.value.what or "..." in caught.value.what
    assert "3 workers were lost on it" in caught.value.why and "SIGKILL" in caught.value.why
    monkeypatch.delenv("SLOWLY_DEADLY")
    before = place.measured()
    place.run("two", **LOCAL)
    assert place.bytes("one") == place.bytes("two")
    assert sum(place.measured().values()) <= 24 - sum(count == 1 for count in before.values()) + 8, "it was resumed"


def test_faults_are_told_as_by_one_process(place, monkeypatch):
    monkeypatch.setenv("SLOWLY_FAULT", "1")
    one, two = place.run("one"), place.run("two", **LOCAL)
    reasons = [{row.label: row.reason for row in result.rows} for result in (one, two)]
    assert reasons[0] == reasons[1]
    assert "ZeroDivisionError: as the test asked" in reasons[1]["slowly"] and not reasons[1]["pia"]
    with pytest.raises(BrokenPluginError, match="as the test asked"):
        place.run("three", **LOCAL, fail_fast=True)


def test_a_target_that_cannot_be_opened_costs_no_earlier_result(place):
    place.run("one")
    before = place.bytes("one")
    broken = replace(place.options("one", **LOCAL), limit=16, device="cuda:7")
    with pytest.raises(UnavailableError, match="cuda:7"):
        run(place.registry, broken)
    assert place.bytes("one") == before


def test_workers_that_plan_otherwise_do_not_measure(place, monkeypatch):
    options = place.options("two", **LOCAL)
    plain = Registry.load([PLUGIN])
    plain.attacks["slowly"] = type("Slowly", (plain.attacks["slowly"],), {})  # not what the file says
    plain.attacks["slowly"].meta = plain.attacks["slowly"].meta.model_copy(update={"version": 99})
    with pytest.raises(UnavailableError, match="plans another run"):
        run(plain, options)
    assert not place.logged()


def test_an_object_cannot_be_given_to_other_processes(place):
    job = Job(replace(place.options("two"), target=object()), (), "", frozenset(), place.folder)
    with pytest.raises(UsageError, match="as an object"):
        place.registry.executor("local")(2).spread(job)


def command(place, name):
    words = ["--attacks", "slowly,pia", "--dataset", "icons", "--target", "tiny", "--limit", "12"]
    words += ["--threads", "1", "--rows", "4", "--batch", "4", "--workers", "2", "--out", str(place.folder / name)]
    return [sys.executable, "-m", "mia_bench", "run", "-p", str(PLUGIN), *words]


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_run_is_the_end_of_its_workers(place, monkeypatch, signal_sent):
    place.run("one")
    place.log.unlink()
    monkeypatch.setenv("SLOWLY_S", "2")
    monkeypatch.setenv("SLOWLY_TOGETHER", "2")
    process = subprocess.Popen(command(place, "two"), start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        assert waited(lambda: len({pid for pid, _ in place.logged()}) == 2, 100)
        workers = children(process.pid)
        if signal_sent == signal.SIGINT:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all are told
        else:
            process.kill()
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
    assert waited(lambda: not any(map(alive, workers)), 60), "no worker lives on"
    if signal_sent == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again to resume" in said and "Traceback" not in said
    monkeypatch.setenv("SLOWLY_S", "0")
    monkeypatch.setenv("SLOWLY_TOGETHER", "1")
    stored = {
        i for f in Store(place.folder / "two").held(_fingerprints(place)).values() for d in f.values() for i, _ in d
    }
    place.run("two", **LOCAL)
    assert place.bytes("one") == place.bytes("two")
    assert not stored & set(place.measured()), "what was stored is not measured again"


def _fingerprints(place):
    from mia_bench.engine.prepare import prepare

    return [a.fingerprint for a in prepare(place.registry, place.options("two")).plan.attacks]


def test_one_process_for_each_visible_gpu(place, monkeypatch):
    from mia_bench_plugins.executors import local

    def devices(workers=None, **options):
        spread = local.Local(workers).spread(Job(place.options("two", **options), (), "", frozenset(), place.folder))
        return [job.options.device for job in spread]

    monkeypatch.setattr(local, "_gpus", lambda: 3)
    assert devices() == devices(device="cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices(5) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert devices(device="cuda:1") == ["cuda:1"] and devices(device="cpu") == ["cpu"]
    monkeypatch.setattr(local, "_gpus", lambda: 1)
    assert devices() == [None], "this process"


def test_what_failed_elsewhere_says_where():
    try:
        raise KeyError("lost")
    except KeyError as error:
        arrived = pickle.loads(pickle.dumps(failed(error)))
    assert str(arrived.error) == "KeyError: 'lost'" and "test_local.py" in arrived.error.__notes__[0]
