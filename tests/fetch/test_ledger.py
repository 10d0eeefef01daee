"""The ledger on disk, what is asked again, and lists at LAION-mi's size."""

import json
import os
import resource
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from urlplugin import Urls

from mia_bench.engine.samples import take
from mia_bench.errors import UsageError
from mia_bench.fetch.client import retry_after
from mia_bench.fetch.ledger import Ledger, Row, settled
from mia_bench.fetch.links import Link
from mia_bench.fetch.run import first
from mia_bench.fetch.survivors import freeze, hashed, judge
from mia_bench_plugins.datasets.laion_mi import LaionMi


def row(name, **facts):
    return Row(**{"id": name, "kind": "members", "url": f"http://{name}", **facts})


def written(path, *rows):
    ledger = Ledger(path)
    with ledger.appending():
        for one in rows:
            ledger.append(one)
    return ledger


def test_the_last_row_of_an_id_counts_and_earlier_ones_stay(tmp_path):
    path = tmp_path / "ledger.jsonl"
    written(path, row("a", error="timeout"), row("b"))
    before = path.read_bytes()
    ledger = written(path, row("a", sha256="ab", status=200))
    assert path.read_bytes().startswith(before)
    assert ledger.rows() == {"a": row("a", sha256="ab", status=200), "b": row("b")}


@pytest.mark.parametrize("torn", [b'{"id": "c", "ki', b"\x00\x00\x00", b"[1]", b'"', b"\xff\xfe", b'{"id": "c"}'])
def test_a_line_that_cannot_be_read_counts_as_never_written(tmp_path, torn):
    path = tmp_path / "ledger.jsonl"
    written(path, row("a"))
    with path.open("ab") as file:
        file.write(torn)
    assert set(Ledger(path).rows()) == {"a"}
    assert set(written(path, row("b")).rows()) == {"a", "b"}


def test_a_row_of_a_later_version_is_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"id": "a", "kind": "members", "url": "u", "phash": "1"}) + "\n")
    assert set(Ledger(path).rows()) == {"a"}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        *(({"error": f"http-{s}", "status": s}, True) for s in (400, 401, 404, 410, 451)),
        *(({"error": f"http-{s}", "status": s}, False) for s in (403, 408, 425, 429, 500, 502, 503, 504, 206)),
        *(({"error": word}, True) for word in ("html", "not-image", "too-small", "too-big", "noai", "scheme")),
        *(
            ({"error": word}, False)
            for word in ("dns", "connect", "tls", "timeout", "slow", "reset", "cut", "host-down", "private")
        ),
    ],
)
def test_what_is_asked_again_on_the_next_run(facts, expected):
    assert settled(row("a", **facts)) is expected


def test_what_is_settled_is_asked_again_on_request(fetched, server):
    kinds = [("a", "members", "JPEG"), ("b", "members", "404"), ("c", "members", "html"), ("d", "members", "403")]
    assert fetched(*kinds)[0].asked == 4
    assert fetched(*kinds)[0].asked == 1
    assert fetched(*kinds, again=True)[0].asked == 3
    assert len(server.requests("/a/")) == 1


def test_a_line_that_a_full_disk_cut_is_taken_back(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "ledger.jsonl"
    ledger = written(path, row("a"))
    before = path.read_bytes()
    with ledger.appending():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, hard))  # as a disk that is full
        try:
            with pytest.raises(UsageError) as caught:
                ledger.append(row("b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "MIA_BENCH_CACHE" in caught.value.fix and path.read_bytes() == before
        ledger.append(row("c"))
    assert set(ledger.rows()) == {"a", "c"}


def test_a_full_disk_stops_it_and_says_so(fetched, monkeypatch, server):
    def full(self, body):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(UsageError) as caught:
            fetched(("a", "members", "JPEG"), ("b", "members", "404"))
    assert "No space left" in str(caught.value) and "goes on where it stopped" in caught.value.fix
    assert fetched(("a", "members", "JPEG"), ("b", "members", "404"))[0].survival[0].survived == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("soon", None), ("-1", None), ("0", 0), ("120", 120), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after(text, seconds):
    assert retry_after(text) == seconds


def test_retry_after_a_date():
    from email.utils import formatdate

    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=3)


def test_a_list_is_named_by_its_survivors_alone(tmp_path):
    rows = [row(name, sha256=name) for name in "abc"]
    verdicts = dict.fromkeys("abc", "")
    other = [row(name, sha256=name, time="later", final_url="elsewhere") for name in "cab"]
    named = [
        freeze(tmp_path / str(n), *given, {"n": n}).digest
        for n, given in enumerate([(rows, verdicts), (other, verdicts), (rows, {**verdicts, "b": "repeated"})])
    ]
    assert named[0] == named[1] != named[2]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://i.imgur.com/removed.png", "placeholder"),
        ("https://s.yimg.com/pw/images/en-us/photo_unavailable_l.png", "placeholder"),
        ("https://example.org/i.imgur.com/removed.png", ""),
    ],
)
def test_a_redirect_to_a_picture_of_nothing_is_a_placeholder(url, why):
    assert judge([row("a", sha256="ab", final_url=url)]) == {"a": why}


def test_a_limit_takes_a_random_sample_of_each_class():
    links = [Link(f"{n}", "u", member=n < 400) for n in range(1000)]
    taken = first(links, {"members": 20, "nonmembers": 20})
    assert sum(link.member for link in taken) == 20 and len(taken) == 40
    assert taken == sorted(taken, key=lambda link: hashed(link.id))
    few = first(links, {"members": 10, "nonmembers": 20})
    assert len(few) == 30 and {link.id for link in few} < {link.id for link in taken}


def test_the_contract_is_open_to_outsiders(fetched):
    *_, dataset = fetched(("a", "members", "JPEG"), ("b", "nonmembers", "JPEG"))
    assert isinstance(dataset, Urls)
    assert {(s.id, s.member, s.caption) for s in dataset.samples()} == {
        ("a", True, "caption of a"),
        ("b", False, "caption of b"),
    }


def resident():
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def test_forty_thousand_rows_are_light(tmp_path):
    counts = {"members": 13_396, "nonmembers": 26_874}
    for kind, count in counts.items():
        rows = {"url": [f"https://host{n % 9000}.test/some/path/to/a/picture/{kind}/{n}.jpg" for n in range(count)]}
        pq.write_table(
            pa.table({**rows, "caption": [f"what is to be seen in {n}" for n in range(count)]}),
            tmp_path / f"{kind}.parquet",
        )
    dataset = LaionMi(str(tmp_path))
    made = [
        row(link.id, url=link.url, final_url=link.url, status=200, sha256=f"{n:064x}")
        for n, link in enumerate(dataset.links)
    ]
    ledger = written(dataset.folder / "ledger.jsonl", *made)
    del made
    memory, began = resident(), time.process_time()
    rows = ledger.rows()
    freeze(dataset.folder, rows.values(), judge(rows.values()), {})
    samples = take(LaionMi(str(tmp_path)).samples(), None)
    seconds, grown = time.process_time() - began, resident() - memory
    assert len(samples) == sum(counts.values())
    assert grown < 500 and seconds < 60, "a step that is quadratic takes minutes"
