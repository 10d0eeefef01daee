"""A broken plugin is named with its fault and harms nobody else."""

import inspect
from pathlib import Path

import pytest
import tiny

from mia_bench.engine.select import select
from mia_bench.errors import BrokenPluginError, ExitStatus, UsageError
from mia_bench.plugins import Registry, suggest

ATTACK = '''
from mia_bench import Access, Attack, Meta, hookimpl

class Mine(Attack):
    """An attack."""
    meta = Meta(name="mine", summary="mine", paper="none", access=Access.LOSS)
    def queries(self): return 1
    def measure(self, batch, target): return {}
    def score(self, measured, calibration): return None

@hookimpl
def mia_bench_attacks(): return [Mine]
'''

BROKEN = {
    "import": ("import no_such_module", "no_such_module"),
    "syntax": ("def (", "SyntaxError"),
    "exit": ("import sys; sys.exit(0)", "SystemExit"),
    "raises": ("raise RuntimeError('too old a driver')", "too old a driver"),
    "misspelt hook": (ATTACK.replace("def mia_bench_attacks", "def mia_bench_atacks"), "mia_bench_atacks"),
    "no hook": (ATTACK.replace("@hookimpl", ""), "it registers nothing"),
    "unknown argument": (ATTACK.replace("mia_bench_attacks()", "mia_bench_attacks(config)"), "config"),
    "taken name": (ATTACK.replace('name="mine"', 'name="loss"'), "'loss' is taken"),
    "no measure": (ATTACK.replace("def measure", "def measured"), "does not implement measure"),
    "no meta": (ATTACK.replace("meta = Meta", "about = Meta"), "Mine.meta is not a Meta"),
    "wrong meta": (ATTACK.replace("Meta(name", "dict(name"), "Mine.meta is not a Meta"),
    "incomplete meta": (ATTACK.replace('paper="none", ', ""), "ValidationError: Meta.paper: Field required"),
    "bad name": (ATTACK.replace('name="mine"', 'name="Mine!"'), "name"),
    "not a class": (ATTACK.replace("[Mine]", "[Mine()]"), "not a subclass of Attack"),
    "nothing returned": (ATTACK.replace("return [Mine]", "return None"), "TypeError"),
    "same twice": (ATTACK.replace("[Mine]", "[Mine, Mine]"), "'mine' is taken"),
    "queries fail": (ATTACK.replace("return 1", "return self.params.t"), "queries"),
    "foreign params": (ATTACK.replace("def queries", "class Params: pass\n    def queries"), "Params"),
    "bad preset": (ATTACK.replace("def queries", "presets = {'x': {'t': 1}}\n    def queries"), "preset"),
}


def added(made, text, tmp_path, name="mine"):
    """A plugin file added as an entry point would be: its faults are recorded, not raised."""
    path = tmp_path / f"{name}.py"
    path.write_text(text)

    def load():
        space = {"__name__": name}
        exec(compile(text, path, "exec"), space)
        module = tiny.ModuleType(name)
        module.__dict__.update(space)
        return module

    return made.add(name, "elsewhere 1.0", name, load)


@pytest.mark.parametrize("fault", BROKEN)
def test_every_fault_is_recorded_and_the_others_stay(fault, tmp_path):
    text, said = BROKEN[fault]
    made = tiny.registry()
    before = set(made.attacks)
    plugin = added(made, text, tmp_path)
    assert plugin.status == "broken"
    assert said in plugin.error
    assert "https://" not in plugin.error and "\n" not in plugin.error
    assert "Traceback" in plugin.trace
    assert plugin.provides == []
    assert set(made.attacks) == before
    assert added(made, ATTACK, tmp_path, "other").status == "ok", "a later plugin still loads"
    with pytest.raises(BrokenPluginError, match=r"elsewhere 1\.0") as caught:
        made.dataset("mine")
    assert said in str(caught.value)
    assert caught.value.status == ExitStatus.BROKEN_PLUGIN


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_given_by_the_user_stops(fault, tmp_path):
    text, said = BROKEN[fault]
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BrokenPluginError) as caught:
        Registry.load([path])
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BrokenPluginError, match="no such file"):
        Registry.load([tmp_path / "none.py"])


def test_every_bundled_plugin_loads():
    made = Registry.load()
    assert [p.error for p in made.broken] == []
    assert {"loss", "mc", "pia", "pian", "clid", "blind"} <= set(made.attacks)
    assert {"fluent-emoji", "folder"} <= set(made.datasets)
    assert {"emoji-realworld", "emoji-overtrain", "stable-diffusion", "ddpm"} <= set(made.targets)


def test_a_working_file_registers(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(ATTACK)
    made = Registry.load([path])
    assert made.plugins[-1].provides == ["mine"]
    assert [s.label for s in select(made, "mine") if not s.control] == ["mine"]


def test_two_files_of_one_name_keep_their_own_source(tmp_path):
    paths = [tmp_path / folder / "mine.py" for folder in "ab"]
    for path, name in zip(paths, ("mine-a", "mine-b"), strict=True):
        path.parent.mkdir()
        path.write_text(ATTACK.replace('name="mine"', f'name="{name}"'))
    made = Registry.load(paths)
    for name in ("mine-a", "mine-b"):
        assert f'"{name}"' in inspect.getsource(made.attacks[name])


def test_who_has_a_taken_name_is_said(tmp_path):
    made = tiny.registry()
    added(made, ATTACK, tmp_path, "first")
    assert "first (elsewhere 1.0)" in added(made, ATTACK, tmp_path, "second").error


def test_an_unknown_name_is_met_with_a_suggestion():
    made = tiny.registry()
    for what, wrong, right in (("attack", "piaa", "pia"), ("dataset", "givn", "given"), ("target", "tinny", "tiny")):
        with pytest.raises(UsageError) as caught:
            getattr(made, what)(wrong)
        assert f"unknown {what} '{wrong}'" in str(caught.value)
        assert f"did you mean {right}" in str(caught.value)


def test_an_unknown_name_points_to_broken_plugins_that_may_hold_it(tmp_path):
    made = tiny.registry()
    added(made, "raise RuntimeError('old')", tmp_path, "someones-attacks")
    with pytest.raises(UsageError) as caught:
        made.attack("flip")
    assert "someones-attacks" in caught.value.fix


def test_no_close_match_lists_what_is_known():
    assert suggest("zzz", ["b", "a"]) == "known: a, b"
    assert suggest("flip", ["clid", "pia"]) == "known: clid, pia"
    assert suggest("zzz", []) == "known: none"


def test_a_plugin_whose_event_hook_raises_does_not_end_the_run(tmp_path, caplog):
    seen = []

    def batch_measured(event):
        seen.append(event.batch)
        raise RuntimeError("my dashboard is down")

    made = tiny.registry(tiny.plugin(batch_measured=batch_measured))
    result = tiny.go(tmp_path / "run", made)
    assert [r.status for r in result.rows] == ["ok", "ok"]
    assert seen == [1], "it is not asked again"
    assert [p.error for p in made.broken] == ["RuntimeError: my dashboard is down"]
    assert caplog.text.count("my dashboard is down") == 1


def test_events_tell_a_plugin_what_happens(tmp_path):
    seen = []
    events = {name: lambda event: seen.append(event) for name in ("run_started", "batch_measured", "run_finished")}
    tiny.go(tmp_path / "run", tiny.registry(tiny.plugin(**events)))
    started, *batches, finished = seen
    assert (started.pending, started.stored, started.batches) == (12, 0, 3)
    assert Path(started.folder) == tmp_path / "run"
    assert [(b.batch, b.done, b.pending) for b in batches] == [(1, 4, 12), (2, 8, 12), (3, 12, 12)]
    assert finished.done == 12
