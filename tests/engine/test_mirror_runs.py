"""Two runs are compared only if one audits the mirror of what the other does."""

import json
from dataclasses import replace

import pytest
import tiny

from mia_bench.engine.mirror import mirror
from mia_bench.engine.run import rescore
from mia_bench.errors import NothingError, UnavailableError, UsageError

SAMPLES = tiny.icons(12, 12, (2, 2))


def swapped(samples):
    return [replace(s, member=not s.member) for s in samples]


def run(folder, samples=SAMPLES, target="tiny", attacks="loss,pia", **options):
    return tiny.go(folder, tiny.registry(samples=samples), attacks=attacks, target=target, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    ours = run(place / "ours")
    theirs = run(place / "theirs", swapped(SAMPLES), "tiny:8")
    return place / "ours", place / "theirs", ours, theirs


def test_each_attack_is_tested_on_the_audit_images(folders):
    *runs, ours, theirs = folders
    rows = {row.label: row for row in mirror(*runs)}
    assert set(rows) == {"loss", "pia"}, "controls are no attacks"
    for label, row in rows.items():
        assert row.n == 24
        assert row.test.auc == pytest.approx(tiny.row(ours, label).evaluation.auc.value)
        assert row.test.auc_mirror == pytest.approx(tiny.row(theirs, label).evaluation.auc.value)
    plain = sorted(row.test.p_value for row in rows.values())
    assert sorted(row.adjusted for row in rows.values())[0] == min(1, 2 * plain[0]), "Holm over two attacks"


def test_an_attack_that_knows_the_images_fails(tmp_path):
    """One that says the same on both models measures the split."""
    members = {s.id for s in SAMPLES if s.member}

    def score(self, measured, calibration):
        return [float(i in members) + len(i) % 7 / 9 for i in measured.ids]

    made = lambda samples: tiny.registry(tiny.plugin([tiny.attack("same", score=score)]), samples=samples)  # noqa: E731
    tiny.go(tmp_path / "a", made(SAMPLES), attacks="same")
    tiny.go(tmp_path / "b", made(swapped(SAMPLES)), attacks="same", target="tiny:8")
    (row,) = mirror(tmp_path / "a", tmp_path / "b")
    assert not row.passes and row.test.low > 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"samples": SAMPLES}, "is not swapped"),
        ({"samples": swapped([replace(s, caption="other") for s in SAMPLES])}, "image or caption"),
        ({"samples": swapped([replace(s, id=f"{s.id}2") for s in SAMPLES])}, "share no audit image"),
        ({"options": {"loss": {"t": 100}}}, "its parameters differ"),
        ({"seed": 1}, "noise differs"),
        ({"independent_noise": True}, "noise differs"),
        ({"latent": "sample"}, "latent differs"),
        ({"target": "tiny"}, "are one model"),
        ({"attacks": "logged"}, "no attack is scored in both"),
    ],
)
def test_runs_that_are_no_mirrors_are_refused(folders, tmp_path, change, why):
    run(tmp_path, **{"samples": swapped(SAMPLES), "target": "tiny:8", **change})
    with pytest.raises((UsageError, NothingError)) as caught:
        mirror(folders[0], tmp_path)
    assert why in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_a_run_without_scores_says_how_to_get_them(folders, tmp_path, damage):
    run(tmp_path, swapped(SAMPLES), "tiny:8")
    damage(tmp_path / "scores.parquet")
    with pytest.raises(UnavailableError, match="scores cannot be read") as caught:
        mirror(folders[0], tmp_path)
    assert f"mia-bench score {tmp_path}" in caught.value.fix


def test_parameters_are_those_of_the_scores(folders, tmp_path):
    """Scoring again changes the scores and the result, but not the plan."""
    made = tiny.registry(samples=swapped(SAMPLES))
    tiny.go(tmp_path / "ours", tiny.registry(samples=SAMPLES), attacks="clid", target="tiny")
    tiny.go(tmp_path / "theirs", made, attacks="clid", target="tiny:8")
    assert mirror(tmp_path / "ours", tmp_path / "theirs")
    rescore(made, tmp_path / "theirs", {"clid": {"alpha": 0.25}})
    with pytest.raises(UsageError, match="attack clid: its parameters differ"):
        mirror(tmp_path / "ours", tmp_path / "theirs")


def test_an_attack_of_another_version_is_refused(tmp_path):
    for name, samples, target in (("a", SAMPLES, "tiny"), ("b", swapped(SAMPLES), "tiny:8")):
        attack = tiny.attack("mine", meta={"version": ord(name)})
        tiny.go(tmp_path / name, tiny.registry(tiny.plugin([attack]), samples=samples), attacks="mine", target=target)
    with pytest.raises(UsageError, match="attack mine: its definition differs"):
        mirror(tmp_path / "a", tmp_path / "b")


def test_an_unfinished_run_is_refused(folders, tmp_path):
    run(tmp_path, swapped(SAMPLES), "tiny:8")
    content = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**content, "unfinished": "8 of 24 samples are measured"}))
    with pytest.raises(UnavailableError, match="unfinished"):
        mirror(folders[0], tmp_path)


@pytest.mark.parametrize("kept", [(9, 12), (12, 0)])
def test_too_few_images_are_no_test(tmp_path, kept):
    few = [
        s for member, n in zip((True, False), kept, strict=True) for s in [s for s in SAMPLES if s.member == member][:n]
    ]
    run(tmp_path / "a", few)
    run(tmp_path / "b", swapped(few), "tiny:8")
    with pytest.raises(NothingError, match="10 of each needed"):
        mirror(tmp_path / "a", tmp_path / "b")
