"""A run goes on where it stopped, and measures nothing twice."""

import pytest
import tiny

from mia_bench.engine.plan import read_plan
from mia_bench.engine.run import rescore
from mia_bench.errors import MiaBenchError, UnavailableError, UsageError
from mia_bench.store import Store


def content(folder):
    return (folder / "scores.parquet").read_bytes()


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("TINY_LOG", str(path))
    return path


class Counted:
    """What a run measured, as the events tell."""

    def __init__(self):
        self.started = []

    def registry(self, *modules, samples=None):
        return tiny.registry(
            tiny.plugin(run_started=lambda event: self.started.append(event)), *modules, samples=samples
        )


def test_a_run_folder_holds_what_the_design_says(tmp_path):
    tiny.go(tmp_path)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.name.startswith(".")}
    assert {n for n in names if not n.endswith(".parquet")} == {"run.json", "results.json", "measurements"}
    assert sum(n.startswith("measurements/") for n in names) == 1, "shards are compacted"
    assert "scores.parquet" in names
    assert [a.label for a in read_plan(Store(tmp_path)).attacks] == ["loss", "pia"]


def test_the_same_command_again_measures_nothing(tmp_path, log):
    first = tiny.go(tmp_path / "run", attacks="logged,loss")
    before, measured = content(tmp_path / "run"), log.read_text()
    counted = Counted()
    again = tiny.go(tmp_path / "run", counted.registry(), attacks="logged,loss")
    assert again == first
    assert content(tmp_path / "run") == before
    assert log.read_text() == measured
    assert [(e.pending, e.stored, e.batches) for e in counted.started] == [(0, 12, 0)]


def test_a_second_attack_measures_only_itself(tmp_path, log):
    tiny.go(tmp_path / "run", attacks="logged")
    log.write_text("")
    counted = Counted()
    result = tiny.go(tmp_path / "run", counted.registry(), attacks="logged,loss,pia")
    assert log.read_text() == ""
    assert [e.labels for e in counted.started] == [("loss", "pia")]
    assert [r.n for r in result.rows] == [12, 12, 12]
    tiny.go(tmp_path / "once", attacks="logged,loss,pia")
    assert content(tmp_path / "run") == content(tmp_path / "once")


def test_a_larger_limit_measures_only_the_new_samples(tmp_path, log):
    samples = tiny.icons(8, 8)
    tiny.go(tmp_path / "run", tiny.registry(samples=samples), attacks="logged", limit=3)
    few = log.read_text().split()
    tiny.go(tmp_path / "run", tiny.registry(samples=samples), attacks="logged", limit=8)
    both = log.read_text().split()
    assert len(few) == 6
    assert len(both) == len(set(both)) == 16


def test_a_smaller_limit_reports_only_its_samples(tmp_path, log):
    tiny.go(tmp_path / "run", attacks="logged")
    result = tiny.go(tmp_path / "run", attacks="logged", limit=2)
    assert (result.rows[0].n, len(tiny.scores(tmp_path / "run"))) == (4, 4)
    assert len(log.read_text().split()) == 12


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, log, batches):
    def interrupt(event):
        if event.batch == batches:
            raise KeyboardInterrupt

    tiny.go(tmp_path / "whole", attacks="logged,loss,clid")
    log.write_text("")
    with pytest.raises(KeyboardInterrupt):
        tiny.go(tmp_path / "run", tiny.registry(tiny.plugin(batch_measured=interrupt)), attacks="logged,loss,clid")
    assert len(log.read_text().split()) == 4 * batches
    assert not (tmp_path / "run" / "scores.parquet").exists()
    tiny.go(tmp_path / "run", attacks="logged,loss,clid")
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    measured = log.read_text().split()
    assert len(measured) == len(set(measured)) == 12, "nothing is measured twice"


def test_two_targets_or_seeds_in_one_folder_do_not_mix(tmp_path):
    tiny.go(tmp_path / "one")
    for change in ({"seed": 1}, {"target": "tiny:8"}):
        tiny.go(tmp_path / "run", **change)
    tiny.go(tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "one")


def test_a_folder_that_cannot_be_written_is_a_users_mistake_before_anything_is_loaded(tmp_path, monkeypatch):
    made = tiny.registry()
    monkeypatch.setattr(made.targets["tiny"], "load", lambda self: pytest.fail("loaded"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        tiny.go(tmp_path / "file", made)


def test_a_full_disk_midway_keeps_what_is_stored(tmp_path, log, monkeypatch):
    import errno

    import pyarrow.parquet as pq

    written, write = [], pq.write_table

    def full(table, path, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(UsageError, match="No space left") as caught:
        tiny.go(tmp_path / "run", attacks="logged")
    assert "what is stored stays" in caught.value.fix
    monkeypatch.setattr(pq, "write_table", write)
    tiny.go(tmp_path / "run", attacks="logged")
    measured = log.read_text().split()
    assert len(measured) == 12 + 4, "only the batch that could not be written is measured again"
    tiny.go(tmp_path / "whole", attacks="logged")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_damaged_shard_is_set_aside_and_only_its_samples_are_measured_anew(tmp_path, log, caplog):
    stop = tiny.plugin(batch_measured=lambda event: event.batch == 2 and exit("killed"))
    with pytest.raises(SystemExit):
        tiny.go(tmp_path / "run", tiny.registry(stop), attacks="logged")
    damaged, whole = (tmp_path / "run" / "measurements").glob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(UnavailableError, match="it is damaged"):
        rescore(tiny.registry(), tmp_path / "run", {})
    tiny.go(tmp_path / "run", attacks="logged")
    assert f"{damaged}: it is damaged" in caplog.text
    assert f"set aside as {damaged.name}.damaged, its samples are measured anew" in caplog.text
    assert damaged.with_name(f"{damaged.name}.damaged").exists()
    measured = log.read_text().split()
    assert (len(measured), len(set(measured))) == (12 + 4, 12)
    tiny.go(tmp_path / "once", attacks="logged")
    assert content(tmp_path / "run") == content(tmp_path / "once")


def test_an_unknown_device_is_named(tmp_path):
    with pytest.raises(UnavailableError, match="device 'nonsense'"):
        tiny.go(tmp_path, device="nonsense")


def test_provenance_names_what_measured_it(tmp_path):
    result = tiny.go(tmp_path)
    (environment,) = result.environments
    assert environment["libraries"]["torch"]
    assert environment["device"]["type"] == "cpu"
    assert all(s["rows"] == 4 for s in Store(tmp_path).provenance().values())


def test_a_target_that_cannot_be_opened_costs_no_earlier_result(tmp_path, monkeypatch):
    tiny.go(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    made = tiny.registry()
    monkeypatch.setattr(made.targets["tiny"], "load", lambda self: 1 / 0)
    with pytest.raises(MiaBenchError, match="ZeroDivisionError"):
        tiny.go(tmp_path, made, target="tiny:8")
    assert before and {p: p.read_bytes() for p in tmp_path.rglob("*.json")} == before
