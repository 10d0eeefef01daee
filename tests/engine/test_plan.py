"""What a run will do, and what makes a measurement the same measurement."""

import importlib
import json
import linecache
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from mia_bench import Attack
from mia_bench.attack import source_of
from mia_bench.engine.named import open_target
from mia_bench.engine.prepare import RunOptions, default_folder, prepare
from mia_bench.engine.samples import take
from mia_bench.errors import BrokenPluginError, NothingError, UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.target import TargetOptions
from mia_bench_plugins.attacks import loss


def plan(made=None, attacks="loss,pia,clid", **options):
    return prepare(made or tiny.registry(), RunOptions(attacks=attacks, **{"dataset": "given", **options})).plan


def identities(**options):
    return {a.label: a.fingerprint for a in plan(**options).attacks}


# Samples --------------------------------------------------------------------------------------------------------


def test_order_is_that_of_the_ids_hash_whatever_the_files():
    samples = tiny.icons(20, 20)
    assert take(samples, None) == take(samples[::-1], None) == sorted(samples, key=lambda s: s.order)


@pytest.mark.parametrize(("small", "large"), [(1, 2), (5, 10), (10, 20), (20, None)])
def test_limits_count_per_class_and_nest(small, large):
    samples = tiny.icons(20, 30, (15, 25), unknown=12)
    few, more = take(samples, small), take(samples, large)
    assert {s.id for s in few} < {s.id for s in more}
    counts = {}
    for s in few:
        counts[s.split, s.member] = counts.get((s.split, s.member), 0) + 1
    assert set(counts.values()) == {small} or small == 20
    assert [s for s in more if s in few] == few, "the order is kept"


def test_an_id_that_occurs_twice_is_named():
    samples = tiny.icons(3, 3)
    with pytest.raises(UnavailableError, match=f"{samples[0].id!r}: the id occurs twice"):
        plan(tiny.registry(samples=[*samples, replace(samples[0], caption="other")]))


def test_a_calibration_split_without_both_classes_is_not_measured():
    for calibration, said in (((0, 5), "no members"), ((5, 0), "no non-members"), ((0, 0), "no labelled calibration")):
        made = plan(tiny.registry(samples=tiny.icons(4, 4, calibration)))
        assert len(made.samples.id) == 8
        assert said in made.calibration
    made = plan(tiny.registry(samples=tiny.icons(4, 4, (3, 3))))
    assert len(made.samples.id) == 14
    assert made.calibration is None


def test_no_audit_sample_is_nothing_to_run():
    with pytest.raises(NothingError, match="no audit sample"):
        plan(tiny.registry(samples=tiny.icons(0, 0, (3, 3))))


# Attacks --------------------------------------------------------------------------------------------------------


def test_what_the_target_lacks_skips_an_attack_unless_it_was_named():
    skipped = plan(attacks="all", target="tiny-mute")
    assert {s.label: s.reason for s in skipped.skipped} == {"clid": "target tiny-mute takes no captions"}
    assert [a.label for a in skipped.attacks] == ["logged", "loss", "pia"]
    with pytest.raises(UsageError, match="takes no captions"):
        plan(attacks="clid", target="tiny-mute")


def test_without_captions_clid_is_skipped_unless_it_was_named():
    made = tiny.registry(samples=tiny.icons(4, 4, caption=None))
    assert {s.label: s.reason for s in plan(made, "all").skipped} == {"clid": "it needs captions and no sample has one"}
    with pytest.raises(UsageError, match="it needs captions") as caught:
        plan(made, "clid,loss")
    assert "leave clid out" in caught.value.fix
    with pytest.raises(NothingError, match="it needs captions"):
        plan(made, "cl*")


@pytest.mark.parametrize(("attacks", "keyword"), [("", None), ("all", "nothing-like-it")])
def test_an_empty_selection(attacks, keyword):
    with pytest.raises(NothingError, match="no attack is left"):
        plan(attacks=attacks, keyword=keyword)


def test_defaults_by_kind_are_resolved_and_recorded():
    assert {a.label: a.params.get("t") for a in plan().attacks} == {"loss": 450, "pia": 500, "clid": [440, 450, 460]}


# Identity -------------------------------------------------------------------------------------------------------


def test_identity_is_stable():
    assert identities() == identities()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"dtype": "float16"},
        {"latent": "sample"},
        {"target": "tiny:8"},
        {"independent_noise": True},
    ],
    ids=str,
)
def test_what_changes_every_measurement(change):
    before, after = identities(), identities(**change)
    assert all(before[label] != after[label] for label in before)


@pytest.mark.parametrize(
    "change",
    [{"rows": 2}, {"threads": 2}, {"batch": 7}, {"share": False}, {"limit": 2}, {"device": "cpu"}, {"fail_fast": True}],
    ids=str,
)
def test_what_changes_no_measurement(change):
    assert identities() == identities(**change)


def test_parameters_that_only_scoring_reads_change_nothing():
    assert identities(options={"clid": {"alpha": 0.5}}) == identities()
    before, after = identities(), identities(options={"loss": {"t": 449}})
    assert [label for label in before if before[label] != after[label]] == ["loss"]


def test_the_resolved_default_and_the_same_value_given_are_one():
    assert identities(options={"loss": {"t": 450}}) == identities()


def test_presets_that_share_a_measurement_share_its_identity():
    found = identities(attacks="logged,logged@double,pia,pia@t400")
    assert found["logged"] == found["logged@double"]
    assert found["pia"] != found["pia@t400"]


def test_name_and_version_are_part_of_it():
    made = tiny.registry(tiny.plugin([tiny.attack("a"), tiny.attack("b"), tiny.attack("c", meta={"version": 2})]))
    found = identities(made=made, attacks="a,b,c,logged")
    assert len(set(found.values())) == 4


def test_an_edited_file_is_another_attack_wherever_it_lies(tmp_path):
    text = Path(loss.__file__).read_text().replace('name="loss"', 'name="mine"')
    found = {}
    for folder, content in {"a": text, "b": text, "c": text + "\n# edited\n"}.items():
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(content)
        found[folder] = prepare(Registry.load([path]), RunOptions(attacks="mine", limit=1)).plan.attacks[0].fingerprint
    assert found["a"] == found["b"] != found["c"]


def test_a_changed_image_or_caption_is_another_sample():
    sample = tiny.icons(1, 0)[0]
    others = [
        replace(sample, caption="other"),
        replace(sample, content="0" * 64),
        replace(sample, word_weights=(1.0,)),
    ]
    assert len({s.digest for s in (sample, *others)}) == 4
    assert replace(sample, member=None, group="g", split="calibration").digest == sample.digest


# Targets and folders --------------------------------------------------------------------------------------------


def test_a_dataset_without_a_target_asks_for_one():
    made = tiny.registry()
    made.datasets["given"] = tiny.dataset(tiny.icons(2, 2), targets=())
    with pytest.raises(UsageError, match="names no target") as caught:
        plan(made)
    assert "--target" in caught.value.fix
    assert plan(made, target="tiny").target == "tiny"


def test_targets_that_are_not_there(tmp_path):
    made = tiny.registry()
    with pytest.raises(UsageError, match="did you mean tiny"):
        open_target(made, "tinny")
    with pytest.raises(UnavailableError, match="no such folder"):
        open_target(made, "./nowhere")
    with pytest.raises(UnavailableError, match=r"model_index\.json"):
        open_target(made, str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "UnheardOfPipeline"}))
    with pytest.raises(UsageError, match="no plugin loads a UnheardOfPipeline"):
        open_target(made, str(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "target", "name"),
    [
        ("fluent-emoji", "emoji-realworld", "fluent-emoji--emoji-realworld--seed0"),
        ("folder:/data/my photos", "./sd/../x", "folder__data_my_photos--sd_.._x--seed0"),
    ],
)
def test_the_default_folder_lies_below_runs(dataset, target, name):
    folder = default_folder(dataset, target, RunOptions())
    assert folder.parts == ("runs", name)


def test_another_model_or_other_captions_have_a_folder_of_their_own():
    options = [RunOptions(target_options=TargetOptions(revision=r)) for r in (None, "a", "b")]
    options += [RunOptions(captions="null"), RunOptions(captions="neutral:a/b")]
    folders = [default_folder("d", "t", one) for one in options]
    assert len(set(folders)) == 5 and all(len(folder.parts) == 2 for folder in folders)


def test_planning_loads_no_model():
    code = (
        "import sys; from mia_bench.plugins import Registry; from mia_bench.engine.prepare import RunOptions, prepare;"
        "prepare(Registry.load(), RunOptions());"
        "print(sys.modules.keys() & {'torch', 'diffusers', 'transformers', 'sklearn', 'scipy', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Identity covers all that makes a number ----------------------------------------------------------------------------


def write_attack(folder, body):
    (folder / "base.py").write_text(body)
    (folder / "leaf.py").write_text("from base import Base\n\n\nclass Leaf(Base):\n    pass\n")


def fresh(folder, monkeypatch):
    """The class in `leaf.py`, whose base is in another module, as a new process would import it."""
    monkeypatch.syspath_prepend(folder)
    for name in ("base", "leaf"):
        sys.modules.pop(name, None)
    linecache.clearcache()
    importlib.invalidate_caches()
    return importlib.import_module("leaf").Leaf


def test_a_changed_base_class_changes_the_identity(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_attack(tmp_path, "from tiny import Logged\n\n\nclass Base(Logged):\n    x = 1\n")
    before = source_of(fresh(tmp_path, monkeypatch), (Attack,))
    assert source_of(fresh(tmp_path, monkeypatch), (Attack,)) == before
    write_attack(tmp_path, "from tiny import Logged\n\n\nclass Base(Logged):\n    x = 2\n")
    assert source_of(fresh(tmp_path, monkeypatch), (Attack,)) != before


def test_a_class_without_source_is_refused():
    made = {}
    exec("class Made: pass", {"__name__": "nowhere"}, made)
    with pytest.raises(BrokenPluginError, match="no source"):
        source_of(made["Made"], ())


def test_the_targets_code_is_part_of_the_identity():
    made = tiny.registry()
    before = [a.fingerprint for a in plan(made).attacks]

    class Changed(made.targets["tiny"]):
        """Defined in this file, so its source differs."""

    made.targets["tiny"] = Changed
    assert all(a.fingerprint != b for a, b in zip(plan(made).attacks, before, strict=True))


# Which dataset belongs to which target -----------------------------------------------------------------------------


@pytest.fixture
def owners():
    """Two datasets that label a target each, and one that labels none."""
    made = tiny.registry()
    samples = tiny.icons(4, 4)
    made.datasets.update(
        first=tiny.dataset(samples, ("tiny",)),
        second=tiny.dataset(samples, ("tiny-mute",)),
        own=tiny.dataset(samples, ()),
    )
    del made.datasets["given"]
    return made


@pytest.mark.parametrize(
    ("options", "pair"),
    [
        ({"dataset": "second"}, ("second", "tiny-mute")),
        ({"target": "tiny-mute"}, ("second", "tiny-mute")),
        ({"dataset": "own", "target": "tiny-mute"}, ("own", "tiny-mute")),
        ({"dataset": "first", "target": "tiny:8"}, ("first", "tiny:8")),
    ],
)
def test_dataset_and_target_default_to_each_others_own(owners, options, pair):
    made = prepare(owners, RunOptions(attacks="loss", **options)).plan
    assert (made.dataset, made.target) == pair


def test_a_dataset_that_needs_a_path_is_no_targets_own(owners):
    owners.datasets["zoo"] = tiny.dataset(tiny.icons(4, 4), ("tiny-mute",))
    owners.datasets["zoo"].meta = owners.datasets["zoo"].meta.model_copy(update={"argument": "PATH"})
    assert prepare(owners, RunOptions(attacks="loss", target="tiny-mute")).plan.dataset == "second"
    assert prepare(owners, RunOptions(attacks="loss", dataset="zoo:x")).plan.target == "tiny-mute"


def test_a_dataset_may_choose_its_targets_by_its_argument(owners):
    class Choosing(tiny.dataset(tiny.icons(4, 4), ())):
        @property
        def targets(self):
            return ("tiny-mute",)

    owners.datasets["choosing"] = Choosing
    assert prepare(owners, RunOptions(attacks="loss", dataset="choosing")).plan.target == "tiny-mute"


def test_labels_of_another_target_are_refused(owners):
    with pytest.raises(UsageError, match="members of tiny, not of tiny-mute") as caught:
        prepare(owners, RunOptions(attacks="loss", dataset="first", target="tiny-mute"))
    assert "--dataset second" in caught.value.fix


def test_a_dataset_without_targets_needs_one(owners):
    with pytest.raises(UsageError, match="names no target"):
        prepare(owners, RunOptions(attacks="loss", dataset="own"))
