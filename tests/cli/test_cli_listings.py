"""`--help`, `list` and `describe`: quick, complete, and readable by machines."""

import json
import subprocess
import sys

import pytest

from mia_bench import __version__
from mia_bench.attack import Control
from mia_bench.cli import COMMANDS
from mia_bench.errors import ExitStatus
from mia_bench.plugins import Registry
from mia_bench.report.parameters import parameters

HEAVY = ("torch", "diffusers", "transformers", "sklearn", "scipy", "pyarrow", "unittest", "matplotlib")
NAMES = ("clid", "loss", "mc", "pia", "pian", "blind")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "--json"], ["describe", "clid"], ["run", "--help"]]
)
def test_listings_import_nothing_heavy(arguments):
    code = (
        "import sys; from mia_bench.cli import group; "
        f"group.main({arguments!r}, standalone_mode=False); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_names_every_command_and_exit_status(cli):
    cli("list", "plugins")  # whose module has the name of a builtin
    done = cli("--help")
    assert done.status == 0
    assert all(name in done.out for name in COMMANDS)
    said = " ".join(done.out.split())
    for status in ExitStatus:
        assert f" {status.value} " in said.split("Exit status:")[1]
    assert cli("--version").out.strip().endswith(__version__)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli, name):
    done = cli(name, "--help")
    assert done.status == 0
    assert f"mia-bench {name}" in done.out
    assert COMMANDS[name].split()[0] in done.out


def test_list_shows_everything(cli):
    done = cli("list")
    assert (done.status, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if line.isupper()] == [
        "ATTACKS",
        "DATASETS",
        "TARGETS",
        "ENCODERS",
        "EXECUTORS",
        "PLUGINS",
    ]
    for name in (*NAMES, "fluent-emoji", "folder", "emoji-realworld", "stable-diffusion"):
        assert name in done.out


def test_list_as_json(cli):
    found = json.loads(cli("list", "--json").out)
    assert list(found) == ["attacks", "datasets", "targets", "encoders", "executors", "plugins"]
    assert {a["name"] for a in found["attacks"]} == set(Registry.load().attacks) > set(NAMES)
    assert {p["status"] for p in found["plugins"]} == {"ok"}
    assert list(json.loads(cli("list", "targets", "--json").out)) == ["targets"]


def test_list_of_another_kind_is_refused(cli):
    done = cli("list", "atacks")
    assert done.status == 2
    assert "attacks" in done.err


@pytest.mark.parametrize("name", [*NAMES, "fluent-emoji", "folder", "emoji-realworld", "ddpm", "stable-diffusion"])
def test_describe(cli, name):
    done = cli("describe", name)
    assert (done.status, done.err) == (0, "")
    described = json.loads(cli("describe", name, "--json").out)
    assert described["name"] == name
    assert described["summary"] in done.out


def test_describe_shows_parameters_presets_and_cost(cli):
    text = cli("describe", "pia@t400").out
    for part in ("arXiv:2305.18355", "200 (pixel), 500 (latent)", "pia@t400", "t=400", "queries", "noise"):
        assert part in text
    described = json.loads(cli("describe", "clid", "--json").out)
    stages = {p["name"]: p["stage"] for p in described["parameters"]}
    assert stages == {"samples": "plan", "t": "measure", "reduction": "measure", "alpha": "score"}
    assert described["queries"] == "15"


def test_describe_says_the_equation_and_what_is_wrong_with_published_programs(cli):
    shown, described = cli("describe", "secmi").out, json.loads(cli("describe", "secmi", "--json").out)
    assert f"equation     {described['equation']}" in shown
    assert "calibration  unused" in shown
    assert described["faults"] and shown.split("FAULTS AND DEPARTURES")[1].count("\n- ") == len(described["faults"])
    assert "FAULTS" not in cli("describe", "blind").out


def test_describe_all(cli):
    described = json.loads(cli("describe", "all", "--json").out)
    assert [one["name"] for one in described] == sorted(ATTACKS)
    shown = cli("describe", "all").out
    assert all(one["summary"] in shown for one in described)


def test_describe_as_markdown(cli):
    page = cli("describe", "all", "--markdown").out
    assert page.startswith("# Attacks\n")
    section = cli("describe", "pia@t200", "--markdown").out
    assert section.startswith("## pia\n") and section in page
    dataset = cli("describe", "fluent-emoji", "--markdown").out
    assert dataset.startswith("### fluent-emoji\n") and dataset.strip() in cli("describe", "datasets", "--markdown").out
    assert "### sd-v1-4\n" in cli("describe", "targets", "--markdown").out
    done = cli("describe", "dino", "--markdown")
    assert done.status == 2 and "encoders have no such page" in done.err
    assert "did you mean pia" in cli("describe", "pja", "--markdown").err


def test_describe_says_types_bounds_and_meaning_in_words(cli):
    found = {p["name"]: p for p in json.loads(cli("describe", "clid", "--json").out)["parameters"]}
    assert (found["t"]["type"], found["t"]["default"]) == ("tuple of int, 0-999", "440,450,460")
    assert found["reduction"]["type"] == "clip | importance | gaussian | null"
    assert (found["alpha"]["type"], found["alpha"]["default"]) == ("float, 0-1, or none", "none")
    assert found["alpha"]["meaning"].endswith("fitted on the calibration set if not given.")
    shown = cli("describe", "clid").out
    assert "tuple of int, 0-999" in shown and "fitted on the calibration" in shown and "t=485,495,505" in shown
    assert "Annotated" not in shown


def test_describe_says_whose_orientation_it_is(cli):
    assert (
        "lower is member (the paper's own quantity; what `score` returns is always higher" in cli("describe", "pia").out
    )
    assert json.loads(cli("describe", "pia", "--json").out)["orientation"] == "lower is member"


def test_describe_of_an_unknown_name_suggests(cli):
    done = cli("describe", "fluent-emojis")
    assert done.status == 2
    assert "did you mean fluent-emoji" in done.err


# Every registered attack keeps the contract ----------------------------------------------------------------------

ATTACKS = Registry.load().attacks


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_says_all_that_a_reader_needs(name):
    cls = ATTACKS[name]
    meta = cls.meta
    assert meta.name == name
    assert meta.summary and not meta.summary.endswith(".") and "\n" not in meta.summary
    assert meta.paper.startswith(("arXiv:", "doi:", "openreview:")) and meta.citation
    assert cls.__doc__ and sys.modules[cls.__module__].__doc__
    assert meta.paper.split(":")[1] in sys.modules[cls.__module__].__doc__, "the module cites the paper"
    assert (meta.access == "none") == issubclass(cls, Control)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_has_a_price(name):
    cls = ATTACKS[name]
    for preset in ({}, *cls.presets.values()):
        for kind in ("pixel", "latent"):
            queries = cls(cls.Params(**preset).resolved(kind)).queries()
            assert isinstance(queries, int)
            combines = cls(cls.Params(**preset).resolved(kind)).requires()
            assert (queries > 0) != (issubclass(cls, Control) or bool(combines))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_parameter_is_documented_and_has_a_default(name):
    assert all(described["meaning"] for described in parameters(ATTACKS[name]))
    assert not any(field.is_required() for field in ATTACKS[name].Params.model_fields.values())


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mia_bench", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and __version__ in done.stdout
