"""Measuring: one fault costs one sample or one attack, never the work of the others."""

import functools
import itertools
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from mia_bench.errors import BrokenPluginError, ExitStatus, NetworkError, SampleError, UnavailableError
from mia_bench.report.table import exit_status, notes
from mia_bench.store import Store


def with_attack(name="bad", measure=None, score=None, samples=None, **body):
    return tiny.registry(tiny.plugin([tiny.attack(name, measure, score, **body)]), samples=samples)


def failing_after(batches, error):
    calls = itertools.count(1)

    def measure(self, batch, target):
        if next(calls) > batches:
            raise error
        return {"loss": np.zeros(len(batch))}

    return measure


# Samples that cannot be used ------------------------------------------------------------------------------------


def broken_image():
    raise OSError("image file is truncated")


def test_a_corrupt_image_costs_only_itself(tmp_path):
    good = tiny.icons(6, 6)
    bad = replace(good[3], image=broken_image)
    samples = [bad if s is good[3] else s for s in good]
    tiny.go(tmp_path / "good", tiny.registry(samples=good))
    result = tiny.go(tmp_path / "bad", tiny.registry(samples=samples))
    assert [(f.sample, f.attack) for f in result.failures] == [(bad.id, None)]
    assert "truncated" in result.failures[0].reason
    assert {r.n for r in result.rows} == {11}
    assert exit_status(result) == ExitStatus.UNAVAILABLE
    rest = {key: value for key, value in tiny.scores(tmp_path / "good").items() if key[1] != bad.id}
    assert tiny.scores(tmp_path / "bad") == rest


def test_a_whole_batch_of_corrupt_images(tmp_path):
    samples = tiny.icons(6, 6)
    taken = sorted(samples, key=lambda s: s.order)
    bad = [replace(s, image=broken_image) for s in taken[:4]]  # the first batch, all of it
    result = tiny.go(tmp_path, tiny.registry(samples=[*bad, *taken[4:]]))
    assert {f.sample for f in result.failures} == {s.id for s in bad}
    assert {r.n for r in result.rows} == {8}
    assert result.n_members + result.n_nonmembers == 8 and result.n_left_out == 4


def test_a_repaired_image_is_all_that_a_second_run_measures(tmp_path, monkeypatch):
    samples = tiny.icons(3, 3)
    bad = [replace(samples[0], image=broken_image), *samples[1:]]
    tiny.go(tmp_path, tiny.registry(samples=bad), attacks="logged")
    log = tmp_path / "log"
    monkeypatch.setenv("TINY_LOG", str(log))
    result = tiny.go(tmp_path, tiny.registry(samples=samples), attacks="logged")
    assert log.read_text().split() == [samples[0].id]
    assert (result.failures, result.rows[0].n) == ((), 6)


def test_missing_captions_cost_only_these_samples(tmp_path):
    samples = tiny.icons(6, 6)
    bare = [replace(s, caption=None) for s in samples[4:8]]
    result = tiny.go(tmp_path, tiny.registry(samples=[*samples[:4], *bare, *samples[8:]]), attacks="clid,loss")
    assert {r.label: (r.n, r.uncaptioned) for r in result.rows} == {"clid": (8, 4), "loss": (12, 0)}
    assert "4 samples without a caption left out of clid" in notes(result)
    assert not result.failures and exit_status(result) == ExitStatus.OK


def poisoned(made, victims):
    """The tiny target, but what it predicts for these samples is not a number."""
    images = {s.id: np.asarray(s.open()).mean() for s in made.datasets["given"]().samples()}
    marks = [images[v] for v in victims]

    class Poisoned(made.targets["tiny"]):
        def posterior(self, pixels):
            found = super().posterior(pixels)
            for row, image in zip(found, pixels, strict=True):
                if any(abs((float(image.mean()) + 1) * 127.5 - m) < 1e-3 for m in marks):
                    row[:] = torch.nan
            return found

    made.targets["tiny"] = Poisoned
    return made


def test_nan_from_the_target_costs_only_that_sample(tmp_path):
    victim = tiny.icons(6, 6)[2].id
    tiny.go(tmp_path / "good", attacks="loss,pia,clid")
    made = poisoned(with_attack("blindly", lambda self, batch, target: {"loss": np.ones(len(batch))}), [victim])
    result = tiny.go(tmp_path / "bad", made, attacks="loss,pia,clid,blindly")
    assert {(f.sample, f.attack) for f in result.failures} == {(victim, a) for a in ("loss", "pia", "clid")}
    assert "not finite" in result.failures[0].reason
    assert {r.label: r.n for r in result.rows} == {"loss": 11, "pia": 11, "clid": 11, "blindly": 12}
    assert exit_status(result) == ExitStatus.UNAVAILABLE
    good, bad = tiny.scores(tmp_path / "good"), tiny.scores(tmp_path / "bad")
    for key, value in good.items():
        if key[0] != "clid" and key[1] != victim:
            assert bad[key] == value
    assert not any(np.isnan(v) for v in bad.values())


def test_a_target_that_gives_only_nan(tmp_path):
    made = tiny.registry()
    result = tiny.go(tmp_path, poisoned(made, [s.id for s in tiny.icons(6, 6)]))
    assert {r.status for r in result.rows} == {"empty"}
    assert all("no sample was measured: the target's output is not finite" in r.reason for r in result.rows)
    assert exit_status(result) == ExitStatus.UNAVAILABLE


def test_a_sample_that_an_attack_refuses_costs_only_that_attack(tmp_path):
    victim = tiny.icons(6, 6)[2].id

    def measure(self, batch, target):
        if victim in batch.ids:
            raise SampleError(f"sample {victim!r}", "too plain")
        return {"loss": batch.x0.flatten(1).mean(1)}

    result = tiny.go(tmp_path, with_attack(measure=measure), attacks="loss,bad")
    assert [(f.sample, f.attack, f.reason) for f in result.failures] == [(victim, "bad", "too plain")]
    assert (tiny.row(result, "bad").n, tiny.row(result, "loss").n) == (11, 12)


# Attacks that fail ----------------------------------------------------------------------------------------------

WRONG = {
    "raises": (failing_after(0, ValueError("no such layer")), "ValueError: no such layer"),
    "raises later": (failing_after(2, ValueError("no such layer")), "ValueError: no such layer"),
    "exits": (failing_after(0, SystemExit(0)), "SystemExit"),
    "nothing": (lambda self, batch, target: None, "NoneType"),
    "no terms": (lambda self, batch, target: {}, "no term"),
    "a bare tensor": (lambda self, batch, target: batch.x0.flatten(1).mean(1), "Keyed|Tensor"),
    "a list": (lambda self, batch, target: [1.0] * len(batch), "list"),
    "another length": (lambda self, batch, target: {"loss": np.zeros(len(batch) + 1)}, r"shape \(5,\) for 4 samples"),
    "a number": (lambda self, batch, target: {"loss": 1.0}, r"shape \(\) for 4 samples"),
    "text": (lambda self, batch, target: {"loss": ["x"] * len(batch)}, "could not convert"),
    "empty rows": (lambda self, batch, target: {"loss": np.zeros((len(batch), 0))}, r"shape \(4, 0\)"),
    "in place": (lambda self, batch, target: batch.x0.add_(1), "in place"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_broken_attack_costs_only_itself(tmp_path, fault):
    measure, said = WRONG[fault]
    tiny.go(tmp_path / "good")
    result = tiny.go(tmp_path / "bad", with_attack(measure=measure), attacks="bad,loss,pia")
    bad = tiny.row(result, "bad")
    assert (bad.status, bad.evaluation) == ("failed", None)
    assert re.search(f"measure failed: .*({said})", bad.reason), bad.reason
    assert exit_status(result) == ExitStatus.BROKEN_PLUGIN
    assert tiny.scores(tmp_path / "bad") == tiny.scores(tmp_path / "good")


def test_presets_that_share_a_failed_measurement_fail_together(tmp_path):
    made = with_attack(measure=failing_after(1, ValueError("gone")), presets={"twin": {"scale": 2.0}})
    result = tiny.go(tmp_path, made, attacks="bad,bad@twin,loss")
    assert [r.label for r in result.rows if r.status == "failed"] == ["bad", "bad@twin"]
    assert all("ValueError: gone" in r.reason for r in result.rows if r.status == "failed")


def test_x_stops_at_the_first_broken_attack_and_keeps_what_is_stored(tmp_path):
    made = with_attack(measure=failing_after(1, ValueError("no such layer")))
    with pytest.raises(BrokenPluginError, match=r"bad.*ValueError: no such layer"):
        tiny.go(tmp_path, made, attacks="bad,loss", fail_fast=True)
    assert sum(s["samples"] for s in Store(tmp_path).provenance().values()) == 4
    with pytest.raises(BrokenPluginError, match="shape"):
        tiny.go(tmp_path / "2", with_attack(measure=WRONG["another length"][0]), attacks="bad,loss", fail_fast=True)


def test_x_stops_at_the_first_bad_sample(tmp_path):
    samples = tiny.icons(3, 3)
    with pytest.raises(UnavailableError, match="truncated"):
        tiny.go(
            tmp_path, tiny.registry(samples=[replace(samples[0], image=broken_image), *samples[1:]]), fail_fast=True
        )


def test_an_attack_sees_no_labels(tmp_path):
    seen = []

    def measure(self, batch, target):
        seen.append(batch)
        return {"loss": batch.x0.flatten(1).mean(1)}

    def score(self, measured, calibration):
        seen.append(measured)
        return measured["loss"]

    tiny.go(tmp_path, with_attack(measure=measure, score=score), attacks="bad")
    *batches, measured = seen
    assert len(batches) == 3
    assert not any(hasattr(b, name) for b in batches for name in ("member", "labels", "label", "samples"))
    assert measured.member is None


# Counting -------------------------------------------------------------------------------------------------------


def test_presets_that_differ_only_in_scoring_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    result = tiny.go(tmp_path / "run", attacks="logged,logged@double")
    assert len((tmp_path / "log").read_text().split()) == 12
    assert [r.queries for r in result.rows] == [1, 1]
    found = tiny.scores(tmp_path / "run")
    assert all(found["logged@double", i] == 2 * v for (label, i), v in found.items() if label == "logged")


@functools.cache
def priced(share):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        result = tiny.go(Path(folder), attacks="loss,pia,clid", share=share, options={"loss": {"t": 440}})
        return result, tiny.scores(Path(folder))


def test_queries_are_counted_as_the_papers_do(tmp_path):
    result, _ = priced(True)
    assert {r.label: r.queries for r in result.rows} == {"loss": 1, "pia": 2, "clid": 15}
    assert result.cost.asked == 12 * 18
    assert result.cost.executed == 12 * 17, "clid asks what loss asked at t = 440"
    assert priced(False)[0].cost.executed == 12 * 18


def test_sharing_changes_no_score():
    assert priced(True)[1] == priced(False)[1]


def test_independent_noise_is_the_attacks_own(tmp_path):
    tiny.go(tmp_path / "a", attacks="loss,logged,pia", options={"loss": {"t": 300}})
    tiny.go(tmp_path / "b", attacks="loss,logged,pia", options={"loss": {"t": 300}}, independent_noise=True)
    common, own = tiny.scores(tmp_path / "a"), tiny.scores(tmp_path / "b")
    ids = {i for _, i in common}
    assert all(common["loss", i] == common["logged", i] for i in ids)
    assert not any(own["loss", i] == own["logged", i] for i in ids)
    assert all(common["pia", i] == own["pia", i] for i in ids), "pia draws no noise"


# What one attack does must not reach another -----------------------------------------------------------------------


def spoil_x0(self, batch, target):
    flat = batch.x0.reshape(len(batch), -1)
    flat /= flat.norm()
    return {"loss": flat.sum(1)}


def spoil_pixels(self, batch, target):
    batch.pixels[:] = 0
    return {"loss": batch.pixels.flatten(1).sum(1)}


def test_a_tensor_changed_through_a_view_fails_its_attack_alone(tmp_path):
    tiny.go(tmp_path / "good", attacks="loss")
    result = tiny.go(tmp_path / "bad", with_attack("aaa", spoil_x0), attacks="aaa,loss")
    assert tiny.row(result, "aaa").status == "failed" and "changed in place" in tiny.row(result, "aaa").reason
    good, bad = tiny.scores(tmp_path / "good"), tiny.scores(tmp_path / "bad")
    assert {k: v for k, v in bad.items() if k[0] == "loss"} == good


def test_a_view_under_anothers_name_fails_that_attack_alone(tmp_path):
    def encodes(sign, fails=False):
        def measure(self, batch, target):
            latents = batch.encode(sign * batch.pixels, "mine")
            if fails:
                raise RuntimeError("something else")
            return {"loss": latents.mean((1, 2, 3))}

        return measure

    kinds = {"first": (1,), "fails": (-1, True), "other": (-1,), "same": (1,)}
    attacks = [tiny.attack(name, encodes(*how)) for name, how in kinds.items()]
    result = tiny.go(tmp_path, tiny.registry(tiny.plugin(attacks)), attacks=",".join(kinds))
    reasons = {row.label: row.reason for row in result.rows if row.status == "failed"}
    assert "view 'mine' needs a name of its own" in reasons.pop("other")
    assert list(reasons) == ["fails"] and "something else" in reasons["fails"]


def test_pixels_are_each_attacks_own(tmp_path):
    tiny.go(tmp_path / "good", attacks="loss")
    tiny.go(tmp_path / "bad", with_attack("aaa", spoil_pixels), attacks="aaa,loss")
    good, bad = tiny.scores(tmp_path / "good"), tiny.scores(tmp_path / "bad")
    assert {k: v for k, v in bad.items() if k[0] == "loss"} == good


# Whose fault it is -------------------------------------------------------------------------------------------------


def test_a_network_that_fails_ends_the_run_and_is_named(tmp_path):
    made = tiny.registry()

    class Failing(made.targets["tiny"]):
        def predict(self, x, t, encoder_hidden_states):
            raise RuntimeError("bad kernel")

    made.targets["tiny"] = Failing
    with pytest.raises(NetworkError, match="RuntimeError: bad kernel"):
        tiny.go(tmp_path, made, attacks="loss")


def test_an_attack_that_asks_nonsense_fails_alone(tmp_path):
    def measure(self, batch, target):
        return {"loss": target.denoiser(batch.x0[:, :2], 3, batch.condition).flatten(1).sum(1)}

    result = tiny.go(tmp_path, with_attack(measure=measure), attacks="bad,loss")
    assert tiny.row(result, "bad").status == "failed" and tiny.row(result, "loss").n == 12


@pytest.mark.parametrize("part", ["dataset", "target"])
def test_a_faulty_dataset_or_target_plugin_is_broken(tmp_path, part):
    made = tiny.registry()

    class BadData(made.datasets["given"]):
        def samples(self):
            raise KeyError("x")

    class BadTarget(made.targets["tiny"]):
        def load(self):
            raise KeyError("x")

    (made.datasets if part == "dataset" else made.targets).update(
        {"given": BadData} if part == "dataset" else {"tiny": BadTarget}
    )
    with pytest.raises(BrokenPluginError, match=f"{part} .*its plugin failed: KeyError"):
        tiny.go(tmp_path, made, attacks="loss")


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("part", "method"), [("dataset", "__init__"), ("target", "__init__"), ("target", "weights")])
def test_a_plugin_that_fails_before_anything_is_loaded_is_broken(tmp_path, part, method, named):
    made = tiny.registry()
    kinds, name = (made.datasets, "given") if part == "dataset" else (made.targets, "tiny")

    def fail(self, *arguments):
        raise KeyError("x")

    kinds[name] = type("Bad", (kinds[name],), {method: fail, "__module__": __name__})
    given = {"dataset": "given", "target": None} if named else {"dataset": None, "target": "tiny"}
    if part == "dataset" and not named:
        del made.datasets["icons"], made.datasets["icons-mirror"]
    with pytest.raises(BrokenPluginError, match=f"{part} .*its plugin failed: KeyError"):
        tiny.go(tmp_path, made, attacks="loss", **given)


# What it costs -----------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_not_counted_as_asked(tmp_path):
    victim = tiny.icons(6, 6)[2].id

    def measure(self, batch, target):
        found = tiny.Logged.measure(self, batch, target)
        if victim in batch.ids:
            raise SampleError(f"sample {victim!r}", "too plain")
        return found

    result = tiny.go(tmp_path, with_attack(measure=measure), attacks="bad")
    assert (tiny.row(result, "bad").n, tiny.row(result, "bad").queries) == (11, 1)


def test_an_attack_without_queries_is_charged_its_own_time(tmp_path):
    def slow(self, batch, target):
        time.sleep(0.02)
        return {"loss": np.ones(len(batch))}

    result = tiny.go(tmp_path, with_attack("slow", slow), attacks="loss,slow")
    assert tiny.row(result, "slow").seconds >= 3 * 0.02 / 12 and tiny.row(result, "slow").queries == 0


def test_a_gradient_attack_is_charged_its_own_time_and_no_other_pays_for_it(tmp_path):
    def slow(self, batch, target):
        time.sleep(2)
        with torch.enable_grad():
            x = batch.x0.clone().requires_grad_()
            loss = (target.denoiser(x, 7, batch.condition, grad=True) ** 2).sum((1, 2, 3))
            (gradient,) = target.denoiser.gradient(loss, [x])
        return {"loss": gradient.abs().amax((1, 2, 3))}

    result = tiny.go(tmp_path, with_attack("slow", slow), attacks="loss,slow", batch=12)
    assert (tiny.row(result, "slow").queries, tiny.row(result, "slow").backward) == (1, 1)
    assert tiny.row(result, "slow").seconds >= 2 / 12 > tiny.row(result, "loss").seconds


def test_other_attacks_in_the_folder_are_not_in_the_price(tmp_path):
    tiny.go(tmp_path, attacks="loss,pia")
    result = tiny.go(tmp_path, attacks="pia")
    assert (result.cost.asked, result.cost.executed) == (24, None)
    assert "24 queries asked, run together with other attacks' queries" in "\n".join(notes(result))


def test_other_samples_in_the_folder_are_not_in_the_price(tmp_path):
    tiny.go(tmp_path, attacks="loss,pia", batch=12)
    few = tiny.go(tmp_path, attacks="loss,pia", limit=2)
    assert (few.cost.images, few.cost.asked, few.cost.executed) == (4, 12, 12)
    assert [r.queries for r in few.rows] == [1, 2]
    whole = tiny.go(tmp_path, attacks="loss,pia")
    assert (whole.cost.asked, whole.cost.executed) == (36, 36)
    for part in ("stages", "networks"):
        for name, seconds in getattr(whole.cost, part).items():
            assert getattr(few.cost, part)[name] == pytest.approx(seconds / 3)
    assert tiny.go(tmp_path, attacks="pia").cost.stages["measure"] == pytest.approx(
        whole.cost.stages["measure"] * 2 / 3
    )


def test_old_results_do_not_outlive_a_new_plan(tmp_path):
    tiny.go(tmp_path, attacks="loss")

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.go(tmp_path, tiny.registry(tiny.plugin(batch_measured=interrupt)), attacks="loss", seed=1)
    assert not (tmp_path / "results.json").exists() and not (tmp_path / "scores.parquet").exists()


def test_what_came_to_nothing_is_no_part_of_the_price(tmp_path):
    """A batch that failed and was repeated does not change queries per image, and an image counts once."""
    broken = {"now": True}

    def measure(self, batch, target):
        found = tiny.Logged.measure(self, batch, target)
        if broken["now"] and len(first) == 1:
            raise OSError("the machine's own trouble")
        first.append(batch.ids)
        return found

    first = []
    made = tiny.registry(tiny.plugin([tiny.attack("mine", measure)]))
    tiny.go(tmp_path, made, attacks="mine")
    broken["now"] = False
    result = tiny.go(tmp_path, made, attacks="mine")
    assert (tiny.row(result, "mine").n, tiny.row(result, "mine").queries) == (12, 1)
    assert result.cost.images == 12
    assert tiny.go(tmp_path, made, attacks="mine,loss").cost.images == 12


# Whose fault it is ----------------------------------------------------------------------------------------------


class Breaking(tiny.Tiny):
    """A device at fault says so at whatever comes next, network call or not."""

    meta = tiny.Tiny.meta.model_copy(update={"name": "breaking"})
    broken = False

    def predict(self, x, t, **states):
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().predict(x, t, **states)


def _broken_at_scores(self, batch, target):
    target.broken = True

    class Terms:
        shape = (len(batch),)

        def __array__(self, *_, **__):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    return {"loss": Terms()}


def _broken_at_work(self, batch, target):
    target.broken = True
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("measure", [_broken_at_scores, _broken_at_work])
def test_a_device_that_fails_between_calls_is_no_fault_of_an_attack(tmp_path, measure):
    made = with_attack("unlucky", measure)
    made.targets["breaking"] = Breaking
    with pytest.raises(NetworkError, match="illegal memory access"):
        tiny.go(tmp_path, made, attacks="unlucky,loss", target="breaking")


def test_a_device_that_fails_before_attacks_is_at_fault_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.Tiny, "forget", lambda self: 1 / 0)
    with pytest.raises(NetworkError, match="its input could not be made: ZeroDivisionError"):
        tiny.go(tmp_path, attacks="loss")
