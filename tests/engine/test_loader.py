"""Images and noise made ready for the next batch: the same to the bit, bounded, and faults stay where they were."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench.diffusion.foreseen import ForeseenNoise
from mia_bench.diffusion.noise import KeyedNoise, SaltedNoise
from mia_bench.engine.loader import Loader, load
from mia_bench.errors import SampleError

SHAPE = (4, 8, 8)


def watched(samples, opened, gate=None):
    """The same samples; notes the thread that opens each, after the gate opens."""

    def image(sample):
        def read():
            if gate:
                gate.wait(10)
            opened.append((sample.id, threading.current_thread()))
            return sample.open()

        return read

    return [replace(s, image=image(s)) for s in samples]


def broken():
    raise OSError("image file is truncated")


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "never"
        time.sleep(0.001)


def test_what_was_foreseen_is_the_same_and_read_once_elsewhere():
    opened = []
    samples = watched(tiny.icons(3, 3), opened)
    with Loader(32) as loader:
        loader.ahead(samples)
        wait_for(lambda: len(opened) == 6)  # before anybody asks
        found = loader.load(samples)
    assert [i for i, _ in opened] == [s.id for s in samples] == [s.id for s in found.samples]
    assert {t for _, t in opened} != {threading.current_thread()}
    plain = load(samples, 32)
    assert found.pixels.tobytes() == plain.pixels.tobytes() and found.pixels.shape == (6, 3, 32, 32)
    assert [i.tobytes() for i in found.images] == [i.tobytes() for i in plain.images]


def test_one_batch_ahead_at_most():
    opened, gate = [], threading.Event()
    one, two = (watched(part, opened, gate) for part in (tiny.icons(2, 0), tiny.icons(0, 4)))
    with Loader(32) as loader:
        loader.ahead(one)
        loader.ahead(two)  # the first is given up
        gate.set()
        assert loader.load(two).samples == tuple(two)
        assert len(opened) <= 1 + len(two), "of what was given up, the image at hand is finished at most"


def test_other_samples_than_foreseen_are_loaded_now():
    samples = tiny.icons(3, 3)
    with Loader(32) as loader:
        loader.ahead(samples[:3])
        assert loader.load(samples[3:]).samples == tuple(samples[3:])
        assert loader.load(samples[:3]).samples == tuple(samples[:3])


def test_an_image_that_fails_ahead_fails_as_it_does_now():
    samples = tiny.icons(2, 2)
    samples[1] = replace(samples[1], image=broken)
    with Loader(32) as loader:
        loader.ahead(samples)
        ahead = loader.load(samples)
        now = loader.load(samples)
    for found in (ahead, now):
        assert [(s.id, error.why) for s, error in found.failed] == [(samples[1].id, "image file is truncated")]
        assert len(found.samples) == len(found.images) == len(found.pixels) == 3
        with pytest.raises(SampleError, match="truncated"):
            found.complete()


def test_a_fault_of_the_reader_comes_up_where_the_batch_is_asked_for(monkeypatch):
    monkeypatch.setattr("mia_bench.images.to_pixels", lambda *_: 1 / 0)
    with Loader(32) as loader:
        loader.ahead(samples := tiny.icons(1, 1))
        with pytest.raises(ZeroDivisionError):
            loader.load(samples)


def test_a_run_that_ends_does_not_wait_for_what_nobody_needs():
    opened, begun, gate = [], threading.Event(), threading.Event()
    samples = watched(tiny.icons(20, 20), opened)
    samples[0] = replace(samples[0], image=lambda: begun.set() or (gate.wait(10) and tiny.icons(1, 0)[0].open()))
    others = {*threading.enumerate()}
    with Loader(32) as loader:
        loader.ahead(samples)
        assert begun.wait(10)
        drop = loader._drop
        loader._drop = lambda: (drop(), gate.set())  # what was begun is given up first
    assert len(opened) <= 1 and not any(t.name.startswith("loader") for t in {*threading.enumerate()} - others)


# Noise ----------------------------------------------------------------------------------------------------------


class Counted:
    """Keyed noise that notes what is drawn."""

    def __init__(self):
        self.source, self.drawn = KeyedNoise(3), []
        self.identity = self.source.identity

    def draw(self, *what):
        self.drawn.append(what)
        return self.source.draw(*what)


def ask(noise, ids, draws):
    return [noise.draw(i, quantity, t, number, SHAPE) for quantity, t, number in draws for i in ids]


DRAWS = [("eps", 440, 0), ("eps", 450, 1), ("latent", None, 0)]


def test_noise_is_drawn_before_it_is_asked_for_and_the_same():
    source = Counted()
    noise = ForeseenNoise(source)
    noise.turn(["a", "b"])
    ask(noise, ["a", "b"], DRAWS)
    noise.turn(["c", "d"])
    noise.foresee(["e", "f"])
    assert len(source.drawn) == 12 and {i for i, *_ in source.drawn[6:]} == {"e", "f"}
    noise.turn(["e", "f"])
    found = ask(noise, ["f", "e"], DRAWS)
    assert len(source.drawn) == 12, "nothing is drawn when it is asked for"
    wanted = ask(KeyedNoise(3), ["f", "e"], DRAWS)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert np.array_equal(ask(noise, ["f"], DRAWS[:1])[0], found[0])
    assert noise.identity == source.identity


def test_other_shapes_quantities_and_salts_are_told_apart():
    noise = ForeseenNoise(KeyedNoise(3))
    salted = SaltedNoise(noise, "pia")
    ask(salted, ["a"], DRAWS)
    noise.turn(["b"])
    noise.foresee(["b"])
    own, common = (ask(one, ["b"], DRAWS) for one in (SaltedNoise(KeyedNoise(3), "pia"), KeyedNoise(3)))
    assert all(np.array_equal(a, b) for a, b in zip(ask(salted, ["b"], DRAWS), own, strict=True))
    noise.foresee(["b"])
    assert all(np.array_equal(a, b) for a, b in zip(ask(noise, ["b"], DRAWS), common, strict=True))
    assert noise.draw("b", "eps", 440, 0, (1, 2, 3)).shape == (1, 2, 3)


def test_memory_is_bounded():
    size = 4 * 4 * 8 * 8
    noise = ForeseenNoise(source := Counted(), most=5 * size)
    ask(noise, ["a"], [("eps", t, 0) for t in range(10)])
    noise.turn(["b"])
    before = len(source.drawn)
    noise.foresee(["c", "d"])
    assert len(source.drawn) - before == len(noise._ready) == 5
    noise.turn(["x"])
    assert not noise._ready, "what nobody asked for is dropped"


def test_a_run_draws_ahead_and_loads_ahead(tmp_path, monkeypatch):
    """In a run, all that comes after the first two batches is drawn by the loader; scores stay."""
    threads = []
    plain = KeyedNoise.draw

    def draw(self, sample_id, quantity, *rest):
        threads.append((sample_id, threading.current_thread().name))
        return plain(self, sample_id, quantity, *rest)

    monkeypatch.setattr(KeyedNoise, "draw", draw)
    monkeypatch.setattr("mia_bench.engine.measure.draws_ahead", lambda device: True)  # as on a GPU
    opened = []
    samples = watched(tiny.icons(8, 8), opened)
    slow = tiny.attack("slow", lambda self, batch, target: time.sleep(0.5) or {"loss": np.zeros(len(batch))})
    made = tiny.registry(tiny.plugin([slow]), samples=samples)
    tiny.go(tmp_path / "ahead", made, attacks="loss,clid,slow")  # four batches
    foreseen = {i for i, name in threads if name.startswith("loader")}
    assert len(foreseen) == 8 and not foreseen & {i for i, name in threads if not name.startswith("loader")}
    assert all(t.name.startswith("loader") for _, t in opened)
    monkeypatch.setattr(ForeseenNoise, "foresee", lambda *_: None)
    tiny.go(tmp_path / "asked", made, attacks="loss,clid,slow")
    assert tiny.scores(tmp_path / "ahead") == tiny.scores(tmp_path / "asked")
