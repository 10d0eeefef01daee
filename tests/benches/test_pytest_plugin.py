"""Benchmarks as pytest items: what is collected, measured, compared, recorded, and what a person reads of it."""

import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tiny

import mia_bench.benches.fixtures
import mia_bench.benches.items  # noqa: F401
from mia_bench.engine.plan import read_plan
from mia_bench.engine.run import read_result
from mia_bench.plugins import Registry
from mia_bench.store import Store

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parents[1]
# By entry point where the package is installed with it: a module that is registered twice is refused.
INSTALLED = any(entry.name == "mia-bench" for entry in entry_points(group="pytest11"))
PLUGIN = "mia-bench" if INSTALLED else "mia_bench.pytest_plugin"

MINE = """
import torch
from mia_bench import Access, Attack, Meta, hookimpl
from mia_bench.diffusion.reduce import power_mean


class Mine(Attack):
    meta = Meta(name="mine", summary="a loss", paper="none: a test", access=Access.LOSS)

    def queries(self):
        return 1

    def measure(self, batch, target):
        eps = batch.eps(300)
        predicted = target.denoiser(target.schedule.noised(batch.x0, eps, 300), 300, batch.condition)
        return {"loss": power_mean(predicted - eps)}

    def score(self, measured, calibration):
        return -measured["loss"]


@hookimpl
def mia_bench_attacks():
    return [Mine]
"""

BREAKAGES = {
    "sign flipped": ('-measured["loss"]', 'measured["loss"]'),
    "noise not keyed by sample": (
        "batch.eps(300)\n",
        "torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(0))\n",
    ),
    "one timestep off": ("300", "0x12d"),  # another length, or Python may take the compiled file for this one's
}


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Everything a run imports: pytester forgets what is first imported within it, and C extensions load once."""
    Registry.load()
    tiny.go(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def bench(pytester, monkeypatch):
    """Writes `NAME.bench.toml` of the tiny target, and runs pytest in this process."""
    monkeypatch.setenv("TINY_LOG", str(pytester.path / "measured"))
    monkeypatch.delenv("CI", raising=False)
    pytester.makepyfile(mine=MINE)
    return Bench(pytester)


class Bench:
    def __init__(self, pytester):
        self.pytester, self.folder = pytester, pytester.path

    def write(self, text="", name="tiny", attacks="mine,logged,loss,pia", more=""):
        (self.folder / f"{name}.bench.toml").write_text(
            f'attacks = "{attacks}"\ndataset = "icons"\ntarget = "tiny"\nlimit = 6\nrows = 4\nthreads = 1\n'
            f'plugins = ["{TESTS / "tiny.py"}", "mine.py"]\n{text}\n{more}'
        )
        return self

    def run(self, *options):
        return self.pytester.runpytest_inprocess(
            "-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options
        )

    def recorded(self, *options):
        result = self.run("--mia-update-baseline", *options)
        assert result.ret == 0 and result.parseoutcomes()["recorded"]
        return self

    @property
    def log(self):
        """Ids of the samples that `logged` measured, once for each time; forgotten when read."""
        path = self.folder / "measured"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


def names(result):
    return [line.partition("::")[2] for line in result.outlines if ".bench.toml::" in line]


def test_items_are_called_by_dataset_target_and_attack(bench):
    listed = bench.write().run("--collect-only", "-q")
    assert names(listed) == [f"icons/tiny/{attack}" for attack in ("mine", "logged", "loss", "pia")]
    assert not bench.log
    assert names(bench.run("--collect-only", "-q", "tiny.bench.toml::icons/tiny/pia")) == ["icons/tiny/pia"]
    assert names(bench.run("--collect-only", "-q", "-k", "loss or pia")) == ["icons/tiny/loss", "icons/tiny/pia"]


def test_markers_of_the_definition_select_items(bench):
    bench.write('marks = ["slow"]').write(name="other", attacks="loss")
    (bench.folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nmarkers = slow: takes long\n")
    assert len(names(bench.run("--collect-only", "-q", "-m", "mia_bench"))) == 5
    assert names(bench.run("--collect-only", "-q", "-m", "mia_bench and not slow")) == ["icons/tiny/loss"]
    bench.write('marks = ["slwo"]')
    bench.run("--collect-only").stdout.fnmatch_lines(["*tiny.bench.toml: marks: 'slwo' not found in `markers`*"])


def test_without_a_baseline_an_item_fails_with_the_command_that_records_one(bench):
    result = bench.write().run()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*there is none yet*", "*`pytest tiny.bench.toml --mia-update-baseline`*"])
    assert not bench.log, "nothing to compare with, so nothing to measure"


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "results.json"])
def test_a_damaged_baseline_is_said_before_anything_is_measured(bench, name):
    bench.write().run("--mia-update-baseline")
    assert bench.log
    next(bench.folder.rglob(f"baselines/*/{name}")).unlink()
    result = bench.run()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines([f"*it has no {name}*", "*restore it from version control*"])
    assert not bench.log


def test_a_baseline_is_recorded_on_purpose_and_then_holds(bench):
    result = bench.write().run("--mia-update-baseline")
    result.stdout.fnmatch_lines(
        [f"recorded a baseline, to be committed: {bench.folder}/baselines/tiny", "*4 recorded*"]
    )
    assert sorted(p.name for p in (bench.folder / "baselines" / "tiny").iterdir()) == [
        "results.json",
        "run.json",
        "scores.parquet",
    ]
    bench.run().assert_outcomes(passed=4)


def test_a_baseline_is_not_recorded_in_part(bench):
    bench.write().recorded()
    before = (bench.folder / "baselines/tiny/scores.parquet").read_bytes()
    result = bench.run("--mia-update-baseline", "-k", "loss")
    result.assert_outcomes(errors=1, deselected=3)
    result.stdout.fnmatch_lines(["*recorded as a whole, and this leaves out logged, mine, pia"])
    assert (bench.folder / "baselines/tiny/scores.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("said", "refused"), [("true", True), ("1", True), ("True", True), ("false", False), ("", False)]
)
def test_continuous_integration_records_nothing(bench, monkeypatch, said, refused):
    monkeypatch.setenv("CI", said)
    result = bench.write(attacks="loss").run("--mia-update-baseline")
    assert (result.ret == pytest.ExitCode.USAGE_ERROR) is refused
    assert (bench.folder / "baselines").exists() is not refused
    if refused:
        result.stderr.fnmatch_lines([f"ERROR: --mia-update-baseline: refused where CI={said}: *commit that"])
        assert bench.run("--collect-only").ret == 0, "all else goes on"


def test_an_attack_without_scores_is_not_recorded(bench):
    (bench.folder / "mine.py").write_text(MINE.replace("eps = batch", "raise OSError('disk'); eps = batch"))
    bench.write().run("--mia-update-baseline").stdout.fnmatch_lines(["attack mine: it has no scores: *OSError: disk*"])
    assert not (bench.folder / "baselines").exists()


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_attack_fails_by_name_with_a_sample_and_no_traceback(bench, breakage):
    bench.write(attacks="mine,loss").recorded()
    (bench.folder / "mine.py").write_text(MINE.replace(*BREAKAGES[breakage]))
    result = bench.run("-rf")
    result.assert_outcomes(passed=1, failed=1)
    ids = read_plan(Store(bench.folder / "baselines/tiny")).samples.id
    said = result.stdout.str()
    headline = next(line for line in result.outlines if line.startswith("mine on tiny: moved; "))
    assert any(repr(i) in headline for i in ids), headline
    assert "its code has changed" in headline
    result.stdout.fnmatch_lines(["FAILED tiny.bench.toml::icons/tiny/mine - Failed: mine on tiny: moved*"])
    assert "Traceback" not in said and "runtest" not in said and ".py:" not in said
    assert "if that is meant: pytest tiny.bench.toml --mia-update-baseline" in said


def test_attacks_of_one_file_share_what_is_measured(bench):
    """Ten attacks encode each image once: as many calls as one attack makes alone."""
    (bench.folder / "mine.py").write_text(
        MINE + "\nfrom mia_bench.testing import TinyTarget\nfrom pathlib import Path\n\n"
        "class Counting(TinyTarget):\n"
        "    meta = TinyTarget.meta.model_copy(update={'name': 'counting'})\n"
        "    def posterior(self, pixels):\n"
        f"        with Path({str(bench.folder / 'encoded')!r}).open('a') as file:\n"
        "            file.write('x')\n"
        "        return super().posterior(pixels)\n\n"
        "@hookimpl\ndef mia_bench_targets():\n    return [Counting]\n"
    )
    ten = "mine,logged,loss,mc,pia,pian,sima,secmi,clid,logged@double"
    bench.write(attacks=ten)
    path = bench.folder / "tiny.bench.toml"
    path.write_text(path.read_text().replace('"tiny"', '"counting"'))
    encoded = bench.folder / "encoded"
    bench.recorded()
    all_ten = len(encoded.read_text())
    encoded.unlink()
    bench.run("-k", "loss").assert_outcomes(passed=1, deselected=9)
    assert len(encoded.read_text()) == all_ten == 3  # 12 images, 4 in a call
    measured = bench.log
    assert len(measured) == len(set(measured)) == 12


def test_what_is_deselected_is_not_measured(bench):
    bench.write().recorded()
    assert len(bench.log) == 12
    bench.run("-k", "not logged").assert_outcomes(passed=3, deselected=1)
    bench.run("--deselect", "tiny.bench.toml::icons/tiny/logged").assert_outcomes(passed=3, deselected=1)
    bench.run("tiny.bench.toml::icons/tiny/loss").assert_outcomes(passed=1)
    assert not bench.log
    bench.run("-k", "logged").assert_outcomes(passed=1, deselected=3)
    assert len(bench.log) == 12


def test_after_the_first_failure_nothing_more_is_measured(bench):
    bench.write(name="a", attacks="mine,loss").write(name="b", attacks="logged").recorded()
    assert bench.log
    (bench.folder / "mine.py").write_text(MINE.replace("-measured", "measured"))
    bench.run("-x").assert_outcomes(failed=1)
    assert not bench.log


def test_another_target_is_gated_on_what_it_leaks(bench, monkeypatch):
    gate = '[gate]\nfail_on = "both"\nmetrics = ["auc"]'
    bench.write(attacks="loss,pia", more=gate)
    path = bench.folder / "tiny.bench.toml"
    path.write_text(path.read_text().replace("limit = 6\nrows = 4", "limit = 20\nrows = 32"))
    bench.recorded()
    result = bench.run("--mia-target", "tiny:8", "-v", "--junitxml=found.xml")
    result.assert_outcomes(passed=2)
    assert "icons/tiny/loss" in result.stdout.str(), "the item keeps its name"
    properties = {p.get("name"): p.get("value") for p in next(junit(bench)).iter("property")}
    assert (properties["target"], properties["verdict"], properties["samples"]) == ("tiny:8", "held", "40")
    assert float(properties["auc_low"]) < float(properties["auc"]) < float(properties["auc_high"])
    monkeypatch.setenv("MIA_BENCH_TARGET", "none-such")
    bench.run().stdout.fnmatch_lines(["*unknown target 'none-such'*"])


def test_a_baseline_may_be_of_another_model(bench):
    bench.write('baseline_target = "tiny:8"', attacks="loss").recorded()
    assert read_result(bench.folder / "baselines/tiny").target == "tiny:8"
    result = bench.run("--junitxml=found.xml")
    properties = {p.get("name"): p.get("value") for p in next(junit(bench)).iter("property")}
    assert properties["target"] == "tiny"
    result.stdout.fnmatch_lines(["loss on tiny auc: not compared; 6 members: fewer than *, too few for a test"])


def junit(bench):
    return ElementTree.parse(bench.folder / "found.xml").getroot().iter("testcase")


def test_an_attack_of_the_baseline_whose_plugin_broke_fails(bench):
    bench.write(attacks="mine,lo*").recorded()
    bench.write(attacks="pia,lo*,m*").recorded()
    assert {a.label for a in read_plan(Store(bench.folder / "baselines/tiny")).attacks} >= {"mine", "mc"}
    path = bench.folder / "tiny.bench.toml"
    path.write_text(path.read_text().replace(', "mine.py"', ""))  # as where an installed plugin does not load
    result = bench.run("-rf")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["FAILED tiny.bench.toml::icons/tiny/mine - Failed: mine on tiny: not compared*"])


def test_an_attack_that_cannot_run_is_skipped_unless_the_baseline_has_it(bench):
    bench.write(attacks="loss,noise-prob?").recorded()
    result = bench.run("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*it asks a second model*"])
    result = bench.write(attacks="noise-prob?", name="other").run("--mia-update-baseline", "other.bench.toml")
    result.stdout.fnmatch_lines(["no attack is left to run: noise-probe: it asks a second model*"])


def test_two_workers_measure_once_and_properties_reach_junit(bench):
    pytest.importorskip("xdist")
    bench.write(attacks="logged,loss,pia,mine").recorded()
    assert bench.log
    (bench.folder / "test_own.py").write_text(
        "import pytest\n\n\n@pytest.mark.parametrize('n', range(4))\ndef test_own(mia_run, n):\n"
        f"    run = mia_run('logged', dataset='icons', limit=7, plugins=[{str(TESTS / 'tiny.py')!r}])\n"
        "    assert run.row('logged').n == 14\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-n2", "--junitxml=found.xml"]
    path = os.pathsep.join([str(TESTS), *sys.path])
    done = subprocess.run(
        command, cwd=bench.folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=200
    )
    assert "8 passed" in done.stdout, done.stdout + done.stderr
    measured = bench.log
    assert len(measured) == 12 + 14 and len(set(measured)) < 26  # each run once, not once for each worker
    cases = {case.get("name"): case for case in junit(bench)}
    found = {p.get("name"): p.get("value") for p in cases["icons/tiny/loss"].iter("property")}
    assert found["verdict"] == "same" and 0 <= float(found["auc"]) <= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits = 6", "limits: no such key; did you mean limit?"),
        ("[gate]\nmetric = ['auc']", "gate.metric: no such key; did you mean metrics?"),
        ("[gate]\nmetrics = ['aug']", "gate.metrics: *'aug': did you mean auc?*"),
        ("seed = '1'", "seed: Input should be a valid integer (got '1')"),
        ("[gate]\nmargin = 2", "gate.margin: Input should be less than 1 (got 2)"),
        ("seed = 1\nseed = 2", "not TOML: Cannot overwrite a value*"),
        ("[options.loss]\ntt = 3", "option loss.tt: no such parameter*"),
        ("captions = 'upper'", "captions: *unknown; it may be true, null*"),
    ],
)
def test_a_wrong_definition_names_file_and_key(bench, text, said):
    file = "*tiny.bench.toml: " if not said.startswith("option") else ""
    result = bench.write(more=text).run()
    assert result.ret != 0
    result.stdout.fnmatch_lines([f"{file}{said.replace('[', '[[]')}"])


def test_an_unknown_attack_names_the_file(bench):
    bench.write(attacks="lost").run().stdout.fnmatch_lines(
        ["*tiny.bench.toml*", "unknown attack 'lost': did you mean*"]
    )


def test_run_folders_are_kept_where_they_are_wanted(bench):
    bench.write().recorded("--mia-runs", "kept")
    (folder,) = (p for p in (bench.folder / "kept").iterdir() if p.is_dir())
    assert read_result(folder).n_members == 6
    assert len(bench.log) == 12
    bench.run("--mia-runs", "kept").assert_outcomes(passed=4)
    assert not bench.log, "a kept run goes on, and was done"


def test_fixtures_run_and_open_things(bench):
    bench.pytester.makepyfile(
        f"""
        PLUGINS = [{str(TESTS / "tiny.py")!r}]

        def run(mia_run, **more):
            return mia_run("logged,loss", dataset="icons", limit=5, rows=4, threads=1, plugins=PLUGINS, **more)

        def test_run(mia_run):
            found = run(mia_run)
            assert found.result.n_members == 5 and (found.folder / "scores.parquet").exists()
            assert 0 <= found.row("loss").evaluation.auc.value <= 1
            assert len(found.scores["loss"].ids) == 10

        def test_once(mia_run):
            assert run(mia_run).folder == run(mia_run).folder != run(mia_run, seed=1).folder

        def test_target(mia_target):
            target = mia_target("tiny", rows=4, plugins=PLUGINS)
            assert target is mia_target("tiny", rows=4, plugins=PLUGINS) and target.denoiser.rows.rows == 4

        def test_dataset(mia_dataset):
            assert len(mia_dataset("icons", plugins=PLUGINS).samples()) == 800

        def test_mistake(mia_run):
            mia_run("loss", limits=5)
        """
    )
    result = bench.run()
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*UsageError: mia_run(limits=...): did you mean limit?*"])
    assert len(bench.log) == 20  # two runs of ten samples


def test_the_plugin_costs_other_sessions_nothing(tmp_path):
    """By its entry point, as installed: nothing heavy is imported, and nothing of the harness."""
    declared = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    site = tmp_path / "site" / "declared-1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    (site / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{name} = {module}\n" for name, module in declared.items())
    )
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n\ndef test_other(pytestconfig):\n"
        "    assert pytestconfig.getoption('mia_target') is None\n"
        "    heavy = {'torch', 'numpy', 'pyarrow', 'pydantic', 'filelock', 'mia_bench.plugins', 'mia_bench.errors'}\n"
        "    assert not heavy & sys.modules.keys()\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site.parent), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
