"""Each test has an empty cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MIA_BENCH_CACHE", str(place))
    return place
