"""A service as target, by the public command line: it fails as services do, and the numbers are a function's."""

import json
from pathlib import Path

import imageserver
import painter
import pytest
import tiny

from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.targets import endpoint

ATTACKS = "wu-iip@quick,wu-iis@quick-training-free,sweep@quick"
LIMIT, SAMPLES = 3, 15  # of each class of both sets, and the memorised


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)
    monkeypatch.delenv(endpoint.TOKEN, raising=False)


@pytest.fixture
def server():
    with imageserver.serving() as server:
        yield server


@pytest.fixture
def ask(cli, server):
    def call(*arguments, target=None, out="out", attacks=ATTACKS):
        where = ["--dataset", "fluent-emoji", "--target", target or f"endpoint:{server.url}", "--resolution", 32]
        more = ["--revision", "1", "--limit", LIMIT, "--threads", 1, "--out", out]
        return cli("run", "--attacks", attacks, *where, *more, *arguments)

    return call


def captions():
    """Of the samples that are audited, members first, in the order they are taken."""
    found = sorted((s for s in FluentEmoji().samples() if s.split == "audit"), key=lambda s: s.order)
    return [s.caption for m in (True, False) for s in [s for s in found if s.member is m][:LIMIT]]


def content(folder):
    return (Path(folder) / "scores.parquet").read_bytes()


def test_a_service_gives_the_same_numbers_as_the_function_behind_it(ask, server):
    assert ask(target=f"callable:{painter.__file__}:draw", out="function").status == 0
    first, second, third, fourth, *_ = captions()
    server.faults |= {first: ["503", "png"], second: ["429", "webp"], third: ["reset", "json"], fourth: ["cut", "png"]}
    done = ask("--json")
    result = json.loads(done.out)
    assert done.status == 0, done.err
    assert content("out") == content("function")
    aucs = {r["label"]: r["evaluation"]["auc"]["value"] for r in result["rows"] if not r["control"]}
    assert len(aucs) == 3 and set(aucs.values()) == {1.0}
    assert len(server.asked) == SAMPLES * 7 + 4 and result["cost"]["executed"] == SAMPLES * 7
    assert ask().status == 0 and len(server.asked) == SAMPLES * 7 + 4, "nothing is left to ask"


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_change_no_bit(ask, batch):
    assert ask().status == ask("--batch", batch, out="other").status == 0
    assert content("other") == content("out")


def test_refused_and_failed_answers_cost_their_samples_alone(ask, server):
    assert ask(out="whole").status == 0
    page, bomb, _, policy, gone, _ = captions()
    server.faults |= {page: ["html"], bomb: ["bomb"], policy: ["policy"], gone: ["503"]}
    done = ask("--json")
    failures = {(f["sample"], f["attack"]): f["reason"] for f in json.loads(done.out)["failures"]}
    ids = {s.caption: s.id for s in FluentEmoji().samples()}
    assert done.status == 3 and {sample for sample, _ in failures} == {ids[c] for c in (page, bomb, policy, gone)}
    reasons = {sample: reason for (sample, _), reason in failures.items()}
    assert "not an image in a known format" in reasons[ids[page]]
    assert "12000x9000 px" in reasons[ids[bomb]]
    assert reasons[ids[policy]] == "the endpoint refused: HTTP 422: against the policy"
    assert "no answer in 5 tries: HTTP 503" in reasons[ids[gone]]
    whole, left = (
        {k: v for k, v in tiny.scores(Path(run)).items() if "free" in k[0] and k[1] not in reasons}
        for run in ("whole", "out")
    )
    assert left == whole and len(left) == SAMPLES - 4
    server.faults.clear()
    before = len(server.asked)
    assert ask().status == 0 and content("out") == content("whole"), "the next run asks for those alone"
    assert len(server.asked) == before + 4 * 7


def test_a_service_that_goes_down_ends_the_run_and_the_same_command_goes_on(ask, server):
    assert ask(out="whole").status == 0
    server.asked.clear()
    good = iter(range(40))
    server.always = Until(good)
    done = ask("--batch", 2)
    assert (done.status, done.out) == (3, "")
    assert f"error: target endpoint:{server.url}: HTTP 503, 5 times" in done.err
    assert "  fix: see to the service, and run the same command again: what is stored is kept" in done.err
    assert len(list(Path("out/measurements").iterdir())) >= 2
    server.always = ["png"]
    assert ask("--batch", 2).status == 0 and content("out") == content("whole")
    answered = sum(1 for asked, *_ in server.asked)
    assert answered < SAMPLES * 7 + 2 * 7 + 7 * endpoint.TRIES, "a batch is repeated, and seven were lost at most"


class Until(list):
    """Answers while the counter lasts, then is down."""

    def __init__(self, counter):
        super().__init__(["png", "png"])
        self.counter = counter

    def pop(self, _):
        return "png" if next(self.counter, None) is not None else "503"


def test_a_token_that_is_not_accepted(ask, server, monkeypatch):
    monkeypatch.setenv(endpoint.TOKEN, "s3cret")
    server.always = ["repeats"]
    done = ask()
    assert done.status == 3 and "HTTP 401" in done.err and f"set {endpoint.TOKEN}" in done.err
    assert "s3cret" not in done.all
    assert not any(b"s3cret" in path.read_bytes() for path in Path().rglob("*") if path.is_file())


def test_what_may_change_unseen_is_recorded_and_said(ask, server):
    done = ask("--revision", "march", "--json", attacks="wu-iip@quick")
    assert json.loads(done.out)["target_facts"] == {"url": server.url, "revision": "march"}
    assert "unnoticed" not in done.err
    before = len(server.asked)
    assert ask("--revision", "april", attacks="wu-iip@quick").status == 0
    assert len(server.asked) == 2 * before, "another model is measured anew"


def test_nothing_is_asked_before_the_run(ask, cli, server):
    assert ask("--dry-run").status == ask("--collect-only").status == 0
    done = cli("doctor", "--target", f"endpoint:{server.url}", "--json")
    found = json.loads(done.out)
    assert done.status == 0 and found["target"]["facts"]["url"] == server.url and found["attacks"]["wu-iip"]["runs"]
    assert not server.asked
