"""Spans: nested, of several threads, merged, and bounded."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mia_bench.diffusion.rows import RowRunner, worker_pool
from mia_bench.report.profile import spent, trace_of
from mia_bench.trace import Recorder, record, recording, span


def by_name(events):
    return {e["name"]: e for e in events}


def test_what_is_within_a_span_is_not_its_own():
    with record() as recorder, span("outer"):
        time.sleep(0.02)
        with span("inner"):
            time.sleep(0.03)
    outer, inner = (by_name(recorder.events())[n] for n in ("outer", "inner"))
    assert inner["own"] == inner["seconds"] >= 0.03
    assert outer["own"] == pytest.approx(outer["seconds"] - inner["seconds"]) and outer["own"] >= 0.02
    assert recorder.began <= outer["began"] <= inner["began"] <= recorder.ended


def test_nothing_is_recorded_unless_asked():
    with span("before") as nothing:
        assert nothing is None and not recording()
    with record() as recorder:
        assert recording()
    with span("after"):
        pass
    assert recorder.events() == [] and not recording()


def test_a_span_that_was_open_before_is_left_out():
    early = span("early")
    early.__enter__()
    with record() as recorder:
        early.__exit__(None, None, None)
    assert recorder.events() == []


def test_a_function_may_call_itself_in_several_threads():
    @span("work")
    def work(depth):
        time.sleep(0.002)
        return depth and work(depth - 1)

    with record() as recorder, ThreadPoolExecutor(4) as pool:
        list(pool.map(span("task")(work), [2] * 8))
    events = recorder.events()
    assert len(events) == 32 and not any(e["main"] for e in events)
    tasks = sum(e["seconds"] for e in events if e["name"] == "task")
    assert sum(e["own"] for e in events) == pytest.approx(tasks)


def test_the_table_adds_up_and_threads_are_counted_apart():
    runner = RowRunner(2, worker_pool(2), kind="denoiser")

    def network(x):
        time.sleep(0.05)
        return x

    with record(time.time() - 1) as recorder:
        with span("attacks"), torch.inference_mode():
            runner(network, torch.zeros(8, 1))  # four calls, two at a time
        time.sleep(0.03)
    wall = recorder.ended - recorder.began
    rows = {row.name: row for row in spent(recorder.events(), wall)}
    assert sum(row.wall_s for row in rows.values()) == pytest.approx(wall)
    assert rows["start-up"].wall_s == pytest.approx(1, abs=0.5)
    assert rows["denoiser"].busy_s >= 0.2, "of both threads"
    assert rows["denoiser"].wall_s < 0.9 * rows["denoiser"].busy_s, "and waiting is not work"
    assert rows["other"].wall_s >= 0.03
    assert list(rows) == ["start-up", "denoiser", "attacks", "other"]


def test_calls_in_one_thread_are_counted_once():
    with record() as recorder:
        RowRunner(2, kind="vae")(lambda x: time.sleep(0.01) or x, torch.zeros(4, 1))
    rows = {row.name: row for row in spent(recorder.events(), recorder.ended - recorder.began)}
    assert rows["vae"].busy_s == pytest.approx(rows["vae"].wall_s) and rows["vae"].wall_s >= 0.02


def test_the_device_is_waited_for_only_while_times_are_taken(monkeypatch):
    waited = []
    monkeypatch.setattr("mia_bench.diffusion.rows._wait_for", lambda output: waited.append(len(output)))
    runner = RowRunner(2)
    runner(lambda x: x, torch.zeros(4, 1))
    assert not waited
    with record():
        runner(lambda x: x, torch.zeros(3, 1))
    assert waited == [2, 2], "after each call"


def test_other_processes_send_theirs():
    with record() as recorder, span("waiting", waits=True):
        time.sleep(0.01)
    with record() as worker, span("denoiser"):
        time.sleep(0.02)
    sent = pickle.loads(pickle.dumps([{**e, "pid": 1} for e in worker.events()]))
    recorder.merge(sent)
    rows = {row.name: row for row in spent(recorder.events(), recorder.ended - recorder.began)}
    assert rows["denoiser"].busy_s >= 0.02 and rows["denoiser"].wall_s == 0, "the main thread is this process's"
    tracks = {(e["pid"], e["tid"]) for e in trace_of(recorder.events(), recorder.began)["traceEvents"]}
    assert len(tracks) == 2


def test_memory_is_bounded_and_sums_stay():
    recorder, step = Recorder(most=3), span("step")
    for _ in range(10):
        recorder.enter(step)
        recorder.leave(step)
    events = recorder.events()
    assert len(events) == 4 and sum(e["count"] for e in events) == 10
    assert [e["count"] for e in events if e["began"] is None] == [7]
    assert len([e for e in trace_of(events, recorder.began)["traceEvents"] if e["ph"] == "X"]) == 3
    assert spent(events, 1.0)[0].count == 10


def test_the_trace_has_a_track_for_each_thread():
    with record() as recorder, span("here"):
        thread = threading.Thread(target=span("there")(time.sleep), args=(0.01,), name="elsewhere")
        thread.start()
        thread.join()
    found = trace_of(recorder.events(), recorder.began)["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in found if e["ph"] == "M"}
    spans = {e["name"]: e for e in found if e["ph"] == "X"}
    assert {name: names[e["tid"]] for name, e in spans.items()} == {"here": "main", "there": "elsewhere"}
    assert spans["here"]["ts"] <= spans["there"]["ts"] and spans["there"]["dur"] >= 10_000  # microseconds


def test_it_costs_nothing_when_off():
    def once():
        began = time.perf_counter()
        for _ in range(100):
            with span("x"):
                pass
        return (time.perf_counter() - began) / 100

    assert min(once() for _ in range(100)) < 2e-5, "a network call takes a hundred times as long at least"
