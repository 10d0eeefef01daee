"""Rows that combine others: planned after them, and never in a circle."""

from dataclasses import replace

import pytest
import tiny

from mia_bench.engine.label import Label
from mia_bench.engine.plan import behind, read_plan
from mia_bench.engine.requires import ordered
from mia_bench.engine.run import rescore, rescore_tasks
from mia_bench.errors import UsageError
from mia_bench.store import Store
from mia_bench_plugins.attacks import ensemble, pian
from mia_bench_plugins.controls import blind

SAMPLES = tiny.icons(12, 12, (8, 8))


def made(*modules):
    return tiny.registry(pian, ensemble, *modules, samples=SAMPLES)


def order(graph, *chosen):
    found = ordered(map(Label, chosen), lambda label: [Label(name) for name in graph.get(label.name, "")])
    return "".join(map(str, found))


def test_what_is_required_comes_first():
    assert order({}, *"cab") == "cab", "else as chosen"
    assert order({"a": "cd", "d": "b"}, *"ab") == "cbda"
    assert order({"a": "b"}, "a") == "ba"
    with pytest.raises(UsageError, match="it requires itself: "):
        order({"a": "b", "b": "c", "c": "a"}, "a")


def test_identity_is_that_of_what_is_combined(tmp_path):
    def planned(name, **options):
        tiny.go(tmp_path / name, made(), "ensemble", **options)
        return {a.label: a for a in read_plan(Store(tmp_path / name)).attacks}

    plain = planned("plain")
    assert [*plain][-1] == "ensemble" and plain["ensemble"].requires == ("loss", "pia", "pian")
    assert plain["ensemble"].queries == 5
    assert set(behind(plain["ensemble"], [*plain.values()])) == {plain[n].fingerprint for n in ("loss", "pia", "pian")}
    seed, other_t = planned("seed", seed=1), planned("t", options={"loss": {"t": 300}})
    same = [(one["ensemble"].fingerprint, one["ensemble"].definition) for one in (plain, seed, other_t)]
    assert len({f for f, _ in same}) == 3 and same[0][1] == same[1][1] != same[2][1]


def test_scoring_of_what_is_combined_is_part_of_the_definition(tmp_path):
    def definition(name, scale):
        options = {"logged": {"scale": scale}, "ensemble": {"of": ["logged", "loss"]}}
        tiny.go(tmp_path / name, made(), "ensemble", options=options)
        return read_plan(Store(tmp_path / name)).attacks[-1].definition

    assert definition("one", 1.0) != definition("two", 3.0)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (["nope", "loss"], "attack ensemble requires nope: unknown attack 'nope'"),
        (["loss@nope", "pia"], "attack ensemble requires loss@nope: unknown preset"),
        (["ensemble", "loss"], "it requires itself: ensemble requires ensemble"),
        (["blind", "loss"], "it requires blind, a control, which may see the labels"),
    ],
)
def test_what_cannot_be_combined(tmp_path, of, why):
    with pytest.raises(UsageError) as caught:
        tiny.go(tmp_path, made(blind), "ensemble", options={"ensemble": {"of": of}})
    assert why in str(caught.value) and caught.value.fix


def test_options_reach_what_is_required(tmp_path):
    result = tiny.go(tmp_path, made(), "ensemble", options={"pia": {"t": 300}})
    assert tiny.row(result, "pia").params["t"] == 300


def test_what_is_combined_can_be_changed_when_scoring(tmp_path):
    tiny.go(tmp_path / "run", made(), "ensemble,clid")
    result = rescore(made(), tmp_path / "run", {"ensemble": {"of": ["clid", "pia"]}})
    row = tiny.row(result, "ensemble")
    assert row.fitted.keys() == {"clid", "pia"} and row.changed == ("of",) and row.queries == 17
    straight = tiny.go(tmp_path / "straight", made(), "ensemble,clid", options={"ensemble": {"of": ["clid", "pia"]}})
    other_rows = {"verdicts": row.verdicts, "behind": row.behind}  # that run has other rows to adjust for
    assert row == tiny.row(straight, "ensemble").model_copy(update={"seconds": row.seconds, **other_rows})
    with pytest.raises(UsageError, match="it requires logged, which the run did not measure"):
        rescore(made(), tmp_path / "run", {"ensemble": {"of": ["logged", "pia"]}})


def test_it_is_calibrated_on_another_run(tmp_path):
    named = [replace(s, id=f"other-{s.id}", caption="other", group=f"other-{s.group or s.id}") for s in SAMPLES]
    tiny.go(tmp_path / "shadow", tiny.registry(pian, ensemble, samples=named), "loss,pia,pian", target="tiny:8")
    result = tiny.go(tmp_path / "run", made(), "ensemble", calibrate_on=tmp_path / "shadow")
    row = tiny.row(result, "ensemble")
    assert row.status == "ok" and row.n == 24
    assert (row.calibration.source, row.calibration.n_members, row.calibration.n_nonmembers) == (
        "shadow",
        8,
        8,
    ), "the images that this run audits are known again under other names"
    assert row.evaluation.asr_calibrated.value is not None
    own = tiny.row(rescore_own(tmp_path / "run"), "ensemble")
    assert own.calibration.source == "own" and own.fitted != row.fitted


def rescore_own(folder):
    return rescore_tasks(made(), folder, {}, calibrate_on=folder)[0]
