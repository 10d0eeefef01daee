"""LAION-mi from a hub's cache and a web that answers as the web does, to a table; killed on the way, more than once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from pipelines import TINY_SD
from urlserver import picture

from mia_bench.cli import main
from mia_bench.fetch.ledger import Ledger, settled
from mia_bench.fetch.survivors import hashed
from mia_bench_plugins.datasets.laion_mi import CLASSES, REPOSITORY, LaionMi

GOOD = [*("JPEG", "PNG", "WEBP") * 3, "503-then", "chain"]
BAD = {
    "html": ("html", 200),
    "403": ("http-403", 403),
    "404": ("http-404", 404),
    "410": ("http-410", 410),
    "private": ("private", None),
    "private-name": ("private", None),
    "drip": ("slow", 200),
    "flood": ("too-big", 200),
    "bomb": ("too-big", 200),
    "pixels": ("not-image", 200),
    "reset": ("reset", None),
    "tls": ("tls", None),
    "same": ("", 200),  # one picture in both classes
}
KINDS = [*GOOD, *BAD]


def put(hub, server, kinds, name=""):
    """The two files in a hub's cache at the pinned revision, as the hub has them; nothing but urls and captions."""
    folder = hub / f"datasets--{REPOSITORY.replace('/', '--')}" / "snapshots" / LaionMi.meta.revision / "data"
    folder.mkdir(parents=True)
    for kind in CLASSES:
        made = [(f"{kind}-{row}", what) for row, what in enumerate(kinds)]
        urls = [
            server.url(name + i, "JPEG" if what == "tls" else what, "https" if what == "tls" else "http")
            for i, what in made
        ]
        captions = [f"a picture of {i}" for i, _ in made]
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / f"{kind}-00000-of-00001-f4.parquet")


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    """An empty hub's cache, in this process and those it starts."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def command(*arguments):
    return [sys.executable, "-m", "mia_bench", *map(str, arguments)]


def kill_when(condition, *arguments):
    """Kill a command with SIGKILL as soon as `condition()` holds."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "it ended before"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def done(*arguments):
    found = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def lines(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("ledger.jsonl"))


def in_order(rows):
    return sorted(rows, key=hashed)


def test_every_attack_on_what_survives(tmp_path, hub, cache, server):
    put(hub, server, KINDS)
    folder = LaionMi().folder
    fetch = ["fetch", "laion-mi", "--allow-origin", server.origin, "--per-host", 8, "--timeout", 6, "--json"]
    kill_when(lambda: lines(cache) >= 12, *fetch)
    before = Ledger(folder / "ledger.jsonl").rows()
    asked = len(server.requests())
    assert 12 <= len(before) < 2 * len(KINDS)
    fetched = done(*fetch)

    rows = Ledger(folder / "ledger.jsonl").rows()
    expected = {f"{kind}-{n}": BAD.get(what, ("", 200)) for kind in CLASSES for n, what in enumerate(KINDS)}
    assert {i: (row.error, row.status) for i, row in rows.items()} == expected
    known = {i for i, row in before.items() if not row.error or settled(row)}
    later = {path.split("/")[1] for path in server.requests()[asked:]}
    assert known and not known & later, "what was known is not asked again"
    assert server.second.requests() == [], "nobody was led to a private address"
    good = {f"{kind}-{n}" for kind in CLASSES for n in range(len(GOOD))}
    for i in good:
        form = GOOD[int(i.partition("-")[2])]
        body = (folder / "images" / rows[i].sha256[:2] / rows[i].sha256).read_bytes()
        assert body == picture(i, form if form in ("PNG", "WEBP") else "JPEG"), "bytes as they came"
    survivors = [json.loads(line) for line in (folder / "survivors" / f"{fetched['list']}.jsonl").open()]
    assert [i for i, *_ in survivors] == in_order(good)
    assert [(s["kind"], s["tried"], s["survived"]) for s in fetched["survival"]] == [
        (kind, len(KINDS), len(GOOD)) for kind in CLASSES
    ]
    assert fetched["lost"]["both-classes"] == 2 and sum(fetched["lost"].values()) == 2 * len(BAD)

    run = ["run", "--attacks", "all", "--dataset", "laion-mi", "--target", TINY_SD, "--limit", 8]
    run += ["--batch", 4, "--rows", 8]
    run += ["--out", tmp_path / "run", "--json"]
    kill_when(lambda: any((tmp_path / "run").glob("measurements/*.parquet")), *run)
    assert not (tmp_path / "run" / "results.json").exists()
    result = done(*run)
    assert fetched["list"] in result["dataset_revision"] and LaionMi.meta.revision in result["dataset_revision"]
    scored = {row["label"]: row for row in result["rows"] if not row["control"]}
    assert {"loss", "pia", "secmi", "clid", "pfami", "sima"} <= set(scored) and len(scored) >= 10
    assert {(row["status"], row["n"]) for row in scored.values()} == {("ok", 16)} and not result["failures"]
    table = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    taken = {i for kind in CLASSES for i in in_order(g for g in good if g.startswith(f"{kind}-"))[:8]}
    assert Counter(row["sample_id"] for row in table if row["attack"] == "loss") == Counter(taken)


def test_it_is_inspected(hub, server):
    put(hub, server, ["JPEG", "404", "PNG"])
    assert done("fetch", "laion-mi", "--allow-origin", server.origin, "--json")["list"]
    found = done("inspect", "laion-mi", "--json")
    assert [(s["kind"], s["urls"], s["survived"]) for s in found["survival"]] == [(kind, 3, 2) for kind in CLASSES]
    assert [h["host"] for h in found["hosts"]] == ["127.0.0.1"]


# A run that fetches what it lacks -----------------------------------------------------------------------------------


@pytest.fixture
def cli(capfd, monkeypatch, server):
    """`cli(...)`: a run of one attack on the tiny target, its status, its result if any, and what it said."""

    def call(*arguments, dataset="laion-mi"):
        given = ["run", "--attacks", "loss", "--dataset", dataset, "--target", "tiny:7", "-p", tiny.__file__, "--json"]
        given += ["--allow-origin", server.origin, "--out", "run"]
        monkeypatch.setattr(sys, "argv", ["mia-bench", *given, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        result = json.loads(out) if out else None
        return int(ended.value.code or 0), result[0] if isinstance(result, list) else result, err

    return call


def n_of(result):
    return next(row["n"] for row in result["rows"] if row["label"] == "loss")


def test_it_asks_only_as_many_urls_as_give_so_many_images(hub, server, cli):
    kinds = ["JPEG", "404", "PNG", "403"] * 20
    put(hub, server, kinds)
    status, result, _ = cli("--limit", 8)
    assert (status, n_of(result)) == (0, 16)
    rows = Ledger(LaionMi().folder / "ledger.jsonl").rows()
    assert len(rows) == len(server.requests()) < 70, "of 160, each once"
    for kind in CLASSES:
        tried = in_order(i for i in rows if i.startswith(f"{kind}-"))
        assert tried == in_order(f"{kind}-{n}" for n in range(len(kinds)))[: len(tried)], "the first, without a gap"
        images = [i for i in tried if not rows[i].error]
        assert len(images) >= 8
        scored = {row["sample_id"] for row in pq.read_table("run/scores.parquet").to_pylist()}
        assert {i for i in scored if i.startswith(f"{kind}-")} == set(images[:8])
    server.asked.clear()
    assert cli("--limit", 8)[1]["dataset_revision"] == result["dataset_revision"]
    assert server.requests() == [], "nothing is lacking"
    first = LaionMi().survivors.digest
    more = cli("--limit", 12)[1]
    assert n_of(more) == 24
    refused = {i for i, row in rows.items() if row.status == 403}
    assert set(rows) & {path.split("/")[1] for path in server.requests()} == refused, "which may have passed"
    whole, whole_list = cli()[1], LaionMi().survivors.digest
    assert n_of(whole) == 80 and len(Ledger(LaionMi().folder / "ledger.jsonl").rows()) == 160
    server.asked.clear()
    assert n_of(cli(dataset=f"laion-mi:list={first}")[1]) < 80, "a list that is named is what it is"
    for _ in range(2):
        server.asked.clear()
        assert n_of(cli("--limit", 200)[1]) == 80
        assert len(server.requests()) == 40, "what was refused, once in a run"
    server.asked.clear()
    assert n_of(cli("--limit", 40, dataset=f"laion-mi:list={whole_list}")[1]) == 80
    assert n_of(cli()[1]) == 80 and server.requests() == [], "all there is was asked for, and it was asked"


def test_what_failed_for_the_day_is_asked_again_where_too_few_survive(hub, server, cli):
    put(hub, server, ["JPEG", "JPEG", "403-then", "403-then", "404"])
    assert n_of(cli("--limit", 4)[1]) == 4 and len(server.requests()) == 10
    assert n_of(cli("--limit", 2)[1]) == 4 and len(server.requests()) == 10, "there are enough"
    assert n_of(cli("--limit", 4)[1]) == 8 and len(server.requests()) == 14, "once each"
    assert n_of(cli("--limit", 5)[1]) == 8 and len(server.requests()) == 14, "what is left is gone for good"


def test_a_run_killed_while_it_fetches_goes_on(hub, cache, server, cli):
    put(hub, server, ["busy"] * 20)
    run = ["run", "--attacks", "loss", "--dataset", "laion-mi", "--target", "tiny:7", "-p", tiny.__file__]
    run += ["--allow-origin", server.origin, "--out", "run"]
    kill_when(lambda: lines(cache) >= 5, *run)
    known = set(Ledger(LaionMi().folder / "ledger.jsonl").rows())
    server.asked.clear()
    assert 5 <= len(known) < 40
    status, result, _ = cli()
    assert (status, n_of(result)) == (0, 40)
    asked = [path.split("/")[1] for path in server.requests()]
    assert set(asked) == {f"{kind}-{n}" for kind in CLASSES for n in range(20)} - known
    assert len(asked) <= len(set(asked)) + 4, "those in flight at the end may be noted late"


def test_a_host_that_asks_to_wait_is_not_asked_in_a_later_round(hub, server, cli, monkeypatch):
    put(hub, server, ["429-long"] * 40)
    status, _, err = cli("--limit", 2)
    assert status == 5 and "gave an image: http-429" in err
    assert len(server.requests()) <= 4, "those that were under way when it first said so"


def test_a_calibration_set_is_fetched_too(hub, server, cli):
    put(hub, server, ["JPEG"] * 60)
    assert cli("--limit", 4, "--calibration", 0.25)[0] == 0
    assert len(server.requests()) == 2 * 16


def test_what_stands_beside_is_fetched_too(tmp_path, hub, server, cli):
    put(hub, server, ["JPEG"] * 9)
    rows = [{"caption": "a", "index": n, "url": server.url(f"w{n}", "JPEG")} for n in range(3)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--positives", "memorised", "--negatives", "nonmembers", "--limit", 2]
    status, result, err = cli(*options, dataset="webster:list.jsonl,beside=laion-mi")
    assert status == 0, err
    assert n_of(result) == 4
    assert len(server.requests("/w")) == 2 and len(server.requests()) == 2 + 4


def test_nothing_is_fetched_where_nothing_is_run(hub, server, cli):
    put(hub, server, ["JPEG"] * 4)
    for option in ("--collect-only", "--dry-run"):
        status, _, err = cli(option)
        assert status == 3 and "have not been fetched" in err and "fix: run `mia-bench fetch laion-mi`" in err
    assert server.requests() == []


def test_offline_it_says_so(hub, server, cli, monkeypatch):
    offline = "huggingface_hub.constants.HF_HUB_OFFLINE"
    monkeypatch.setattr(offline, True)
    status, _, err = cli("--limit", 2)
    assert status == 3 and "its list of urls is not in the hub's cache" in err
    assert "fix: run `mia-bench fetch laion-mi` where there is a network, without HF_HUB_OFFLINE" in err
    put(hub, server, ["JPEG"] * 9)
    status, _, err = cli("--limit", 2)
    assert status == 3 and "its images have to be fetched, and HF_HUB_OFFLINE is set" in err
    assert "fix: run `mia-bench fetch laion-mi` where there is a network" in err
    monkeypatch.setattr(offline, False)
    assert n_of(cli("--limit", 2)[1]) == 4
    server.asked.clear()
    monkeypatch.setattr(offline, True)
    status, result, _ = cli("--limit", 5)
    assert (status, n_of(result)) == (0, 4), "what there is"
    assert server.requests() == []


def test_the_private_address_has_to_be_opened(hub, server, cli, monkeypatch):
    put(hub, server, ["JPEG"] * 4)
    status, _, err = cli("--allow-origin", "127.0.0.1:9")
    assert status == 5 and "private 8" in err and "--allow-origin HOST:PORT opens one" in err
    assert server.requests() == []
    assert cli("--allow-origin", "here")[0] == 2
