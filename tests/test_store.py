"""The run folder survives kills, full disks, damage and a second run."""

import errno
import itertools
import multiprocessing
import os
import signal
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mia_bench.errors import ExitStatus, UnavailableError, UsageError
from mia_bench.store import Store

FP = "f" * 24
IDS = [f"s{i}" for i in range(8)]
MADE_BY = {"time": "now", "samples": 2}


def digest(name):
    return f"digest of {name}"


def filled(folder, *batches, **terms):
    """A store with one shard for each batch of ids; a sample's value is its number."""
    store = Store(folder)
    for batch in batches or (IDS[:4], IDS[4:]):
        numbers = np.array([float(i[1:]) for i in batch])
        store.add(batch, [digest(i) for i in batch], {FP: {"term": numbers, **terms}}, MADE_BY)
    return store


def read(store, ids=IDS):
    found, terms = store.terms(FP, [(i, digest(i)) for i in ids])
    return found.tolist(), terms["term"].tolist() if terms else []


def files(store):
    return sorted(p.name for p in store.shards.iterdir())


def test_terms_come_back_in_the_order_asked_for_with_their_shape(tmp_path):
    store = Store(tmp_path)
    values = np.arange(24.0).reshape(4, 2, 3)
    store.add(IDS[:4], [digest(i) for i in IDS[:4]], {FP: {"grid": values, "flat": values[:, 0, 0]}}, MADE_BY)
    asked = ["s3", "s7", "s0"]
    found, terms = store.terms(FP, [(i, digest(i)) for i in asked])
    assert found.tolist() == [True, False, True]
    assert np.array_equal(terms["grid"], values[[3, 0]])
    assert terms["flat"].tolist() == [18.0, 0.0]


def test_a_changed_sample_or_identity_is_not_found(tmp_path):
    store = filled(tmp_path)
    assert not store.terms(FP, [("s0", "another digest")])[0].any()
    assert not store.terms("another", [("s0", digest("s0"))])[0].any()
    assert store.done([FP, "another"]) == {FP: {(i, digest(i)) for i in IDS}, "another": set()}


def test_an_empty_folder_reads_as_nothing(tmp_path):
    store = Store(tmp_path / "none")
    assert store.done([FP]) == {FP: set()}
    assert read(store) == ([False] * 8, [])
    store.compact()
    assert not store.folder.exists(), "reading makes nothing"


def test_a_sample_with_nan_is_left_out_and_measured_anew_later(tmp_path):
    store = Store(tmp_path)
    store.add(IDS[:2], [digest(i) for i in IDS[:2]], {FP: {"term": np.array([1.0, np.nan])}}, MADE_BY)
    assert read(store, IDS[:2]) == ([True, False], [1.0])
    store.add(["s1"], [digest("s1")], {FP: {"term": np.array([5.0])}}, MADE_BY)
    assert read(store, IDS[:2]) == ([True, True], [1.0, 5.0])


def test_the_same_sample_in_two_shards_counts_once(tmp_path):
    store = filled(tmp_path, IDS[:4], IDS[2:6])
    assert read(store) == ([True] * 6 + [False] * 2, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    store.compact()
    assert read(store) == ([True] * 6 + [False] * 2, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def test_what_shards_hold_comes_in_one_order_whatever_the_order_of_reading(tmp_path):
    store = filled(tmp_path, *([i] for i in IDS))
    for number, path in enumerate(sorted(store.shards.iterdir(), reverse=True)):
        path.rename(path.with_name(f"{number}.parquet"))
    held = store.held([FP])
    assert list(held) == sorted(held) and len(held) == len(IDS)
    assert {pair for by_fingerprint in held.values() for pair in by_fingerprint[FP]} == {(i, digest(i)) for i in IDS}


def test_terms_are_read_only(tmp_path):
    found, terms = filled(tmp_path).terms(FP, [(i, digest(i)) for i in IDS])
    for array in (found, terms["term"]):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_folders_merge_by_copying_shards(tmp_path):
    first, second = filled(tmp_path / "a", IDS[:4]), filled(tmp_path / "b", IDS[2:5], IDS[5:])
    second.compact()
    for path in second.shards.iterdir():
        (first.shards / path.name).write_bytes(path.read_bytes())
    assert read(first) == ([True] * 8, [float(i) for i in range(8)])


def test_compaction_leaves_one_file_and_the_same_reading(tmp_path):
    store = filled(tmp_path)
    before, provenance = read(store), store.provenance()
    store.compact()
    assert len(files(store)) == 1
    assert read(store) == before
    assert store.provenance() == provenance, "each shard's record is kept"


def test_compaction_holds_a_portion_at_a_time(tmp_path, monkeypatch):
    from mia_bench import shard_files
    from mia_bench import store as module

    monkeypatch.setattr(module, "PORTION", 1)
    monkeypatch.setattr(shard_files, "ROWS_AT_ONCE", 3)
    store = filled(tmp_path)
    before, done = read(store), store.done([FP])
    store.compact()
    (path,) = store.shards.iterdir()
    assert pq.ParquetFile(path).num_row_groups > 2
    assert (read(store), store.done([FP])) == (before, done)


@pytest.mark.parametrize("kept", range(1, 3))
def test_a_kill_while_compaction_deletes_loses_and_doubles_nothing(tmp_path, kept):
    store = filled(tmp_path)
    before, provenance = read(store), store.provenance()
    old = {p.name: p.read_bytes() for p in store.shards.iterdir()}
    store.compact()
    for name in sorted(old)[:kept]:  # the kill came before these were deleted
        (store.shards / name).write_bytes(old[name])
    assert read(store) == before
    assert store.provenance() == provenance
    assert len(store.terms(FP, [(i, digest(i)) for i in IDS])[1]["term"]) == len(IDS)
    store.compact()
    assert len(files(store)) == 1, "what the kill left behind is cleaned up"
    assert read(store) == before


def test_temporary_files_of_a_killed_run_are_ignored_and_cleaned(tmp_path):
    store = filled(tmp_path)
    store.write_json("run.json", {})
    left = [store.shards / ".abc.parquet.123.tmp", store.folder / ".scores.parquet.123.tmp"]
    for path in left:
        path.write_bytes(b"half a shard")
    assert read(store)[0] == [True] * 8
    with store.locked():
        assert not any(path.exists() for path in left)


def spoil(path, where):
    content = bytearray(path.read_bytes())
    if where == "truncated":
        content = content[: len(content) // 2]
    elif where == "empty":
        content = bytearray()
    elif where == "no shard of ours":
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
        return
    else:
        content[20:40] = bytes(20)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("where", ["truncated", "empty", "no shard of ours", "flipped bytes"])
def test_a_damaged_shard_is_named_with_its_cure(tmp_path, where):
    store = filled(tmp_path)
    path = sorted(store.shards.iterdir())[0]
    spoil(path, where)
    for reading in (read, lambda s: s.done([FP]), lambda s: s.compact()):
        with pytest.raises(UnavailableError) as caught:
            reading(store)
        assert str(path) in str(caught.value)
        assert "it is damaged" in caught.value.why
        assert "`mia-bench run` with the same options" in caught.value.fix and "anew" in caught.value.fix
    store.set_aside_damaged()
    assert sum(read(store)[0]) == 4, "the other shard is untouched"


@pytest.mark.parametrize(
    "fault",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        pa.ArrowMemoryError("malloc of size 64 failed"),
        pa.ArrowCancelled("cancelled"),
        pa.ArrowNotImplementedError("codec"),
    ],
    ids=lambda fault: type(fault).__name__,
)
@pytest.mark.parametrize("step", ["read_schema", "ParquetFile"])
def test_a_shard_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path, monkeypatch, fault, step):
    def read(*args, **kwargs):
        raise fault

    store = filled(tmp_path)
    before = files(store)
    monkeypatch.setattr(pq, step, read)
    with pytest.raises(UnavailableError) as caught:
        store.set_aside_damaged()
    assert files(store) == before
    assert before[0] in caught.value.what and "damaged" not in str(caught.value)
    assert caught.value.why.startswith("cannot be read: ")
    assert (caught.value.fix == "make it readable") == isinstance(fault, OSError)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(UnavailableError, match=r"run\.json"):
        Store(tmp_path).read_json("run.json")


# Writing that fails ---------------------------------------------------------------------------------------------


def failing(number):
    def write(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "what is stored stays"), (errno.EDQUOT, "stays"), (errno.EROFS, "--out")]
)
@pytest.mark.parametrize("step", ["write_table", "fsync"])
def test_a_failed_write_keeps_earlier_shards_and_leaves_no_litter(tmp_path, monkeypatch, number, said, step):
    store = filled(tmp_path)
    before = files(store)
    with monkeypatch.context() as patch:
        patch.setattr(*((pq, "write_table") if step == "write_table" else (os, "fsync")), failing(number))
        with pytest.raises(UsageError) as caught:
            filled(tmp_path, ["s0"])
        assert said in caught.value.fix
        assert os.strerror(number) in str(caught.value)
    assert files(store) == before
    assert read(store)[0] == [True] * 8


def test_a_really_full_disk(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        store = filled(tmp_path, IDS[:4])
        with pytest.raises(UsageError) as caught:
            filled(tmp_path, IDS[4:], wide=np.random.default_rng(0).random((4, 40_000)))
        assert "No space left" in str(caught.value)
        assert "what is stored stays" in caught.value.fix
        assert sum(read(store)[0]) == 4
        assert len(files(store)) == 1
        filled(tmp_path, IDS[4:])
        assert read(store)[0] == [True] * 8
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_that_cannot_be_made_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught, Store(tmp_path / "file" / "run").locked():
        pass
    assert "--out" in caught.value.fix
    assert caught.value.status == ExitStatus.USAGE


# One run at a time ----------------------------------------------------------------------------------------------


def hold(folder, ready):
    with Store(folder).locked():
        ready.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(10)
    yield process
    process.kill()
    process.join()


def test_a_second_run_is_refused_at_once(tmp_path, holder):
    left = tmp_path / "measurements" / ".half.parquet.1.tmp"
    left.write_text("being written by the first run")
    with pytest.raises(UsageError, match="another run is writing") as caught, Store(tmp_path).locked():
        pass
    assert "--out" in caught.value.fix
    assert left.exists(), "the first run's files are its own"


def test_a_lock_left_by_a_killed_run_does_not_block(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / ".lock").exists()
    with Store(tmp_path).locked():
        pass


def test_reading_needs_no_lock(tmp_path, holder):
    assert read(Store(tmp_path)) == ([False] * 8, [])


def test_any_order_of_shards_reads_the_same(tmp_path):
    readings = []
    for number, order in enumerate(itertools.permutations([IDS[:3], IDS[3:5], IDS[5:]])):
        store = filled(tmp_path / str(number), *order)
        readings.append(read(store))
        store.compact()
        readings.append(read(store))
    assert all(r == readings[0] for r in readings)


@pytest.mark.parametrize(
    "name", ["measurements/lab.txt", "measurements", "artifacts/x.png", "results.json", "scores.parquet", "controls/x"]
)
def test_a_folder_that_is_no_run_s_is_left_alone(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=name.partition("/")[0]) as caught, Store(tmp_path).locked():
        pass
    assert "another folder" in caught.value.fix and (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / ".lock").exists()
    (tmp_path / "run.json").write_text("{}")
    if name != "measurements":
        with Store(tmp_path).locked():
            assert (tmp_path / name).read_text() == "mine"


def test_a_run_killed_before_its_plan_goes_on(tmp_path):
    for name in ("notes.txt", ".notes.tmp"):
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        with Store(tmp_path).locked():
            assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".notes.tmp", ".lock", "measurements"}
            (tmp_path / ".run.json.1.tmp").touch()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch, code):
    """Files as marks of a lock would outlive a run that is killed on another machine."""

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UsageError, match="no locks") as caught, Store(tmp_path / "run").locked():
        pass
    assert "--out" in caught.value.fix
