"""`mia-bench fetch`, and runs on what it fetched."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

sys.path.append(str(Path(__file__).parents[1] / "fetch"))

import urlplugin
from urlserver import listed, serving

from mia_bench.fetch import run
from mia_bench.plugins import Registry
from mia_bench.report import fetched as report
from mia_bench_plugins.datasets import laion_mi

KINDS = ["JPEG", "PNG", "WEBP", "html", "403", "404", "410", "503-then", "chain", "private", "flood", "bomb", "reset"]


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(run, "BACKOFF_S", 0.02)


@pytest.fixture
def laion(tmp_path, server):
    """A folder of LAION-mi's two files with the server's urls, and the options that name it and load its plugin."""
    for kind in ("members", "nonmembers"):
        rows = [*KINDS, *["JPEG"] * 3]
        urls = [server.url(f"{kind}-{n}", what) for n, what in enumerate(rows)]
        urls.append(server.url(f"{kind}-tls", "JPEG", "https"))
        captions = [f"a caption of {kind} {n}" for n in range(len(urls))]
        (tmp_path / "copy").mkdir(exist_ok=True)
        pq.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / "copy" / f"{kind}.parquet")
    return [] if "laion-mi" in Registry.load().datasets else ["-p", laion_mi.__file__]


def test_fetch_and_run(cli, laion, server, tmp_path):
    options = [*laion, "-p", tiny.__file__]
    command = ["run", "--dataset", "laion-mi:copy", "--target", "tiny:7", "--attacks", "loss,pia,blind", *options]
    command += ["--limit", 6, "--out", "run"]
    before = cli(*command, "--collect-only")
    assert before.status == 3
    assert "have not been fetched" in before.err and "fix: run `mia-bench fetch laion-mi:copy`" in before.err
    fetch = ["fetch", "laion-mi:copy", "--allow-origin", server.origin, *laion]
    done = cli(*fetch)
    assert done.status == 0, done.all
    members, nonmembers = (line.split() for line in done.out.splitlines()[2:4])
    assert members[:4] == ["members", "17", "17", "8"] and nonmembers[:4] == ["nonmembers", "17", "17", "8"]
    assert "47.1 % [26.2, 69.0]" in done.out, "Wilson"
    assert "lost: " in done.out and "http-404 2" in done.out and "tls 2" in done.out
    assert "next: mia-bench run --dataset laion-mi:copy\n" in done.out, "all urls were tried"
    assert "34 urls to ask" in done.err
    after = cli(*command, "--json")
    assert after.status == 0, after.all
    (result,) = [json.loads(after.out)] if after.out.startswith("{") else [json.loads(after.out)[0]]
    frozen = json.loads(next((tmp_path / "cache").rglob("survivors.json")).read_text())
    assert frozen["list"] in result["dataset_revision"]
    assert {r["label"]: r["n"] for r in result["rows"] if r["label"] in ("loss", "pia")} == {"loss": 12, "pia": 12}
    asked = len(server.requests())
    again = cli(*fetch, "--json")
    answer = json.loads(again.out)
    assert (answer["list"], answer["asked"]) == (frozen["list"], 8), "403, private, reset and TLS may have passed"
    assert len(server.requests()) == asked + 2 * (1 + 1 + 3), "a TLS handshake fails before it asks"


def test_a_limit_is_widened_without_asking_again(cli, laion, server):
    fetch = ["fetch", "laion-mi:copy", "--allow-origin", server.origin, *laion, "--json", "--limit"]
    first, second = (json.loads(cli(*fetch, n).out) for n in (4, 9))
    assert [s["tried"] for s in first["survival"]] == [4, 4]
    assert [s["tried"] for s in second["survival"]] == [9, 9]
    assert [s["urls"] for s in second["survival"]] == [17, 17]
    assert second["asked"] < 18


@pytest.mark.parametrize(
    ("arguments", "status", "said", "fix"),
    [
        (["fluent-emoji"], 2, "it is no list of urls", "known: "),
        (["folder:."], 2, "it is no list of urls", "known: "),
        (["laion-my"], 2, "unknown dataset 'laion-my'", "list"),
        (["urls:list", "--allow-origin", "localhost"], 2, "not HOST:PORT", "--allow-origin 127.0.0.1:8000"),
        (["urls:empty"], 3, "its list of urls is empty", "check"),
        (["urls:surrogate"], 3, "row 2 of its list, 'b': 'http://a.test/\\ud800' is no text", "correct the list"),
        (["urls:private"], 5, "none of its 1 urls gave an image: private 1", "--allow-origin HOST:PORT"),
        ([], 2, "nothing to fetch is named", "mia-bench fetch --weights TARGET"),
        (["urls:list", "--weights", "tiny"], 2, "one after the other", "mia-bench fetch DATASET"),
        (["urls:list", "--revision", "main"], 2, "a dataset has no weights", "--weights TARGET"),
        (["urls:nowhere"], 4, "its plugin failed", "fix the plugin"),
    ],
)
def test_mistakes(cli, tmp_path, arguments, status, said, fix):
    listed(tmp_path / "private", [["a", "members", "http://127.0.0.1:9/a.jpg"]])
    listed(tmp_path / "empty", [])
    listed(tmp_path / "surrogate", [["a", "members", "http://a.test/1"], ["b", "members", "http://a.test/\ud800"]])
    done = cli("fetch", *arguments, "-p", urlplugin.__file__)
    *_, first, second = done.err.splitlines()
    assert done.status == status, done.all
    assert said in first and first.startswith("error: ") and fix in second


def test_a_cache_that_cannot_be_written(cli, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "file"))
    listed(tmp_path / "list", [["a", "members", "http://127.0.0.1:9/a.jpg"]])
    done = cli("fetch", "urls:list", "-p", urlplugin.__file__)
    assert done.status == 2
    assert "cannot be written" in done.err and "MIA_BENCH_CACHE" in done.err


def test_offline_nothing_is_asked(cli, tmp_path, server, monkeypatch):
    listed(tmp_path / "list", [["a", "members", server.url("offline", "JPEG")]])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = cli("fetch", "urls:list", "-p", urlplugin.__file__, "--allow-origin", server.origin)
    assert done.status == 3 and server.requests("offline") == []
    assert "HF_HUB_OFFLINE is set" in done.err and "fix: run `mia-bench fetch urls:list` where there is" in done.err


def test_what_is_partly_fetched_is_named_by_its_list(cli, tmp_path, server):
    listed(tmp_path / "list", [[f"{n}", "members", server.url(f"part-{n}", "JPEG")] for n in range(4)])
    arguments = ["urls:list", "-p", urlplugin.__file__, "--allow-origin", server.origin]
    done = cli("fetch", *arguments, "--limit", 2)
    assert done.status == 0, done.all
    digest = json.loads(next((tmp_path / "cache").rglob("survivors.json")).read_text())["list"]
    assert f"next: mia-bench run --dataset urls:list,list={digest}\n" in done.out, "else a run would fetch the rest"
    assert "next: mia-bench run --dataset urls:list\n" in cli("fetch", *arguments).out


def test_two_fetches_of_one_dataset_do_not_mix(cli, tmp_path, server):
    listed(tmp_path / "list", [["a", "members", server.url("two", "JPEG")]])
    arguments = ["fetch", "urls:list", "-p", urlplugin.__file__, "--allow-origin", server.origin]
    assert cli(*arguments).status == 0
    from filelock import FileLock

    with FileLock(next((tmp_path / "cache").rglob(".lock"))):
        done = cli(*arguments)
    assert done.status == 2 and "another fetch" in done.err, done.err


def test_ctrl_c_leaves_what_can_be_resumed(tmp_path, server):
    rows = [[f"{n}", "members", server.url(f"stop-{n}", "JPEG" if n < 6 else "drip")] for n in range(10)]
    listed(tmp_path / "list", rows)
    command = [sys.executable, "-m", "mia_bench", "fetch", "urls:list", "-p", urlplugin.__file__]
    command += ["--allow-origin", server.origin]
    process = subprocess.Popen(
        [*command, "--timeout", "60", "--per-host", "8"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    ticker = threading.Event()
    for _ in range(600):
        if len(server.requests("stop-")) == 10 and sum(map(_lines, tmp_path.rglob("ledger.jsonl"))) == 6:
            break
        ticker.wait(0.1)
    else:
        pytest.fail("it never came so far")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: 6 of 10 urls are in the ledger; run the same command again to resume" in err
    done = subprocess.run(
        [*command, "--timeout", "1", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["asked"], answer["lost"]) == (4, {"slow": 4})


def test_ctrl_c_does_not_wait_for_a_resolver_that_hangs(tmp_path):
    listed(tmp_path / "list", [["a", "members", "http://slow.test/a.jpg"]])
    code = (
        "import socket, sys, time\n"
        "def slow(*args, **options):\n    print('asked', flush=True)\n    time.sleep(30)\n"
        "socket.getaddrinfo = slow\n"
        "from mia_bench.cli import main\nmain()"
    )
    command = [sys.executable, "-c", code, "fetch", "urls:list", "-p", urlplugin.__file__]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=25)  # it sleeps for 30
    assert process.returncode == 130 and "interrupted: 0 of 1 urls" in err, err


def _lines(path):
    return len(path.read_text().splitlines())


def test_a_terminal_shows_a_bar(cli, tmp_path, server, monkeypatch):
    listed(tmp_path / "list", [["a", "members", server.url("bar", "JPEG")]])
    terminal = type("Terminal", (), {"isatty": lambda self: True, "__getattr__": lambda self, n: getattr(real, n)})()
    real = sys.stderr
    monkeypatch.setattr(report.sys, "stderr", terminal)
    done = cli("fetch", "urls:list", "-p", urlplugin.__file__, "--allow-origin", server.origin)
    assert done.status == 0, done.all
    assert "fetching" in done.err and "1/1" in done.err and "1 images" in done.err


def test_the_catalogue_does_not_load_what_downloads():
    code = (
        "import sys, mia_bench_plugins.datasets.laion_mi, mia_bench_plugins.datasets.webster\n"
        "print([m for m in ('httpx2', 'huggingface_hub', 'pyarrow', 'numpy', 'PIL', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
