"""What a run says of its suspects: verdicts, who is compared with whom, what is too thin."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench.engine.audit import audit
from mia_bench.engine.audited import audited
from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.errors import ExitStatus, NothingError, UsageError
from mia_bench.evidence import Audit
from mia_bench.metrics.conformal import conformal_p
from mia_bench.report.audit import exit_status, show_audit
from mia_bench_plugins.controls import blind

SHIFT = 2.5


def noise(text):
    return np.random.default_rng(zlib.crc32(text.encode())).normal()


def told(name, seen, shift=SHIFT, **body):
    """An attack that scores noise, and more for the samples `seen`."""

    def score(self, measured, calibration):
        return np.array([noise(f"{name} {i}") + shift * (i in seen) for i in measured.ids])

    return tiny.attack(name, score=score, **body)


def ran(folder, samples, *attacks, controls=True, **options):
    """A run, and its registry."""
    modules = [tiny.plugin(attacks), *([blind] if controls else [])]
    made = tiny.registry(*modules, samples=samples)
    names = ",".join(a.meta.name for a in attacks)
    tiny.go(folder, made, attacks=names, batch=64, **options)
    return made


def unknown(samples):
    return {s.id for s in samples if s.member is None}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """30 suspects that were seen beside 120 unseen; `one` and `two` know it, `none` does not."""
    folder = tmp_path_factory.mktemp("run")
    samples = tiny.icons(0, 120, unknown=30)
    seen = unknown(samples)
    made = ran(folder, samples, told("one", seen), told("two", seen), told("none", ()))
    return audit(made, folder, draws=20), made, folder, samples


def test_a_set_that_was_seen_is_evidence(found):
    one = found[0].set
    assert (one.verdict, one.n, one.n_nonmembers, one.straddling) == ("evidence", 30, 120, 0)
    assert one.p_value == 1e-4 and one.auc.low > 0.9 and one.blind.low > 0 and not one.unchecked
    assert {c.label for c in one.controls} == {"blind", "blind@image", "blind@caption", "blind@encoder"}
    assert one.weights["none"] < 0.2 and sum(one.weights.values()) == pytest.approx(1)
    assert [(d.n, d.rejected) for d in one.power] == [(10, 20)]
    assert [d.n for d in one.false_positives] == [10, 30] and all(d.rejected <= 5 for d in one.false_positives)


def test_each_image_has_its_place_among_the_unseen(found):
    audited_, _, folder, samples = found
    scores = tiny.scores(folder)
    known = [s.id for s in samples if s.member is False]
    assert {i.sample for i in audited_.images} == unknown(samples)
    for image in audited_.images:
        for label, reading in image.readings.items():
            assert reading.score == scores[label, image.sample]
            p = conformal_p([reading.score], [scores[label, i] for i in known])[0]
            assert reading.p_value == pytest.approx(p) and reading.n_nonmembers == 120
        assert image.p_value == min(r.holm for r in image.readings.values())
        assert image.p_value >= min(r.p_value for r in image.readings.values())
        assert (image.verdict == "stands out") == (image.p_value <= 0.05)
    assert [i.p_value for i in audited_.images] == sorted(i.p_value for i in audited_.images)
    assert sum(i.verdict == "stands out" for i in audited_.images) > 10
    assert sum(audited_.usual["one"].counts) == 120


def test_the_record_is_read_back(found):
    assert Audit.model_validate_json(found[0].model_dump_json()) == found[0]
    assert exit_status(found[0]) == ExitStatus.OK


def test_one_attack_chosen_beforehand_pays_for_no_other(found):
    _, made, folder, _ = found
    alone = audit(made, folder, attacks="one", draws=0)
    assert alone.attacks == ("one",) and set(alone.set.weights) == {"one"} and alone.needed == 19
    for image in alone.images:
        (reading,) = image.readings.values()
        assert reading.holm == reading.p_value
    assert alone.set.power == alone.set.false_positives == ()
    with pytest.raises(UsageError, match="no scores of it on both"):
        audit(made, folder, attacks="loss", draws=0)


def test_unseen_suspects_are_no_evidence(tmp_path):
    samples = tiny.icons(0, 80, unknown=30)
    made = ran(tmp_path, samples, told("one", ()), controls=False)
    found = audit(made, tmp_path, draws=0)
    assert found.set.verdict == "none" and found.set.p_value > 0.05 and 0.5 < found.set.detectable_auc < 0.75


def test_what_blind_finds_as_well_is_of_the_split(tmp_path, capsys):
    """Captions of the suspects are in capitals, and the attack reads nothing else."""
    samples = [
        replace(s, caption=(s.caption or "").upper()) if s.member is None else s for s in tiny.icons(0, 60, unknown=40)
    ]
    made = ran(tmp_path, samples, told("one", unknown(samples), shift=1.2))
    found = audit(made, tmp_path, draws=0)
    assert found.set.p_value <= 0.05 and found.set.verdict == "split"
    assert max(c.auc.value for c in found.set.controls) > 0.95 and found.set.blind.value < 0
    show_audit(found, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "never asks the model also tells them" in said and "cannot be told from how the images were chosen" in said
    assert "Evidence that the model was trained" not in said


def test_without_blind_it_is_said_that_nothing_was_checked(tmp_path, capsys):
    samples = tiny.icons(0, 60, unknown=5)
    made = ran(tmp_path, samples, told("one", unknown(samples), shift=9))
    found = audit(made, tmp_path, draws=0)
    assert found.set.verdict == "unchecked" and "10 needed" in found.set.unchecked
    show_audit(found, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "Evidence that the model" in said and "Not shown: that their choice plays no part" in said


def test_few_images_leave_it_open_whether_their_choice_plays_a_part(tmp_path, capsys):
    """Not to be shown better than a control that finds nothing is no explanation by the choice of images."""
    samples = tiny.icons(0, 25, unknown=12)
    made = ran(tmp_path, samples, told("one", unknown(samples), shift=0.7))
    found = audit(made, tmp_path, draws=0)
    assert found.set.p_value <= 0.05 <= found.set.blind.p_value
    assert not any(c.finds for c in found.set.controls) and found.set.verdict == "unresolved"
    show_audit(found, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "Evidence that the model was trained on them" in said and "too few to show that their choice" in said
    assert f"{100 * found.set.blind.value:+.0f} points" in said and "Warning" not in said


@pytest.mark.parametrize(("shift", "verdict"), [(0, "none"), (9, "evidence")])
def test_unseen_images_of_another_kind_are_warned_of(tmp_path, capsys, shift, verdict):
    samples = tiny.icons(0, 100)
    suspects = [samples[i] for i in np.random.default_rng(0).permutation(100)[:40]]
    upper = {s.id for s in suspects[::2]}
    samples = [
        replace(s, member=None, caption=(s.caption or "").upper() if s.id in upper else s.caption)
        if s in suspects
        else s
        for s in samples
    ]
    made = ran(tmp_path, samples, told("one", unknown(samples), shift=shift))
    found = audit(made, tmp_path, draws=0)
    assert found.set.verdict == verdict and found.set.best_finding.label.startswith("blind")
    show_audit(found, False)
    said = " ".join(capsys.readouterr().out.split())
    assert "Warning: the unseen images are not like those in question" in said
    assert ("neither this answer nor another" in said) == (verdict == "none")


def test_one_image_and_too_few_unseen(tmp_path, capsys):
    samples = tiny.icons(0, 18, unknown=1)
    seen = unknown(samples)
    made = ran(tmp_path, samples, told("one", seen, shift=99), controls=False)
    found = audit(made, tmp_path, draws=0)
    assert found.set.verdict == found.images[0].verdict == "thin"
    assert found.set.needed == found.needed == 19 and found.set.p_value == found.images[0].p_value
    assert exit_status(found) == ExitStatus.NOTHING
    show_audit(found, False)
    assert " ".join(capsys.readouterr().out.split()).count("Too thin") == 2
    enough = audit(made, tmp_path, alpha=0.06, draws=0)
    assert enough.images[0].verdict == "stands out" and enough.set.verdict == "unchecked"


def test_labelled_members_are_the_suspects_where_nothing_is_unknown(tmp_path):
    samples = tiny.icons(30, 60)
    made = ran(tmp_path, samples, told("one", {s.id for s in samples if s.member}), controls=False)
    found = audit(made, tmp_path, draws=10)
    assert found.suspects == "members" and found.n_suspects == 30 and found.set.verdict == "unchecked"
    assert found.set.power_of == "suspects"


def test_known_members_beside_suspects_give_the_power(tmp_path):
    samples = tiny.icons(30, 60, unknown=12)
    made = ran(tmp_path, samples, told("one", {s.id for s in samples if s.member}), controls=False)
    found = audit(made, tmp_path, draws=20)
    assert (found.suspects, found.n_suspects, found.set.power_of) == ("unknown", 12, "known members")
    assert found.set.verdict == "none" and found.set.power[0].rejected >= 18


def test_calibration_non_members_stand_in_for_attacks_that_are_not_fitted(tmp_path):
    samples = tiny.icons(0, 0, (20, 60), unknown=20)
    fitted = told("fitted", unknown(samples), meta={"calibration": "optional"})
    made = ran(tmp_path, samples, told("one", unknown(samples)), fitted, controls=False)
    found = audit(made, tmp_path, draws=0)
    assert (found.nonmembers, found.n_nonmembers, found.attacks) == ("calibration", 60, ("one",))
    assert found.set.verdict == "unchecked"


def test_near_duplicates_on_both_sides_are_left_out_and_count_once_on_one(tmp_path):
    samples = tiny.icons(0, 60, unknown=20)
    groups = {s.id: "both" for s in [samples[0], samples[60]]} | {s.id: "same" for s in samples[61:66]}
    samples = [replace(s, group=groups.get(s.id, "")) for s in samples]
    made = ran(tmp_path, samples, told("one", unknown(samples)), controls=False)
    found = audit(made, tmp_path, draws=0)
    assert (found.set.n, found.set.n_nonmembers, found.set.straddling) == (20 - 1 - 4, 59, 2)
    near = next(i for i in found.images if i.sample == samples[60].id)
    assert near.readings["one"].n_nonmembers == 59


def test_an_attack_that_scored_few_has_no_part_in_the_set(tmp_path):
    samples = tiny.icons(0, 60, unknown=20)
    made = ran(
        tmp_path,
        samples,
        told("one", unknown(samples)),
        told("some", unknown(samples)),
        controls=False,
        options={"some": {"samples": 10}},
    )
    found = audit(made, tmp_path, draws=0)
    assert set(found.set.weights) == {"one"} and found.set.n == 20
    assert "it scored 10 suspects and 10 non-members" in found.set.left_out["some"]
    assert sum("some" in image.readings for image in found.images) == 10


@pytest.mark.parametrize(
    ("kinds", "why"),
    [({"members": 20, "others": 0}, "no image is known to be unseen"), ({"members": 0, "others": 20}, "no suspects")],
)
def test_what_cannot_be_audited(tmp_path, kinds, why):
    made = ran(tmp_path, tiny.icons(**kinds), told("one", ()), controls=False)
    with pytest.raises(NothingError, match=why) as caught:
        audit(made, tmp_path)
    assert caught.value.fix


def test_scoring_parameters_are_those_given(tmp_path):
    made = tiny.registry(samples=tiny.icons(0, 40, unknown=10))
    tiny.go(tmp_path, made, attacks="logged")
    plain = audit(made, tmp_path, draws=0)
    doubled = audit(made, tmp_path, {"logged": {"scale": 2.0}}, draws=0)
    before, after = ({i.sample: i.readings["logged"].score for i in one.images} for one in (plain, doubled))
    assert after == {sample: 2 * score for sample, score in before.items()}


def test_suspects_of_another_dataset_stand_beside_the_unseen_of_one():
    icons = tiny.icons(3, 6, (2, 2), unknown=1)
    made = tiny.registry(samples=icons)
    made.datasets["others"] = tiny.dataset([replace(s, member=True) for s in icons[:4]], targets=())
    made.datasets["bare"] = tiny.dataset([replace(s, member=None) for s in icons[5:9]], targets=("tiny",))

    def samples(*names):
        spec = audited(made, *names)
        prepared = prepare(made, RunOptions(attacks="loss", dataset=spec, target="tiny"))
        assert prepared.plan.dataset == spec and prepared.plan.target == "tiny"
        return {s.id: (s.split, s.member) for s in prepared.samples.values()}, prepared

    mixed, prepared = samples("given", None, "others")
    assert prepared.plan.dataset == "audit:others beside given"
    assert {i: kind for i, kind in mixed.items() if i.startswith("suspects/")} == {
        f"suspects/{s.id}": ("audit", None) for s in icons[:4]
    }
    known = {s.id: ("audit", False) for s in icons[3:9]}
    assert {i: kind for i, kind in mixed.items() if kind[0] == "audit" and i in known} == known
    assert sum(kind[0] == "calibration" for kind in mixed.values()) == 4
    groups = dict(zip(prepared.plan.samples.id, prepared.plan.samples.group, strict=True))
    assert groups[f"suspects/{icons[3].id}"] == groups[icons[3].id], "one image on both sides"

    word, _ = samples("bare", None, "others")
    assert {kind for i, kind in word.items() if not i.startswith("suspects/")} == {("audit", False)}
    own, _ = samples("given", "tiny", None)
    assert own == {s.id: (s.split, s.member) for s in icons}
    with pytest.raises(NothingError, match="no suspects"):
        made.datasets["unseen"] = tiny.dataset([replace(s, member=False) for s in icons])
        samples("unseen", None, None)
    with pytest.raises(NothingError, match="no image is known to be unseen"):
        samples("others", "tiny", None)


def test_pictures_are_of_the_suspects_and_stand_beside_their_scores(tmp_path, capsys):
    samples = tiny.icons(0, 30, unknown=6)

    class Painting(tiny.Logged):
        meta = tiny.Logged.meta.model_copy(update={"name": "painting"})

        def artifacts(self, batch, target):
            return {"image": batch.pixels}

    made = ran(tmp_path, samples, Painting, controls=False, artifacts=1, artifacts_of="suspects")
    found = audit(made, tmp_path, draws=0)
    drawn = {image.sample: image.pictures for image in found.images if image.pictures}
    assert len(drawn) == 3 and drawn.keys() < unknown(samples)
    top = max(found.images, key=lambda i: i.readings["painting"].score)
    assert (tmp_path / drawn[top.sample]["painting"]["image"]).is_file()
    show_audit(found, False)
    assert f"painting, image: {tmp_path}/artifacts/painting/highest-1/image.png" in capsys.readouterr().out
