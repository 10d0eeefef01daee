"""What is remembered between runs survives many writers, killed writers and hostile content."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from mia_bench.cache import cache_folder
from mia_bench.engine.line_cache import LineCache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_where_it_is(monkeypatch, folder):
    assert cache_folder() == folder
    monkeypatch.delenv("MIA_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/mia-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/mia-bench")


def test_what_was_added_is_known_to_the_next():
    assert LineCache("t").known == {}
    LineCache("t").add({key(1): "a cat", key(2): 'two\nlines, "quoted", é 🐈'})
    assert LineCache("t").known == {key(1): "a cat", key(2): 'two\nlines, "quoted", é 🐈'}
    assert LineCache("other").known == {}


def test_what_has_no_hash_of_content_is_not_remembered():
    cache = LineCache("t")
    cache.add({"missing": "1", "": "2", f"{key(1)}\n": "3"})
    assert not cache.path.exists() and LineCache("t").known == {}


@pytest.mark.parametrize("keep", [10, 65, 70, 81])
def test_a_line_cut_short_costs_itself_alone(keep):
    cache = LineCache("t")
    cache.add({key(1): "one"})
    cache.add({key(2): "two"})
    content = cache.path.read_bytes()
    cache.path.write_bytes(content[: len(content) // 2 + 1 + keep])
    LineCache("t").add({key(3): "three"})
    known = LineCache("t").known
    assert known.pop(key(2), "two") == "two"
    assert known == {key(1): "one", key(3): "three"}


def test_garbage_is_no_text():
    cache = LineCache("t")
    cache.add({key(1): "one"})
    with cache.path.open("ab") as file:
        file.write(b"\xff\xfe\0 garbage\n" + key(2).encode() + b' "a\\x"\n' + key(4).upper().encode() + b' "a"\n')
    assert LineCache("t").known == {key(1): "one"}


def test_many_processes_lose_nothing(folder):
    code = """
import hashlib, sys
from mia_bench.engine.line_cache import LineCache
cache = LineCache("t")
for i in range(200):
    number = int(sys.argv[1]) * 1000 + i
    cache.add({hashlib.sha256(str(number).encode()).hexdigest(): str(number)})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(4)]
    assert [w.wait() for w in writers] == [0] * 4
    assert LineCache("t").known == {key(n * 1000 + i): str(n * 1000 + i) for n in range(4) for i in range(200)}


def test_a_folder_that_cannot_be_written_is_said_once(folder, caplog):
    folder.write_text("a file")
    cache = LineCache("t")
    cache.add({key(1): "one"})
    cache.add({key(2): "two"})
    assert cache.known == {key(1): "one", key(2): "two"}
    assert len([r for r in caplog.records if "images will be read again" in r.getMessage()]) == 1
