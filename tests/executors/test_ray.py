"""A Ray cluster on this machine's loopback: the same bytes, whenever an actor is killed."""

import os
import random
import secrets
import signal
import threading
import time
from dataclasses import replace

import pytest
from placed import OPTIONS, Place

from mia_bench.errors import UnavailableError, UsageError
from mia_bench.executor import Job
from mia_bench.plugins import Registry

RAY = {"executor": "ray", "workers": 2}
KILLS = 10

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two processors, loopback only; its processes see the environment of this moment."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # it would kill actors where other tests hold memory
        patch.setenv("RAY_worker_register_timeout_seconds", "300")
        patch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)  # else it listens on every address
        patch.setenv("SLOWLY_LOG", str(folder / "log"))
        patch.setenv("SLOWLY_S", "0.1")
        patch.setenv("SLOWLY_TOGETHER", "2")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            assert ray.nodes()[0]["NodeManagerAddress"] == "127.0.0.1"
            yield folder
        finally:
            ray.shutdown()


@pytest.fixture
def place(cluster):
    return Place(cluster)


def test_without_a_cluster_it_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("SLOWLY_LOG", str(tmp_path / "log"))
    with pytest.raises(UnavailableError) as caught:
        Place(tmp_path).run("none", **RAY)
    assert "ray start --head" in caught.value.fix


def test_an_object_cannot_be_sent(tmp_path):
    job = Job(replace(OPTIONS, target=object()), (), "", frozenset(), tmp_path)
    with pytest.raises(UsageError, match="as an object"):
        Registry.load().executor("ray")(2).spread(job)


def test_killed_actors_change_no_byte(place, monkeypatch, caplog):
    monkeypatch.setenv("SLOWLY_S", "0")
    monkeypatch.setenv("SLOWLY_TOGETHER", "1")
    place.run("one")
    whole, samples = place.bytes("one"), set(place.measured())
    moments, killed = random.Random(8), 0
    for number in range(KILLS):
        name, at = f"kill {number}", moments.randrange(1, len(samples))
        place.log.unlink(missing_ok=True)

        def kill(at=at):
            """An actor that is measuring, once so many samples have been begun."""
            until = time.monotonic() + 300
            while len(place.logged()) < at and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(int(place.logged()[-1][0]), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        result = place.run(name, **RAY)
        killer.join()
        killed += "was lost" in caplog.text
        caplog.clear()
        assert place.bytes(name) == whole, name
        assert not result.failures
        pids = {pid for pid, _ in place.logged()}
        assert str(os.getpid()) not in pids and len(pids) in (2, 3), name
        assert set(place.measured()) == samples and sum(place.measured().values()) <= len(samples) + 8, name
    assert killed >= KILLS - 2, "some may come when all is done"
