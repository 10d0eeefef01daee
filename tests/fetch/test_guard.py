"""Addresses: which may be reached, and that the one connected to is the one that was checked."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mia_bench.fetch import guard
from mia_bench.fetch.guard import Guard, RefusedError, Resolvers, UnresolvedError, is_public, parse_origin


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.0.2.1", False),
        ("192.168.0.1", False),
        ("198.18.0.1", False),
        ("224.0.1.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::1", False),
        ("2002:c0a8:1::1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("168.63.129.16", False),
        ("::ffff:168.63.129.16", False),
        ("64:ff9b::a83f:8110", False),
        ("168.63.129.17", True),
        ("192.0.0.9", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("192.175.48.1", False),
        ("100.100.100.200", False),
        ("2001:1::1", False),
        ("2001:4860:4860::8888", True),
        ("2002:5db8:d70e::1", False),
        ("3fff::1", False),
        ("fd00:ec2::254", False),
        ("", False),
        ("example.org", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("LocalHost:65535", ("localhost", 65535)),
    ],
)
def test_origins(text, origin):
    assert parse_origin(text) == origin


@pytest.mark.parametrize("text", ["", "localhost", ":80", "localhost:", "localhost:0", "localhost:65536", "::1:80"])
def test_no_origins(text):
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_origin(text)


class Recorder:
    """Where connections would have gone."""

    def __init__(self, refuse=0):
        self.to, self.refuse = [], refuse

    async def connect_tcp(self, host, port, *rest):
        import httpcore2

        self.to.append((host, port))
        if len(self.to) <= self.refuse:
            raise httpcore2.ConnectError
        return self


def connect(monkeypatch, answers, host="a.test", port=80, allowed=None, network=None):
    """Connect where the resolver gives these answers, one after the other."""
    asked = []

    def resolve(name, port, **options):
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers[len(asked) - 1]]

    monkeypatch.setattr(guard.socket, "getaddrinfo", resolve)
    network = network or Recorder()
    with ThreadPoolExecutor(1) as pool:
        one = Guard(pool, allowed)
        one.network = network
        try:
            asyncio.run(one.connect_tcp(host, port))
        finally:
            assert asked == [host], "a name is resolved once, and what it said is what counts"
    return network.to


def test_a_name_that_turns_private_after_the_check_is_not_followed(monkeypatch):
    assert connect(monkeypatch, [["93.184.215.14"], ["127.0.0.1"]]) == [("93.184.215.14", 80)]


def test_private_addresses_among_others_are_left_out(monkeypatch):
    assert connect(monkeypatch, [["127.0.0.1", "93.184.215.14"]]) == [("93.184.215.14", 80)]


def test_a_name_of_private_addresses_is_refused(monkeypatch):
    network = Recorder()
    with pytest.raises(RefusedError, match=r"127\.0\.0\.1"):
        connect(monkeypatch, [["127.0.0.1", "10.0.0.1"]], network=network)
    assert network.to == []


def test_the_next_address_is_tried(monkeypatch):
    addresses = ["93.184.215.14", "93.184.215.15"]
    assert connect(monkeypatch, [addresses], network=Recorder(refuse=1)) == [(a, 80) for a in addresses]


@pytest.mark.parametrize(("host", "port"), [("a.test", 81), ("b.test", 80)])
def test_the_option_opens_exactly_one_origin(monkeypatch, host, port):
    assert connect(monkeypatch, [["10.0.0.1"]], allowed=("a.test", 80)) == [("10.0.0.1", 80)]
    with pytest.raises(RefusedError):
        connect(monkeypatch, [["10.0.0.1"]], host, port, allowed=("a.test", 80))


def test_a_name_without_an_address():
    with ThreadPoolExecutor(1) as pool, pytest.raises(UnresolvedError):
        asyncio.run(Guard(pool).connect_tcp("nowhere.invalid", 80))


def test_a_socket_file_is_refused():
    with ThreadPoolExecutor(1) as pool, pytest.raises(RefusedError):
        asyncio.run(Guard(pool).connect_unix_socket("/run/docker.sock"))


def test_resolvers_are_at_most_so_many_and_end():
    resolvers, gate, before = Resolvers(2), threading.Event(), {*threading.enumerate()}
    began = [resolvers.submit(gate.wait, 10) for _ in range(3)]
    cancelled, failing = resolvers.submit(gate.wait), resolvers.submit(int, "x")
    threads = [thread for thread in {*threading.enumerate()} - before if thread.name == "resolver"]
    assert cancelled.cancel() and len(threads) == 2 and all(thread.daemon for thread in threads)
    gate.set()
    assert [future.result(5) for future in began] == [True] * 3
    assert isinstance(failing.exception(5), ValueError)
    resolvers.shutdown()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
