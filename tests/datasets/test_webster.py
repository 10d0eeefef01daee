"""Webster's list: rows of a file, memorised members."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mia_bench.errors import MiaBenchError
from mia_bench.fetch.ledger import Row
from mia_bench.fetch.survivors import freeze
from mia_bench_plugins.datasets.laion_mi import LaionMi
from mia_bench_plugins.datasets.webster import Webster

ROWS = [{"caption": f"caption {n}", "index": 10**9 + n, "url": f"https://a.test/{n}.jpg"} for n in range(4)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_rows_are_memorised_members(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    dataset = Webster(str(path))
    link = dataset.links[2]
    assert (link.id, link.url, link.kind) == ("memorised-1000000002", "https://a.test/2.jpg", "memorised")
    freeze(dataset.folder, [Row(id=link.id, kind=link.kind, url=link.url, sha256="ab")], {link.id: ""}, {})
    (sample,) = dataset.samples()
    assert (sample.member, sample.split, sample.caption) == (True, "memorised", "caption 2")
    assert sample.labels == {"memorised": True, "url": "https://a.test/2.jpg"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("", "empty"),
        ("{}", "line 1: not a JSON object with caption, index and url"),
        ("[1]", "line 1"),
        ('{"caption": "a", "index": "x", "url": "b"}', "line 1"),
        ('{"caption": "a", "index": Infinity, "url": "b"}', "line 1: not a JSON object"),
        ('{"caption": "a", "index": 1, "url": "http://a.test/\\ud800"}', "line 1: caption or url is no text"),
        ('{"caption": "\\udc00", "index": 1, "url": "b"}', "line 1: caption or url is no text"),
        ("\n".join([json.dumps(ROWS[0])] * 2), "an id occurs twice"),
        ("\xff", "not UTF-8"),
    ],
)
def test_mistakes(tmp_path, text, said):
    if text is not None:
        (tmp_path / "list.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(MiaBenchError) as caught:
        _ = Webster("list.jsonl").links
    assert said in str(caught.value) and caught.value.fix


def test_laion_mi_can_stand_beside_it(tmp_path):
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "laion").mkdir()
    for kind in ("members", "nonmembers"):
        rows = {"url": [f"http://{kind}.test/{n}" for n in range(3)], "caption": ["a"] * 3}
        pq.write_table(pa.table(rows), tmp_path / "laion" / f"{kind}.parquet")
    both, other = Webster("list.jsonl,beside=laion-mi:laion"), LaionMi("laion")
    for dataset, ids in ((both, both.links[:2]), (other, other.links[:5])):
        rows = [Row(id=link.id, kind=link.kind, url=link.url, sha256=f"{n:064x}") for n, link in enumerate(ids, 1)]
        freeze(dataset.folder, rows[::-1], {row.id: "" for row in rows}, {})
    samples = {s.id: s for s in both.samples()}
    assert set(samples) == {link.id for link in both.links[:2]} | {"members-2", "nonmembers-0", "nonmembers-1"}, (
        "an image that is memorised is not among the others"
    )
    assert other.survivors.digest in both.revision and both.survivors.digest in both.revision
    with pytest.raises(MiaBenchError, match="folder cannot stand beside"):
        Webster("list.jsonl,beside=folder:x").samples()


def test_the_file_has_to_be_named():
    with pytest.raises(MiaBenchError) as caught:
        Webster().urls()
    assert "sdv1_500_memorized.jsonl" in caught.value.fix
