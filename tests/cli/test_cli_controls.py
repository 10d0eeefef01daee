"""Confounds planted in a dataset are called out, and `run --controls` says what rests on captions."""

import json

import confounded
import pytest
import tiny

CONFOUNDED = ("-p", confounded.__file__)


@pytest.mark.parametrize(
    ("dataset", "attack", "blind"), [("lower-case", "case", "blind@caption"), ("resaved", "quality", "blind@image")]
)
def test_a_planted_confound_is_called_out_and_turns_the_verdict(tiny_run, cli, tmp_path, dataset, attack, blind):
    done = tiny_run(*CONFOUNDED, "--dataset", dataset, "--json", attacks=f"{attack},knows", limit=60)
    rows = {row["label"]: row for row in json.loads(done.out)["rows"]}
    assert rows[attack]["evaluation"]["auc"]["low"] > 0.9, "it would shine"
    assert rows[blind]["evaluation"]["auc"]["low"] > 0.9
    found = rows[attack]["verdicts"]["auc"]
    assert found["verdict"] == "does not clear blind" and found["adjusted"] >= 0.05
    for form, options in (("text", ()), ("md", ("--format", "md")), ("details", ("--details",))):
        said = cli("report", tmp_path / "run", *options).out
        assert "does not clear blind" in next(line for line in said.splitlines() if line.strip("| ").startswith(attack))
        assert "the split may be what is measured" in said, form


def test_without_the_confound_the_same_size_of_signal_clears(tiny_run):
    done = tiny_run(*CONFOUNDED, "--json", attacks="case,quality,knows", limit=60)
    rows = {row["label"]: row for row in json.loads(done.out)["rows"]}
    assert rows["knows"]["verdicts"]["auc"]["verdict"] == "clears blind"
    assert rows["knows"]["verdicts"]["tpr_at_1"]["verdict"] == "too few samples"
    assert {rows[a]["verdicts"]["auc"]["verdict"] for a in ("case", "quality")} == {"at chance"}
    assert rows["case"]["behind"]["auc"]["against"] == "knows" and rows["case"]["behind"]["auc"]["adjusted"] < 0.05
    assert "auc" not in rows["knows"]["behind"] and rows["blind"]["verdicts"] == {}
    surest = min((rows[a]["behind"]["auc"] for a in ("case", "quality")), key=lambda gap: gap["p_value"])
    assert surest["adjusted"] == pytest.approx(3 * surest["p_value"]), "any of three pairs might have been looked at"


@pytest.fixture
def controlled(tiny_run):
    def call(*more, attacks="case,knows,quality"):
        return tiny_run(*CONFOUNDED, "--dataset", "lower-case", "--controls", *more, attacks=attacks, limit=40)

    return call


def test_controls_say_what_rests_on_captions(controlled, cli, tmp_path):
    done = controlled()
    assert done.status == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())["controls"]
    assert {(c["label"], c["captions"]) for c in found} == {
        (label, choice) for label in ("case", "knows") for choice in ("neutral", "shuffled")
    }, "attacks that read captions, and no others"
    by = {(c["label"], c["captions"]): c for c in found}
    for choice in ("neutral", "shuffled"):
        assert by["case", choice]["auc"]["low"] <= 0.5 <= by["case", choice]["auc"]["high"]
        assert by["case", choice]["lost"]["low"] > 0.2 and by["case", choice]["lost"]["adjusted"] < 0.001
        assert by["knows", choice]["auc"]["low"] > 0.8 and by["knows", choice]["lost"]["value"] == 0
    assert "measuring 80 samples in" in done.err and "with shuffled captions" in done.err
    lines = done.out.splitlines()
    assert next(line for line in lines if line.startswith("case") and "+0" in line).endswith("rests on captions")
    assert done.out.splitlines()[-1] == f"run folder: {tmp_path / 'run'}"
    page = tmp_path / "page.html"
    md = cli("report", tmp_path / "run", "--format", "md", "--html", page).out
    for said in (done.out, md.replace("\\", ""), page.read_text()):
        assert "not seen to rest on captions" in said and "say nothing of membership" in said


def test_controls_are_resumed_and_kept_by_later_commands(controlled, tiny_run, cli, tmp_path):
    first, again = controlled("--json"), controlled("--json")
    assert again.err.count("nothing to measure") == 3 and again.out == first.out
    result = json.loads(first.out)
    assert result["controls"]
    assert json.loads(cli("score", tmp_path / "run", "-p", tiny.__file__, *CONFOUNDED, "--json").out) == result
    assert json.loads(cli("report", tmp_path / "run", "--json").out) == result


@pytest.mark.parametrize(("other", "said"), [(("--seed", "1"), "seed, noise"), (("--target", "tiny:8"), "target")])
def test_controls_of_an_earlier_run_are_not_compared(controlled, tiny_run, cli, tmp_path, other, said):
    controlled(attacks="case,knows")
    tiny_run(*CONFOUNDED, "--dataset", "lower-case", *other, attacks="case,knows", limit=40)
    found = json.loads((tmp_path / "run" / "results.json").read_text())["controls"]
    assert all(c["lost"] is None and f"left by an earlier run, of other {said}" in c["reason"] for c in found) and found
    assert "run again with --controls" in cli("report", tmp_path / "run").out


def test_controls_are_planned_and_counted(controlled, tiny_run, tmp_path):
    text = controlled("--collect-only", attacks="clid,quality").out
    assert "controls: clid again with neutral captions, 1,200 queries more" in text
    plan = json.loads(controlled("--dry-run", "--json", attacks="clid,quality").out)
    assert [(c["captions"], c["queries"]) for c in plan["controls"]] == [("neutral", 1200), ("shuffled", 1200)]
    assert plan["estimate"]["queries"] == 3600 and plan["estimate"]["samples"] == 3 * 80
    assert not (tmp_path / "run").exists()


def test_controls_of_attacks_without_captions_are_none(controlled, tmp_path, caplog):
    done = controlled(attacks="quality")
    assert done.status == 0 and "no attack of the run reads captions" in caplog.text
    assert not (tmp_path / "run" / "controls").exists()


def test_controls_need_the_samples_own_captions(controlled, tmp_path):
    done = controlled("--captions", "neutral")
    assert done.status == 2 and "leave out --captions" in done.err
    assert not (tmp_path / "run").exists()


def test_a_control_that_cannot_run_costs_nothing_else(tiny_run, tmp_path):
    """One caption for all: there is nothing to shuffle."""
    done = tiny_run(*CONFOUNDED, "--dataset", "one-caption", "--controls", attacks="knows", limit=20)
    assert done.status == 0
    assert "shuffled captions: the split audit holds no two captions that differ" in done.out
    found = json.loads((tmp_path / "run" / "results.json").read_text())["controls"]
    assert [c["captions"] for c in found if c["lost"]] == ["neutral"]


def test_the_model_is_loaded_once(tmp_path, monkeypatch):
    loads, load = [], tiny.Tiny.load
    monkeypatch.setattr(tiny.Tiny, "load", lambda self: (loads.append(self), load(self))[1])
    result = tiny.go(tmp_path, attacks="clid,loss", controls=True)
    assert {control.captions for control in result.controls} == {"neutral", "shuffled"} and len(loads) == 1
