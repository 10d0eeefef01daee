"""Who gets which batch: nobody waits while there is one, and what a lost worker had is measured by another."""

import pytest

from mia_bench.engine.dispatch import Dispatcher, tasks_of_work
from mia_bench.engine.measure import Work
from mia_bench.engine.prepare import RunOptions
from mia_bench.errors import NetworkError, SampleError, UnavailableError
from mia_bench.executor import Executor, ExecutorMeta, Failed, Job, Lost, Ready, Report, Task
from mia_bench.plugins import Registry


class Script(Executor):
    """Workers that do what `act(number, task)` says at once: report, be lost, fail."""

    meta = ExecutorMeta(name="script", summary="a script")

    def __init__(self, workers, act=None, order=None):
        super().__init__(workers)
        self.act = act or (lambda number, task: Report(task, 0.0))
        self.order = order or (lambda said: 0)  # which of those who have something to say speaks
        self.said, self.given, self.ahead, self.started, self.stopped = [], [], [], [], False

    def spread(self, job):
        return [job.on("cpu", 1)] * self.workers

    def start(self, number, job):
        self.started.append(number)
        self.said.append((number, Ready(4)))

    def give(self, number, task, ahead):
        self.given.append((number, task.name))
        self.ahead.append((number, ahead and ahead.name))
        self.said.append((number, self.act(number, task)))

    def wait(self):
        return [self.said.pop(self.order(self.said))]

    def stop(self):
        self.stopped = True


def job(tmp_path):
    return Job(RunOptions(), (), "", frozenset(), tmp_path)


def tasks(count, attacks=("a", "b")):
    return [Task(str(n), attacks, (f"s{n}",)) for n in range(count)]


def dispatched(script, todo, tmp_path):
    with Dispatcher(script, job(tmp_path), Registry()) as dispatcher:
        assert dispatcher.open() == 4
        return dispatcher.run(todo, 0, "folder")


def test_every_batch_is_measured_once_whoever_answers_first(tmp_path):
    for workers in (1, 2, 5, 9):
        for order in (lambda said: 0, lambda said: -1, lambda said: len(said) // 2):
            script = Script(workers, order=order)
            dispatched(script, tasks(7), tmp_path)
            assert sorted(name for _, name in script.given) == list("0123456")
            assert script.stopped


def test_a_worker_is_told_what_comes_next_and_mostly_gets_it(tmp_path):
    script = Script(2)
    dispatched(script, tasks(8), tmp_path)
    for number in range(2):
        own = [name for n, name in script.given if n == number]
        told = [name for n, name in script.ahead if n == number]
        assert own[1:] == told[: len(own) - 1]


def test_a_batch_that_a_slow_worker_expects_goes_to_one_that_is_free(tmp_path):
    def order(said):
        return next((i for i, (n, message) in enumerate(said) if n == 1 or isinstance(message, Ready)), 0)

    script = Script(2, order=order)
    dispatched(script, tasks(6), tmp_path)
    assert [n for n, _ in script.given].count(0) == 1, "worker 0 does not answer until the end"


def test_what_a_lost_worker_had_is_measured_by_another(tmp_path):
    lost = []

    def act(number, task):
        if task.name == "2" and not lost:
            lost.append(number)
            return Lost("pulled the plug")
        return Report(task, 0.0)

    script = Script(2, act)
    dispatched(script, tasks(6), tmp_path)
    assert sorted(name for _, name in script.given) == list("0122345")
    assert script.started.count(lost[0]) == 2


def test_workers_that_are_lost_again_and_again(tmp_path):
    def act(number, task):
        return Lost("no luck") if number == 0 else Report(task, 0.0)

    script = Script(2, act)
    dispatched(script, tasks(12), tmp_path)
    assert script.started.count(0) == 3, "given up; the other one goes on"


def test_workers_that_never_open_the_target(tmp_path):
    class Stillborn(Script):
        def start(self, number, job):
            self.started.append(number)
            self.said.append((number, Lost("no luck")))

    script = Stillborn(2)
    with pytest.raises(UnavailableError, match=r"worker [12]: lost 3 times: no luck"):
        dispatched(script, tasks(1), tmp_path)
    assert sorted(script.started) == [0, 0, 0, 1, 1, 1] and script.stopped


def test_a_batch_that_is_deadly_ends_the_run(tmp_path):
    def act(number, task):
        return Lost("out of memory") if task.name == "3" else Report(task, 0.0)

    script = Script(4, act)
    with pytest.raises(UnavailableError) as caught:
        dispatched(script, tasks(9), tmp_path)
    assert "s3" in caught.value.what and "out of memory" in caught.value.why and script.stopped


def test_a_device_at_fault_is_no_fault_of_the_others(tmp_path):
    def act(number, task):
        return Failed(NetworkError("network", "CUDA error")) if number == 0 else Report(task, 0.0)

    script = Script(2, act)
    dispatched(script, tasks(9), tmp_path)
    assert script.started.count(0) == 3, "given up; the other one goes on"
    with pytest.raises(NetworkError, match="CUDA"):
        dispatched(Script(1, act), tasks(2), tmp_path)


def test_a_device_that_cannot_be_opened_is_left_out(tmp_path):
    class Broken(Script):
        bad = frozenset({0})

        def start(self, number, job):
            super().start(number, job)
            if number in self.bad:
                self.said[-1] = (number, Failed(UnavailableError(f"device {number}", "cannot be used", "take another")))
                self.said.append((number, Lost("its process ended")))

    for order in (lambda said: 0, lambda said: -1):
        script = Broken(3, order=order)
        dispatched(script, tasks(7), tmp_path)
        assert script.started == [0, 1, 2] and sorted(name for _, name in script.given) == list("0123456")
    Broken.bad = frozenset(range(3))
    with pytest.raises(UnavailableError, match="device 0") as caught:
        dispatched(Broken(3), tasks(2), tmp_path)
    assert caught.value.fix == "take another"


def test_what_mends_it_is_said_as_by_one_worker(tmp_path):
    script = Script(4, lambda n, t: Failed(NetworkError("service", "HTTP 401", "set the token")))
    with pytest.raises(UnavailableError, match="HTTP 401") as caught:
        dispatched(script, tasks(9), tmp_path)
    assert caught.value.fix == "set the token"


def test_of_several_reasons_the_first_batch_gives_it(tmp_path):
    def act(number, task):
        return Report(task, 0.0, {}, {"a": f"batch {task.name}"})

    for order in (lambda said: 0, lambda said: -1):
        script = Script(2, act, lambda said, order=order: 0 if isinstance(said[0][1], Ready) else order(said))
        assert dispatched(script, tasks(2), tmp_path).attacks == {"a": "batch 0"}


def test_a_failure_ends_the_run_as_it_is(tmp_path):
    script = Script(2, lambda n, t: Failed(SampleError("sample s1", "broken", "mend it")))
    with pytest.raises(SampleError, match="broken"):
        dispatched(script, tasks(2), tmp_path)
    assert script.stopped


def test_an_attack_that_failed_is_not_asked_again(tmp_path):
    asked = []

    def act(number, task):
        asked.append(task.attacks)
        return Report(task, 0.0, {}, {"a": "broken"} if "a" in task.attacks else {})

    outcome = dispatched(Script(1, act), [*tasks(4), Task("only a", ("a",), ("s9",))], tmp_path)
    assert asked == [("a", "b"), ("b",), ("b",), ("b",)]
    assert outcome.attacks == {"a": "broken"}


@pytest.mark.parametrize(("count", "workers", "sizes"), [(10, 1, [4, 4, 2]), (10, 2, [3, 3, 3, 1]), (3, 4, [1, 1, 1])])
def test_batches_keep_all_workers_busy_to_the_end(count, workers, sizes):
    class Named:
        def __init__(self, name):
            self.id = self.label = name

    work = [Work((Named("a"),), tuple(Named(str(n)) for n in range(count)))]
    made = tasks_of_work(work, 4, workers)
    assert [len(task.samples) for task in made] == sizes
    assert [i for task in made for i in task.samples] == [str(n) for n in range(count)]
    assert len({task.name for task in made}) == len(made)
