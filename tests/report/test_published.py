"""What papers print stands beside a run's rows, with where it is from and what is known of it, and never among them."""

import json

import pytest
import tiny

from mia_bench.engine.label import Label
from mia_bench.plugins import Registry
from mia_bench.report.published import METRICS, everything, notes, published, show_published


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    made = tiny.registry(samples=tiny.icons(6, 6))
    return tiny.go(tmp_path_factory.mktemp("run"), made, attacks="loss,pia,logged")


def of(result, **changes):
    """The row of loss beside what is published, were the run of another dataset or target."""
    return {one.row.label: one for one in published(result.model_copy(update=changes))}


def test_what_is_known_is_whole():
    registry = Registry.load()
    assert len(everything()) > 300
    keys = set()
    for p in everything():
        label = Label.parse(p.label)
        assert label.preset in {"", *registry.attacks[label.name].presets}, p
        assert p.source and p.table and p.model and p.samples and p.attack and p.kind in ("pixel", "latent")
        assert p.setting in ("", "real-world", "over-training", "pretraining")
        assert any(p.values.values()), p
        assert all(0 <= float(value) <= 100 for value in p.values.values() if value)
        keys.add((p.source, p.table, p.model, p.setting, p.samples, p.attack, p.queries, p.notes))
    assert len(keys) == len(everything()), "no line twice"


def test_numbers_are_as_printed():
    found = [
        p
        for p in everything()
        if p.source.startswith("CLiD (") and p.table == "Table 1" and p.samples == "MS-COCO" and p.label == "loss"
    ]
    assert [p.values for p in found] == [{"auc": "89.98", "tpr_at_1": "32.28", "tpr_at_01": "", "asr": "81.92"}]
    assert any("hold-out class as positive" in remark for remark in found[0].remarks)


def test_the_nearest_setting_is_that_of_the_same_training_then_dataset_then_kind(result):
    tuned = of(result, target="emoji-realworld")["loss"]
    assert tuned.same == ("training", "kind") and {p.setting for p in tuned.printed} == {"real-world"}
    laion = of(result, dataset="laion-mi", target="sd-v1-4")["loss"]
    assert laion.same == ("training", "dataset", "kind")
    assert all("LAION-mi" in p.samples for p in laion.printed) and laion.printed[0].model == "SD v1-4"
    assert {p.model for p in laion.printed} > {"SD v1-4"}
    cifar = of(result, dataset="cifar10:folder", target="ddpm:x", target_kind="pixel")["pia"]
    assert cifar.same == ("dataset", "kind") and {p.dataset for p in cifar.printed} == {"cifar10"}
    clid = of(result, dataset="clid-flickr:x", target="mine")["pia"]
    assert {p.dataset for p in clid.printed} == {"flickr"}
    copymark = of(result, dataset="copymark:x,setup=hakubooru", target="mine")["pia"]
    assert {p.dataset for p in copymark.printed} == {"hakubooru"}


def test_a_preset_has_its_own_numbers_where_a_source_has_them(result):
    row = tiny.row(result, "loss")
    rows = tuple(row.model_copy(update={"label": label}) for label in ("clid@null", "clid", "gsa@gsa2", "gsa@quick"))
    found = of(result, rows=rows, target="emoji-realworld")
    assert {p.attack for p in found["clid@null"].printed} == {"CLiD_th null text only (K=1)"}
    assert "CLiD_th null text only (K=1)" not in {p.attack for p in found["clid"].printed}
    assert {p.attack for p in found["gsa@gsa2"].printed} == {"GSA2"}
    assert {p.attack for p in found["gsa@quick"].printed} == {"GSA1"}


def test_a_blind_number_is_of_its_dataset_alone(result):
    row = tiny.row(result, "loss").model_copy(update={"label": "blind@image", "control": True})
    assert "blind@image" not in of(result, rows=(row,), target="emoji-realworld")
    assert "blind@image" in of(result, rows=(row,), dataset="laion-mi")


def test_every_form_names_source_and_our_row(result, capsys):
    shown = {}
    for form in ("text", "md", "csv", "json"):
        show_published(result.model_copy(update={"target": "emoji-realworld"}), form)
        shown[form] = capsys.readouterr().out
    for form in ("text", "md", "csv"):
        assert "Zhai et al., NeurIPS 2024" in shown[form].replace("\\", "") and "61.89" in shown[form]
    auc = tiny.row(result, "loss").evaluation.auc
    assert f"{100 * auc.value:.1f} [{100 * auc.low:.1f}" in shown["text"]
    assert "no published number known here of logged" in shown["text"]
    known = {r for p in everything() for r in p.remarks}
    remarks = dict(line.split("  ", 1) for line in shown["text"].splitlines() if line[:1].strip() and line[1:3] == "  ")
    assert remarks and set(remarks.values()) <= known
    line = next(line for line in shown["text"].splitlines() if "61.89" in line)
    said = [remarks[letter] for letter in line.rsplit("  ", 1)[1].split()]
    assert any("shadow model" in one for one in said) and any("hold-out class" in one for one in said)
    records = json.loads(shown["json"])
    assert {r["label"] for r in records} == {"loss", "pia"}
    assert all({"source", "table", "queries", "notes"} <= p.keys() for r in records for p in r["published"])
    assert all(set(p["values"]) == set(METRICS) for r in records for p in r["published"])


def test_other_tasks_have_no_published_numbers(result):
    task = result.task.model_copy(update={"positives": "memorised"})
    other = result.model_copy(update={"task": task})
    assert published(other) == [] and "membership" in notes([], other)[0]
