"""A server, a cache of one's own, and a fetch of some of the server's urls."""

import socket

import pytest
from quiet import Quiet
from urlplugin import Urls
from urlserver import listed, serving

from mia_bench.fetch import client, run
from mia_bench.fetch.ledger import Ledger
from mia_bench.fetch.run import FetchOptions, fetch


@pytest.fixture(scope="session")
def _server():
    with serving() as server:
        yield server


@pytest.fixture
def server(_server):
    _server.asked.clear()
    _server.second.asked.clear()
    _server.most = 0
    return _server


@pytest.fixture(autouse=True)
def no_such_name(monkeypatch):
    """Names under `.invalid` have no address at once, however this machine asks for names."""
    plain = socket.getaddrinfo

    def found(host, *rest, **more):
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return plain(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(client, "MAX_BYTES", 2**20)
    monkeypatch.setattr(run, "BACKOFF_S", 0.02)
    return tmp_path / "cache"


@pytest.fixture
def fetched(tmp_path, server):
    """`fetched(*(id, class, kind), ...)`: what came of it, and the rows of the ledger by id."""

    def call(*rows, urls=(), watch=None, **options):
        made = [(name, kind, server.url(name, what)) for name, kind, what in rows]
        dataset = Urls(str(listed(tmp_path / "urls.jsonl", [*made, *urls])))
        origin = ("127.0.0.1", server.server_port)
        given = {"timeout": 5.0, "allow_origin": origin, **options}
        result = fetch(dataset, FetchOptions(**given), watch or Quiet())
        return result, Ledger(dataset.folder / "ledger.jsonl").rows(), Urls(dataset.argument)

    return call
