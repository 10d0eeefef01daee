"""A service as target, asked for real: what it is sent, what may come back, how often and how long it is asked."""

import asyncio
import base64
import io
import os
import signal
import threading
import time

import imageserver
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from mia_bench import Capability, TargetOptions
from mia_bench.engine.named import open_target
from mia_bench.errors import NetworkError, SampleError, UsageError
from mia_bench.plugins import Registry
from mia_bench_plugins.targets import endpoint

SIZE = 32


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def server():
    with imageserver.serving() as server:
        yield server


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.01)
    monkeypatch.delenv(endpoint.TOKEN, raising=False)


def opened(registry, server, **options):
    options = {"resolution": SIZE, "revision": "1", **options}
    target = open_target(registry, f"endpoint:{server.url}", TargetOptions(**options))
    target.open()
    return target


def one(target, caption="a caption", **how):
    return target.generate(tiny.batch_of(target, tiny.icons(1, 0)), [caption], **how)


@pytest.fixture
def usual(registry, server):
    """What the service makes of one request when nothing goes wrong."""
    made = one(opened(registry, server))
    server.asked.clear()
    return made


# What it is sent, and what comes back -----------------------------------------------------------------------------


def test_what_it_is_sent(registry, server, monkeypatch):
    monkeypatch.setenv(endpoint.TOKEN, "secret")
    target = opened(registry, server)
    batch = tiny.batch_of(target, tiny.icons(2, 0))
    target.generate(batch, ["a", "ünïcode \u2028"], steps=7, guidance=2.0)
    target.generate(batch, ["a", "b"], steps=7, guidance=2.0, strength=0.25)
    sent = sorted((asked for asked, *_ in server.asked), key=lambda a: (len(a), a["caption"]))
    assert [a["caption"] for a in sent] == ["a", "ünïcode \u2028", "a", "b"]
    assert all((a["size"], a["steps"], a["guidance"]) == (SIZE, 7, 2.0) for a in sent)
    assert set(sent[0]) == {"caption", "seed", "size", "steps", "guidance"}
    assert [a["strength"] for a in sent[2:]] == [0.25, 0.25] and sent[0]["seed"] == sent[2]["seed"] != sent[3]["seed"]
    given = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(a["image"])))) for a in sent[2:]])
    assert torch.equal(torch.from_numpy(given).permute(0, 3, 1, 2).float() / 127.5 - 1, batch.pixels)
    _, headers, path, _ = server.asked[0]
    assert headers["Authorization"] == "Bearer secret" and path == "/make?model=x"
    assert headers["User-Agent"].startswith("mia-bench/") and headers["Accept-Encoding"] == "identity"


def test_without_a_token_none_is_sent(registry, server):
    one(opened(registry, server))
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize("kind", ["png", "webp", "json", "data"])
def test_answers_in_every_form(registry, server, usual, kind):
    server.always = [kind]
    assert torch.equal(one(opened(registry, server)), usual)


def test_a_jpeg_is_near(registry, server):
    server.always = ["jpeg"]
    assert one(opened(registry, server)).shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("html", "not an image in a known format"),
        ("empty", "not an image in a known format"),
        ("bomb", "12000x9000 px is more than"),
        ("flood", "its answer is larger than"),
        ("packed", "its answer is packed"),
        ("policy", "HTTP 422: against the policy"),
        ("400", "HTTP 400$"),
        ("403", "HTTP 403$"),
        ("other-json", "its JSON holds no `image` in base64: queue full"),
        ("no-base64", "its JSON holds no `image` in base64"),
        ("503", "no answer in 5 tries: HTTP 503"),
        ("reset", "no answer in 5 tries: connection"),
        ("cut", "no answer in 5 tries: connection"),
    ],
)
def test_what_goes_wrong_costs_one_sample(registry, server, usual, monkeypatch, kind, why):
    monkeypatch.setattr(endpoint, "MAX_BYTES", 2**20)
    server.faults["bad"] = [kind]
    target = opened(registry, server)
    batch = tiny.batch_of(target, tiny.icons(3, 0))
    with pytest.raises(SampleError, match=why) as caught:
        target.generate(batch, ["a caption", "bad", "c"])
    assert len(caught.value.why) < 200
    assert torch.equal(target.generate(batch.single(0), ["a caption"]), usual)
    target.probe(batch)
    tries = sum(asked["caption"] == "bad" for asked, *_ in server.asked)
    assert tries == (5 if kind in ("503", "reset", "cut") else 1) and len(server.asked) == tries + 2


@pytest.mark.parametrize(
    "kinds", [["503", "503", "png"], ["429", "reset", "cut", "408", "json"], ["500", "png"]], ids=str
)
def test_what_may_pass_is_asked_again(registry, server, usual, kinds):
    server.always = list(kinds)
    assert torch.equal(one(opened(registry, server)), usual)
    assert len(server.asked) == len(kinds)


def test_everybody_waits_as_long_as_the_service_asks(registry, server, monkeypatch):
    """Whoever was asked beside the one that is refused is answered after the refusal has been noted."""
    server.faults["slow down"], server.always = ["429-soon", "png"], ["held"]
    target = opened(registry, server)
    ask = target._ask

    async def told(client, request):
        try:
            return await ask(client, request)
        except endpoint._AgainError:
            asyncio.get_running_loop().call_soon(server.free.set)  # after whoever catches it has gone on
            raise

    monkeypatch.setattr(target, "_ask", told)
    batch = tiny.batch_of(target, tiny.icons(8, 0))
    target.generate(batch, ["slow down", *"abcdefg"])
    times = sorted(when for *_, when in server.asked)
    refused = min(when for asked, *_, when in server.asked if asked["caption"] == "slow down")
    assert len(times) == 9
    assert all(when >= refused + 0.99 for when in times[endpoint.AT_ONCE :])


def test_few_are_asked_at_once(registry, server):
    server.always = ["busy"]
    target = opened(registry, server)
    batch = tiny.batch_of(target, tiny.icons(12, 0))
    target.generate(batch, list("abcdefghijkl"))
    assert server.most == endpoint.AT_ONCE


def test_an_answer_that_takes_too_long_is_given_up(registry, server, monkeypatch):
    server.faults["bad"] = ["held"]
    target = opened(registry, server)
    one(target)
    monkeypatch.setattr(endpoint, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(endpoint, "TRIES", 2)
    with pytest.raises(SampleError, match=r"no answer in 2 tries: (timeout|no answer within 0.5 s)"):
        one(target, "bad")


# When it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why", "fix"),
    [
        ("401", "HTTP 401", "set MIA_BENCH_ENDPOINT_TOKEN"),
        ("404", "HTTP 404", "check the address and that it takes POST"),
        ("405", "HTTP 405", "check the address"),
        ("away", "it redirects to http://127.0.0.1:1/elsewhere", "give it as the target"),
        ("429-late", "HTTP 429, and asks to wait 86400 s", "same command again after that"),
        ("503", "HTTP 503, 5 times", "run the same command again"),
        ("reset", "connection: ", "run the same command again"),
    ],
)
def test_a_service_that_never_answers_ends_the_run(registry, server, kind, why, fix):
    server.always = [kind]
    target = opened(registry, server)
    with pytest.raises(NetworkError, match=why) as caught:
        one(target)
    assert fix in caught.value.fix and server.url in caught.value.what
    with pytest.raises(NetworkError, match=why):
        target.probe(None)


def test_a_service_that_stops_answering_ends_the_run(registry, server, monkeypatch):
    monkeypatch.setattr(endpoint, "TRIES", 2)
    target = opened(registry, server)
    one(target)
    server.always = ["503"]
    batch = tiny.batch_of(target, tiny.icons(9, 0))
    with pytest.raises(NetworkError, match="HTTP 503, 2 times for 5 images in a row"):
        target.generate(batch, list("abcdefghi"))


def test_nobody_listens(registry, server):
    target = opened(registry, server)
    server.shutdown()
    server.server_close()
    with pytest.raises(NetworkError, match=r"connection: .*5 times"):
        one(target)


def test_a_certificate_that_nobody_trusts(registry, server):
    target = open_target(registry, f"endpoint:{server.url.replace('http', 'https', 1)}")
    target.open()
    with pytest.raises(NetworkError, match="TLS"):  # it speaks none at all
        one(target)


def test_the_token_is_not_shown(registry, server, monkeypatch):
    monkeypatch.setenv(endpoint.TOKEN, "s3cret")
    server.always = ["repeats"]
    target = opened(registry, server)
    with pytest.raises(NetworkError, match=r"no right: Bearer \*\*\*") as caught:
        one(target)
    shown = [str(caught.value), caught.value.fix, str(target.facts()), str(target.settings()), repr(vars(target))]
    assert not any("s3cret" in text for text in shown)


def test_ctrl_c_waits_for_no_answer(registry, server):
    server.always = ["held"]
    target = opened(registry, server)
    began = time.monotonic()

    def interrupt():
        while not server.asked:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        threading.Thread(target=interrupt).start()
        one(target)
    assert time.monotonic() - began < 30, "it would be held for a minute"


# What it is -------------------------------------------------------------------------------------------------------


def test_what_makes_it_another_target(registry):
    def fingerprint(spec, **options):
        return open_target(registry, spec, TargetOptions(**options)).fingerprint

    spec = "endpoint:https://example.org/a"
    found = [fingerprint(spec), fingerprint("endpoint:https://example.org/b")]
    found += [fingerprint(spec, revision="2"), fingerprint(spec, resolution=64)]
    assert len(set(found)) == 4 and fingerprint(spec) == found[0]
    target = open_target(registry, spec)
    assert target.capabilities == {Capability.GENERATE, Capability.CAPTION, Capability.VARY}
    assert "may change" in target.facts()["revision"]


def test_what_may_change_is_said_unless_it_is_named(registry, server, caplog, monkeypatch):
    opened(registry, server)
    assert not caplog.records
    opened(registry, server, revision=None)
    assert "may change unnoticed" in caplog.text and "--revision" in caplog.text
    caplog.clear()
    monkeypatch.setenv(endpoint.TOKEN, "secret")
    opened(registry, server)
    open_target(registry, "endpoint:http://example.org/a", TargetOptions(revision="1")).open()
    assert [r.getMessage() for r in caplog.records] == [
        "target http://example.org/a is not https: the token can be read on the way"
    ]


@pytest.mark.parametrize(
    "spec", ["endpoint", "endpoint:", "endpoint:example.org", "endpoint:ftp://x/y", "endpoint:http://"]
)
def test_what_is_no_address(registry, spec):
    with pytest.raises(UsageError, match="no address") as caught:
        _ = open_target(registry, spec).fingerprint
    assert "--target endpoint:https://HOST/PATH" in caught.value.fix


def test_a_password_in_the_address_is_refused_and_not_shown(registry):
    with pytest.raises(UsageError, match="holds a password") as caught:
        _ = open_target(registry, "endpoint:https://me:hush@example.org/x").fingerprint
    assert "hush" not in str(caught.value) + caught.value.fix and endpoint.TOKEN in caught.value.fix
