"""What urls answer, and what the ledger and the list of survivors make of it."""

import hashlib
import io
import socket
import time
from datetime import datetime

import pytest
from PIL import Image
from quiet import Quiet
from urlserver import CERTIFICATE, picture

from mia_bench.engine.hashes import HashCache
from mia_bench.errors import NothingError, SampleError, UnavailableError
from mia_bench.fetch import client, guard, run, survivors
from mia_bench.fetch.images import Images
from mia_bench.near import dhash

GOOD = ["JPEG", "PNG", "WEBP", "GIF", "liar", "503-then", "503-twice", "reset-then", "chain", "packed", "indexed"]
BAD = {
    "html": "html",
    "empty": "not-image",
    "text": "not-image",
    "small": "too-small",
    "403": "http-403",
    "404": "http-404",
    "410": "http-410",
    "500": "http-500",
    "loop": "redirects",
    "to-to-to-to-to-to-JPEG": "redirects",
    "nowhere": "scheme",
    "odd": "bad-url",
    "private": "private",
    "private-name": "private",
    "private-6": "private",
    "private-number": "private",
    "private-here": "private",
    "drip": "slow",
    "flood": "too-big",
    "claims": "too-big",
    "bomb": "too-big",
    "pixels": "not-image",
    "brotli": "encoding",
    "half-packed": "cut",
    "reset": "reset",
    "cut": "cut",
    "half": "not-image",
    "noai": "noai",
    "noimageai": "noai",
}


def test_every_answer_has_its_row(fetched, server):
    good = [(f"good-{kind}", "members", kind) for kind in GOOD]
    bad = [(f"bad-{kind}", "nonmembers", kind) for kind in BAD]
    tls = [("tls", "nonmembers", server.url("tls", "JPEG", "https"))]
    result, rows, dataset = fetched(*good, *bad, ("last", "nonmembers", "JPEG"), urls=tls, per_host=8, timeout=8.0)
    assert {i: row.error for i, row in rows.items()} == (
        {i: "" for i, *_ in good} | {f"bad-{kind}": word for kind, word in BAD.items()} | {"tls": "tls", "last": ""}
    )
    assert server.second.requests() == [], "no private address was asked"
    assert [s.model_dump() for s in result.survival] == [
        {"kind": "members", "urls": 11, "tried": 11, "survived": 11, "low": pytest.approx(0.7412, abs=1e-4), "high": 1},
        {
            "kind": "nonmembers",
            "urls": 31,
            "tried": 31,
            "survived": 1,
            "low": pytest.approx(0.0057, abs=1e-4),
            "high": pytest.approx(0.1619, abs=1e-4),
        },
    ]
    samples, hashes = {s.id: s for s in dataset.samples()}, HashCache()
    assert set(samples) == {*(i for i, *_ in good), "last"}
    for i, _, kind in good:
        form = kind if kind in ("PNG", "WEBP", "GIF") else "JPEG"
        body, row = picture(i, form), rows[i]
        assert (row.sha256, row.bytes) == (hashlib.sha256(body).hexdigest(), len(body))
        assert (row.status, row.width, row.height) == (200, 96, 112)
        assert samples[i].content == row.sha256
        assert samples[i].open().size == (96, 112)
        assert hashes.get(row.sha256) == dhash(samples[i].open()), "so no image is decoded again to find its like"
        datetime.fromisoformat(row.time)
    assert rows["good-chain"].final_url == server.url("good-chain", "JPEG")
    assert rows["bad-404"].status == 404 and rows["bad-404"].content_type == "text/plain"
    assert "pixels" in rows["bad-pixels"].note
    assert [rows[i].attempts for i in ("good-503-twice", "bad-500", "bad-404", "bad-drip")] == [3, 3, 1, 1]
    assert result.lost == {
        word: sum(w == word for w in [*BAD.values(), "tls"])
        for word in sorted({*BAD.values(), "tls"}, key=lambda w: (-[*BAD.values()].count(w), w))
    }


def test_a_host_that_says_nothing_is_asked_three_times(fetched, server):
    _, rows, _ = fetched(("good", "members", "JPEG"), ("silent", "members", "silent"), timeout=2.0)
    assert (rows["silent"].error, rows["silent"].attempts, rows["silent"].status) == ("timeout", 3, None)
    assert len(server.requests("silent")) == 3


def test_a_trusted_certificate_is_accepted(fetched, server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    _, rows, _ = fetched(urls=[("a", "members", server.url("a", "JPEG", "https"))])
    assert (rows["a"].error, rows["a"].final_url[:5]) == ("", "https")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://10.0.0.1/a.jpg", "private"),
        ("http://192.168.1.1/a.jpg", "private"),
        ("http://169.254.169.254/latest/meta-data", "private"),
        ("http://[::1]:8000/a.jpg", "private"),
        ("http://0.0.0.0/a.jpg", "private"),
        ("http://224.0.0.1/a.jpg", "private"),
        ("ftp://example.org/a.jpg", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("a.jpg", "scheme"),
        ("", "scheme"),
        ("http:///a.jpg", "bad-url"),
        ("http://[::1/a.jpg", "bad-url"),
        ("http://example.org:99999/a.jpg", "bad-url"),
        ("http://exa\x00mple.org/", "bad-url"),
    ],
)
def test_urls_that_are_not_asked(fetched, url, word):
    _, rows, _ = fetched(("good", "members", "JPEG"), urls=[("a", "members", url)])
    assert rows["a"].error == word


def test_names_without_an_address(fetched):
    _, rows, _ = fetched(("good", "members", "JPEG"), urls=[("a", "members", "http://nowhere.invalid/")])
    assert rows["a"].error == "dns"


def test_nothing_private_is_reached_without_the_option(fetched, server):
    with pytest.raises(NothingError) as caught:
        fetched(("a", "members", "JPEG"), allow_origin=None)
    assert "private 1" in str(caught.value)
    assert server.requests() == []
    assert fetched(("a", "members", "JPEG"))[0].survival[0].survived == 1, "the option that the message names helps"


def test_placeholders_and_what_is_seen_twice_are_left_out(fetched, monkeypatch, server):
    gone = hashlib.sha256(picture("gone")).hexdigest()
    monkeypatch.setitem(survivors.PLACEHOLDERS, gone, "a test's")
    twice = server.url("twice", "JPEG")
    result, rows, dataset = fetched(
        ("gone", "members", "JPEG"),
        ("good", "members", "JPEG"),
        ("a", "members", "same"),
        ("b", "members", "same"),
        urls=[
            ("first", "members", twice),
            ("second", "members", twice),
            ("m", "members", server.url("both", "JPEG")),
            ("n", "nonmembers", server.url("both", "JPEG")),
        ],
    )
    assert {row.error for row in rows.values()} == {""}, "the ledger keeps what was seen"
    names = {s.id for s in dataset.samples()}
    assert "good" in names and len(names & {"first", "second"}) == 1 and len(names) == 2
    assert result.lost == {"repeated": 3, "both-classes": 2, "placeholder": 1}
    assert len(server.requests("twice")) == 1, "a url of two rows is asked once"


def test_a_host_is_asked_by_few_at_a_time_and_told_who_asks(fetched, server):
    fetched(*((f"{n}", "members", "busy") for n in range(12)), per_host=2)
    assert server.most == 2
    assert all(headers["User-Agent"].startswith("mia-bench/") for *_, headers in server.asked)


@pytest.mark.parametrize("kind", ["JPEG", "packed"])
def test_few_large_bodies_are_in_memory_at_once(fetched, monkeypatch, kind):
    held, most, get, keep = set(), [], client.Client.get, Images.keep

    async def counted(self, url, *rest):
        answer = await get(self, url, *rest)
        held.add(answer.body)
        most.append(len(held))
        return answer

    until = time.monotonic() + 3.5

    def slow(self, body, content_type):
        time.sleep(max(0.06, until - time.monotonic()))
        held.discard(body)
        return keep(self, body, content_type)

    monkeypatch.setattr(client, "LARGE_BYTES", 1000)
    monkeypatch.setattr(client, "LARGE_AT_ONCE", 3)
    monkeypatch.setattr(client.Client, "get", counted)
    monkeypatch.setattr(Images, "keep", slow)
    _, rows, _ = fetched(*((f"{n}", "members", kind) for n in range(24)), per_host=16, timeout=3.0)
    assert {row.error for row in rows.values()} == {""}, "to wait for the others is not to be slow"
    assert max(most) == 3
    assert all(row.bytes > 1000 for row in rows.values())


def test_a_host_that_asks_to_wait_is_left_alone_meanwhile(fetched, server):
    _, rows, _ = fetched(("first", "members", "429-then"), *((f"{n}", "members", "JPEG") for n in range(8)), per_host=1)
    assert {row.error for row in rows.values()} == {""}
    times = {path.split("/")[1]: at for path, at, _ in server.asked[::-1]}
    later = [at for path, at, _ in server.asked if at > times["first"]]
    assert min(later) - times["first"] >= 0.99


def test_a_host_that_asks_to_wait_for_long_is_left_for_the_next_run(fetched, server):
    kinds = [("wait", "members", "429-long"), *((f"{n}", "members", "JPEG") for n in range(8))]
    order = sorted((name for name, *_ in kinds), key=survivors.hashed)
    before = order.index("wait")
    assert 0 < before < 8
    result, rows, _ = fetched(*kinds, per_host=1)
    assert (result.left, set(rows)) == (8 - before, set(order[: before + 1]))
    assert rows["wait"].error == "http-429"
    server.asked.clear()
    result, rows, _ = fetched(*kinds, per_host=1)
    assert (result.left, len(rows)) == (0, 9), "what was left comes first"
    assert [path.split("/")[1] for path in server.requests()] == [*order[before + 1 :], "wait"]


def test_an_answer_that_is_final_makes_nobody_wait(fetched, server):
    names = sorted((f"n{n}" for n in range(6)), key=survivors.hashed)
    kinds = zip(names, ["404-long", *["JPEG"] * 5], strict=True)
    result, rows, _ = fetched(*((name, "members", kind) for name, kind in kinds), per_host=1)
    assert (result.left, [rows[name].error for name in names]) == (0, ["http-404"] + [""] * 5)


def test_a_host_that_is_down_costs_few_attempts(fetched, server):
    kinds = [(f"{n}", "members", "silent") for n in range(20)]
    port = _closed_port()
    dead = [(name, kind, f"http://127.0.0.1:{port}/{name}") for name, kind, _ in kinds]
    watch = Quiet()
    with pytest.raises(NothingError) as caught:
        fetched(urls=dead, allow_origin=("127.0.0.1", port), watch=watch)
    assert len(watch.rows) == 20
    assert "host-down" in str(caught.value) and "connect" in str(caught.value)
    assert sum(row.attempts for row in watch.rows) <= 7


def test_urls_of_a_host_that_is_down_are_no_tries(fetched, server):
    dead = [(f"{n}", "members", f"http://dead.invalid/{n}") for n in range(20)]
    result, rows, _ = fetched(("good", "members", "JPEG"), urls=dead)
    asked = [row for row in rows.values() if row.attempts]
    assert {row.error for row in rows.values() if row not in asked} == {"host-down"} and len(rows) == 21
    (members,) = result.survival
    assert (members.urls, members.tried, members.survived) == (21, len(asked), 1) and 6 <= len(asked) <= 8


def test_a_url_that_was_tried_stays_so_when_its_host_is_down(fetched, server):
    names = sorted((f"n{n}" for n in range(20)), key=survivors.hashed)
    urls = [(name, "members", f"http://dead.invalid/{name}") for name in names[1:]]
    _, before, _ = fetched((names[0], "members", "JPEG"), urls=urls, limit=5)
    assert sum(row.attempts > 0 for row in before.values()) == 5
    result, after, _ = fetched((names[0], "members", "JPEG"), urls=urls)
    assert {name: after[name] for name in before} == before and len(after) == 20
    assert result.survival[0].tried == sum(row.attempts > 0 for row in after.values()) >= 10


@pytest.mark.parametrize("kind", ["dead", "dead-host"])
def test_a_host_is_not_blamed_for_where_it_redirects_to(fetched, server, kind, monkeypatch):
    resolve = guard._resolve

    def busy(host, port):
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return resolve(host, port)

    monkeypatch.setattr(guard, "_resolve", busy)
    names = sorted((f"n{n}" for n in range(20)), key=survivors.hashed)
    result, rows, _ = fetched(
        *((name, "members", kind) for name in names[:8]), *((n, "members", "JPEG") for n in names[8:]), per_host=1
    )
    assert [rows[name].error for name in names] == ["dns"] * 8 + [""] * 12
    assert result.survival[0].tried == 20
    attempts = sum(rows[name].attempts for name in names[:8])
    assert attempts == 24 if kind == "dead" else attempts <= 13, "where all lead to one host, it is known to be down"


@pytest.fixture
def open_world(monkeypatch):
    monkeypatch.setattr("mia_bench.fetch.guard.is_public", lambda address: True)


def test_it_is_the_host_that_asks_to_wait_that_is_left_alone(fetched, server, open_world):
    names = sorted((f"n{n}" for n in range(9)), key=survivors.hashed)
    other = f"http://localhost:{server.server_port}/theirs/JPEG"
    kinds = ["localhost-429-long", *["JPEG"] * 6, "localhost-JPEG"]
    rows = [(name, "members", kind) for name, kind in zip(names, kinds, strict=False)]
    result, rows, _ = fetched(*rows, urls=[(names[8], "members", other)], per_host=1, workers=1)
    assert [rows[name].error for name in names[:7]] == ["http-429"] + [""] * 6
    assert "localhost" in rows[names[0]].final_url
    assert len(server.requests("429-long")) == 2, "the redirect, and what it leads to"
    theirs = [path for path, _, headers in server.asked if headers["Host"].startswith("localhost")]
    assert theirs[-1].endswith("429-long"), "nothing was asked of that host later, not even through a redirect"
    assert (result.left, set(rows)) == (2, set(names[:7]))


def test_a_redirect_to_a_host_that_asks_to_wait_a_little_is_followed_later(fetched, server, open_world):
    names = sorted(("a", "b"), key=survivors.hashed)
    kinds = zip(names, ["localhost-429-then", "localhost-JPEG"], strict=True)
    _, rows, _ = fetched(*((name, "members", kind) for name, kind in kinds), per_host=1, workers=1)
    assert [rows[name].error for name in names] == ["", ""]
    times = [at for path, at, headers in server.asked if headers["Host"].startswith("localhost")]
    assert len(times) == 3 and times[1] - times[0] >= 0.99


def test_a_host_is_one_however_its_urls_are_written():
    urls = ["http://A.test/1", "http://a.test:80/2", "https://a.test:443/3", " http://user@a.test/4"]
    assert {run.host_of(url) for url in urls} == {"a.test"}
    assert [run.host_of(url) for url in ("http://a.test:81/", "a.jpg", "http://[::1/", "http://\ud800/")] == [
        "a.test:81",
        "",
        "",
        "",
    ]


def _closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_without_a_network_it_stops_early(fetched, monkeypatch):
    monkeypatch.setattr(run, "GIVE_UP_AFTER", 12)
    urls = [(f"{n}", "members", f"http://host{n}.invalid/a.jpg") for n in range(200)]
    with pytest.raises(UnavailableError) as caught:
        fetched(urls=urls, workers=4)
    assert "hosts could be reached" in str(caught.value) and "network" in caught.value.fix


def test_a_changed_or_lost_image_is_noticed_and_fetched_again(fetched, server):
    kinds = [("a", "members", "JPEG"), ("b", "nonmembers", "JPEG")]
    first, rows, dataset = fetched(*kinds)
    samples = {s.id: s for s in dataset.samples()}
    path = dataset.folder / "images" / rows["a"].sha256[:2] / rows["a"].sha256
    for spoil in (lambda: path.write_bytes(picture("c")), path.unlink):
        spoil()
        with pytest.raises(SampleError) as caught:
            samples["a"].open()
        assert "mia-bench fetch urls:" in caught.value.fix
    second, *_ = fetched(*kinds)
    assert samples["a"].open().size == (96, 112)
    assert (first.list, second.asked) == (second.list, 1)


def test_the_hash_tells_pictures_apart_and_not_their_copies():
    pictures = [Image.open(io.BytesIO(picture(str(n), "PNG"))) for n in range(20)]
    hashes = [dhash(p) for p in pictures]
    for p, h in zip(pictures, hashes, strict=True):
        assert 0 <= h < 2**64
        assert (dhash(p.resize((300, 350))) ^ h).bit_count() <= 4
    assert min((a ^ b).bit_count() for n, a in enumerate(hashes) for b in hashes[:n]) >= 12
    ramp = Image.linear_gradient("L").rotate(90)
    assert dhash(ramp) == 2**64 - 1 and dhash(ramp.rotate(180)) == 0
