"""An audit's words."""

import pytest

from mia_bench.evidence import Audit, ImageEvidence, Reading, Usual
from mia_bench.report.audit import chance, percent, show_audit, strip


@pytest.mark.parametrize(
    ("p", "said"), [(0.0001, "1 in 10,000"), (0.0164, "1 in 60"), (0.05, "1 in 20"), (0.2, "21 %"), (1.0, "100 %")]
)
def test_a_chance_is_never_said_smaller_than_it_is(p, said):
    assert chance(p) == said
    value = 1 / float(said[5:].replace(",", "")) if said.startswith("1 in") else float(said[:-2]) / 100
    assert value >= p


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0001, "0.010 %"),
        (1 / 31, "3.3 %"),
        (0.05, "5.0 %"),
        (0.0999, "10.0 %"),
        (0.2, "20 %"),
        (0.201, "21 %"),
        (1, "100 %"),
    ],
)
def test_a_column_has_chances_of_one_form(p, said):
    assert percent(p) == said and float(said[:-2]) / 100 >= p - 1e-9


@pytest.mark.parametrize(
    ("score", "drawn"),
    [(-9.0, "◆ ▄█"), (0.0, "◆ ▄█"), (1.5, " ◆▄█"), (3.0, " ▄◆█"), (9.0, " ▄█◆")],
)
def test_a_score_is_drawn_among_the_usual_ones(score, drawn):
    assert strip(Usual(low=0, high=3, counts=(0, 2, 4)), score) == drawn


@pytest.mark.parametrize(("score", "drawn"), [(5.0, "◆█ "), (6.0, "█ ◆"), (4.0, "◆█ ")])
def test_where_all_usual_scores_are_equal(score, drawn):
    assert strip(Usual(low=5, high=5, counts=(7, 0)), score) == drawn


def test_names_of_strangers_are_shown_and_do_nothing(capsys):
    reading = Reading(score=1, percentile=1, p_value=0.01, holm=0.01, n_nonmembers=99)
    image = ImageEvidence(
        sample="a\x1b[2Jb\u202e",
        verdict="stands out",
        p_value=0.01,
        over_all=0.01,
        readings={"loss": reading},
        pictures={"loss": {"pic\x07ture": "artifacts/x.png"}},
    )
    found = Audit(
        dataset="audit:x\x1b[1m",
        target="t",
        target_fingerprint="",
        seed=0,
        samples_hash="",
        folder="runs/x",
        suspects="unknown",
        n_suspects=1,
        n_nonmembers=99,
        left_out=0,
        nonmembers="audit",
        alpha=0.05,
        attacks=("loss",),
        without={"pia": "why\x1b[0m", "mc": "why\x1b[0m"},
        failed=False,
        usual={"loss": Usual(low=0, high=1, counts=(1, 1))},
        needed=19,
        set=None,
        images=(image,),
    )
    show_audit(found, False)
    said = capsys.readouterr().out
    assert not any(c in said for c in "\x1b\u202e\x07")
    assert "1 in 100 cases at most" in " ".join(said.split()) and "runs/x/artifacts/x.png" in said
    assert "no scores of pia, mc: why" in said, "one reason is said once"
