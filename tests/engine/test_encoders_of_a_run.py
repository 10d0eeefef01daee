"""Encoders in a run: resolved by name alone, part of a row's name and identity; what is missing is said."""

import json
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import tiny
from PIL import Image

from mia_bench import Attack, Capability, EncoderMeta, Offer, hookimpl
from mia_bench.attack import by_kind
from mia_bench.engine.artifacts import _safe, extremes
from mia_bench.engine.encoders import resolver
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.run import run
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.testing import StubEncoder
from mia_bench_plugins.encoders.emoji import EmojiClip, EmojiLpips


class Near(StubEncoder):
    meta = EncoderMeta(
        name="near",
        summary="",
        offers=frozenset({Offer.DISTANCE, Offer.EMBED}),
        source="tests",
        offline=True,
        argument="SEED",
    )

    def files(self):
        return {}


class Mute(Near):
    meta = EncoderMeta(name="mute", summary="", offers=frozenset({Offer.EMBED}), source="tests", offline=True)


class Absent(Near):
    meta = EncoderMeta(
        name="absent", summary="", offers=frozenset({Offer.DISTANCE}), source="https://example.org", fetch="fetch it"
    )

    def files(self):
        raise self.missing("its weights are not here")


class Looking(Attack):
    """Distance of an image and its decoded latents."""

    meta = tiny.attack("looking").meta.model_copy(update={"needs": frozenset({Capability.DENOISE})})

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            encoder: Which.
        """

        encoder: str = "near"

    presets = {"other": {"encoder": "near:3"}, "quick": {"samples": 3}, "quick-too": {"samples": 2}}
    aliases = {"looking-absent": "looking[absent]"}

    def encoders(self):
        return {self.params.encoder: frozenset({Offer.DISTANCE})}

    def queries(self):
        return 0

    def measure(self, batch, target):
        return {"d": target.encoders[self.params.encoder].distance(batch.pixels, -batch.pixels)}

    def score(self, measured, calibration):
        return measured["d"]

    def artifacts(self, batch, target):
        return {"original": batch.pixels, "upside down": batch.pixels.flip(2)}


def made(samples=None, preset=""):
    registry = tiny.registry(tiny.plugin([Looking]), samples=samples)
    registry.encoders = {cls.meta.name: cls for cls in (Near, Mute, Absent)}
    registry.datasets["given"] = tiny.dataset(tiny.icons(6, 6) if samples is None else samples, preset=preset)
    return registry


def options(folder, attacks, **more):
    return RunOptions(
        **{"attacks": attacks, "dataset": "given", "threads": 1, "rows": 4, "batch": 4, "out": folder} | more
    )


def labels(result):
    return [row.label for row in result.rows if not row.control]


def test_the_encoder_is_part_of_the_row_and_of_what_it_measures(tmp_path):
    result = run(made(), options(tmp_path, "looking,looking[near:3],looking[near],looking@other"))
    assert labels(result) == ["looking[near]", "looking[near:3]", "looking[near:3]@other"]
    first, second, third = (row.fingerprint for row in result.rows if not row.control)
    assert first != second, "other weights are another measurement"
    assert second == third, "the same encoder is the same measurement, whoever names it"
    found = tiny.scores(tmp_path)
    assert {v for (label, _), v in found.items() if label == "looking[near]"} != {
        v for (label, _), v in found.items() if label == "looking[near:3]"
    }


def test_what_is_missing_is_said_with_where_it_comes_from_and_what_is_at_hand(tmp_path):
    for typed in ("looking[absent]", "looking-absent"):
        with pytest.raises(UnavailableError) as caught:
            prepare(made(), options(tmp_path, typed))
        said = f"{caught.value} {caught.value.fix}"
        for part in (
            "absent",
            "its weights are not here",
            "https://example.org",
            "fetch it",
            "at hand for distance: near",
            "runs without: looking@other, looking@quick, looking@quick-too",
        ):
            assert part in said


def test_nothing_takes_the_place_of_what_is_missing(tmp_path):
    class Without(Looking):
        meta = Looking.meta.model_copy(update={"name": "without"})
        presets, aliases = {}, {}

        class Params(Looking.Params):
            """Parameters.

            Attributes:
                encoder: Which.
            """

            encoder: str = "absent"

    registry = made()
    registry.attacks["without"] = Without
    result = run(registry, options(tmp_path, "all"))
    assert "looking[near]" in labels(result) and "without[absent]" not in labels(result)
    assert "describe absent" in result.skipped["without[absent]"]


def test_wrong_names_are_refused(tmp_path):
    for typed, said in [
        ("looking[nope]", "nope"),
        ("looking[mute:x]", "takes no argument"),
        ("looking[mute]", "offers no distance"),
        ("loss[near]", "names no encoder"),
    ]:
        with pytest.raises(UsageError, match=said):
            prepare(made(), options(tmp_path, typed))


def test_one_encoder_for_one_name():
    find, offers = resolver(made(), "pixel"), frozenset({Offer.DISTANCE})
    assert find("near", offers, "a") is find("near", offers, "b") is not find("near:1", offers, "a")


def test_all_takes_the_family_of_presets_that_the_dataset_asks_for(tmp_path):
    given = tiny.icons(6, 6)
    result = run(made(given, preset="quick"), options(tmp_path, "all"))
    found = {row.label: row.n for row in result.rows if not row.control}
    assert found["looking[near]@quick"] == 6 and found["looking[near]@quick-too"] == 4, "of each class"
    assert found["loss"] == 12 and "looking[near]" not in found
    full = run(made(given, preset="quick"), options(tmp_path, "all", full=True))
    assert {row.label: row.n for row in full.rows}["looking[near]"] == 12
    again = run(made(given, preset="quick"), options(tmp_path, "all"))
    assert {row.label: row.n for row in again.rows if not row.control} == found, "more is stored than it asked for"


def test_no_sample_beyond_the_limit_is_called_a_failure(tmp_path):
    result = run(made(preset="quick"), options(tmp_path, "all"))
    assert not result.failures


def test_a_registered_encoder_is_checked():
    module = ModuleType("encoders")
    module.mia_bench_encoders = hookimpl(lambda: [Near, object])
    module.mia_bench_encoders.__name__ = "mia_bench_encoders"
    registry = Registry()
    plugin = registry.add("x", "tests", "x", lambda: module)
    assert "not a subclass of Encoder" in plugin.error and not registry.encoders


# Pictures -----------------------------------------------------------------------------------------------------------


def test_pictures_of_the_surest_and_the_middling_scores(tmp_path):
    result = run(made(), options(tmp_path, "looking,loss", artifacts=2))
    index = json.loads((tmp_path / "artifacts" / "index.json").read_text())["rows"]
    assert [row["rank"] for row in index] == [f"{r}-{i}" for r in ("highest", "median", "lowest") for i in (1, 2)]
    scores = {sample: v for (label, sample), v in tiny.scores(tmp_path).items() if label == "looking[near]"}
    ordered = sorted(scores, key=lambda sample: -scores[sample])
    chosen = [row["sample"] for row in index]
    assert chosen[:2] == ordered[:2] and chosen[4:] == ordered[-2:] and chosen[2:4] == ordered[5:7]
    for row in index:
        assert row["score"] == scores[row["sample"]] and list(row["pictures"]) == ["original", "upside down"]
        original, turned = (np.array(Image.open(tmp_path / path)) for path in row["pictures"].values())
        assert np.array_equal(turned, original[::-1])
    assert not result.failures


def test_pictures_do_not_depend_on_labels(tmp_path):
    """Which samples are shown, and what is shown of them."""
    shown = []
    for name, flip in (("a", False), ("b", True)):
        given = [replace(s, member=not s.member) if flip else s for s in tiny.icons(6, 6)]
        run(made(given), options(tmp_path / name, "looking", artifacts=1))
        files = sorted((tmp_path / name / "artifacts").rglob("*.png"))
        shown.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    assert shown[0] == shown[1] and len(shown[0]) == 6


@pytest.mark.parametrize("independent", [False, True])
def test_pictures_are_of_the_noise_that_was_scored(tmp_path, independent):
    class Noisy(Looking):
        meta = Looking.meta.model_copy(update={"name": "noisy"})
        presets, aliases = {}, {}

        def drawn(self, batch):
            return batch.eps(10)[:, :3].clamp(-1, 1)

        def measure(self, batch, target):
            return {"d": self.drawn(batch).mean((1, 2, 3))}

        def artifacts(self, batch, target):
            return {"noise": self.drawn(batch)}

    registry = made()
    registry.attacks["noisy"] = Noisy
    run(registry, options(tmp_path, "noisy", artifacts=1, independent_noise=independent))
    for row in json.loads((tmp_path / "artifacts" / "index.json").read_text())["rows"]:
        shown = np.array(Image.open(tmp_path / row["pictures"]["noise"])) / 127.5 - 1
        assert abs(shown.mean() - row["score"]) < 0.01


def test_labels_too_long_for_a_file_name_do_not_share_one():
    names = {_safe(f"iip[sscd:{'a/long/path/' * 20}{end}") for end in ("x.pt]@d", "x.pt]@m", "y.pt]@m", "z.pt]")}
    assert len(names) == 4 and all(len(name) <= 80 for name in names)


def test_a_picture_that_cannot_be_made_costs_no_score(tmp_path, caplog):
    class Failing(Looking):
        meta = Looking.meta.model_copy(update={"name": "failing"})
        presets, aliases = {}, {}

        def artifacts(self, batch, target):
            raise ValueError("no ink")

    registry = made()
    registry.attacks["failing"] = Failing
    result = run(registry, options(tmp_path, "failing,looking", artifacts=1))
    assert {row.status for row in result.rows} == {"ok"} and "no ink" in caplog.text
    assert len(list((tmp_path / "artifacts").rglob("*.png"))) == 6


@pytest.mark.parametrize("n", range(9))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_sample_is_shown_twice(n, count):
    chosen = extremes(np.arange(n, dtype=float), count)
    rows = [i for ranked in chosen.values() for i in ranked]
    assert len(rows) == len(set(rows)) == min(n, 3 * count)
    assert chosen["highest"] == list(range(n))[::-1][:count]


def test_a_damaged_encoder_costs_only_the_attacks_that_ask_it(tmp_path):
    class Damaged(Near):
        meta = Near.meta.model_copy(update={"name": "damaged"})

        def load(self, target):
            raise RuntimeError("truncated")

    registry = made()
    registry.encoders["damaged"] = Damaged
    rows = {row.label: row for row in run(registry, options(tmp_path, "looking,looking[damaged]")).rows}
    assert rows["looking[near]"].status == "ok"
    assert rows["looking[damaged]"].status == "failed" and "truncated" in rows["looking[damaged]"].reason


def test_an_encoder_at_the_same_place_with_other_bytes_is_another_measurement(tmp_path):
    file = tmp_path / "weights"

    class Filed(Near):
        meta = Near.meta.model_copy(update={"name": "filed"})

        def files(self):
            return {"weights": file}

    found = []
    for content in (b"some", b"other", b"some"):
        file.write_bytes(content)
        registry = made()
        registry.encoders["filed"] = Filed
        found.append(prepare(registry, options(tmp_path / "run", "looking[filed]")).plan.attacks[0].fingerprint)
    assert found[0] != found[1] and found[0] == found[2]


def test_code_of_the_embedded_encoders_belongs_to_what_they_are():
    for cls in (EmojiLpips, EmojiClip):
        assert "icons.py" in cls().files()


def test_the_same_row_under_two_names_runs_once(tmp_path):
    class Usual(Looking):
        meta = Looking.meta.model_copy(update={"name": "usual"})
        presets, aliases = {}, {}

        class Params(Attack.Params):
            """Parameters.

            Attributes:
                encoder: Which.
            """

            encoder: str = by_kind(pixel="near", latent="near")

    registry = made()
    registry.attacks["usual"] = Usual
    assert labels(run(registry, options(tmp_path, "usual,usual[near]"))) == ["usual[near]"]


def test_presets_with_defaults_by_kind_are_offered_too(tmp_path):
    class Usual(Looking):
        meta = Looking.meta.model_copy(update={"name": "usual"})
        presets, aliases = {"quick": {"samples": 2}}, {}

        class Params(Attack.Params):
            """Parameters.

            Attributes:
                encoder: Which.
            """

            encoder: str = by_kind(pixel="near", latent="near")

    registry = made()
    registry.attacks["usual"] = Usual
    with pytest.raises(UnavailableError) as caught:
        prepare(registry, options(tmp_path, "usual[absent]"))
    assert "runs without: usual@quick" in caught.value.fix


def test_pictures_of_an_earlier_run_do_not_stay(tmp_path):
    run(made(), options(tmp_path, "looking", artifacts=2))
    run(made(), options(tmp_path, "looking", artifacts=1))
    assert len(list((tmp_path / "artifacts").rglob("*.png"))) == 6
    run(made(), options(tmp_path, "looking"))
    assert not (tmp_path / "artifacts").exists()


def test_an_option_that_no_row_reads_is_refused(tmp_path):
    with pytest.raises(UsageError, match="encoder"):
        prepare(made(), options(tmp_path, "looking[near]", options={"looking": {"encoder": "near:3"}}))


def test_options_may_be_given_under_an_alias(tmp_path):
    registry = made()
    Looking.aliases["looking-far"] = "looking[near:9]"
    try:
        plan = prepare(registry, options(tmp_path, "looking-far", options={"looking-far": {"samples": 2}})).plan
    finally:
        del Looking.aliases["looking-far"]
    assert [a.samples for a in plan.attacks if not a.control] == [2]
