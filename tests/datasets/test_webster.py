"""Webster's list: rows of a file, memorised members."""

import json

import pytest

from mia_bench.errors import MiaBenchError
from mia_bench.fetch.ledger import Row
from mia_bench.fetch.survivors import freeze
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
    assert sample.labels == {"memorised": True}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("", "empty"),
        ("{}", "line 1: not a JSON object with caption, index and url"),
        ("[1]", "line 1"),
        ('{"caption": "a", "index": "x", "url": "b"}', "line 1"),
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


def test_the_file_has_to_be_named():
    with pytest.raises(MiaBenchError) as caught:
        Webster().urls()
    assert "sdv1_500_memorized.jsonl" in caught.value.fix
