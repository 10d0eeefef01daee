"""The scripts for a machine with a GPU, dry-run on the CPU."""

import json
import re
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from click.testing import CliRunner

HERE = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    for folder in ("speed", "gpu"):
        monkeypatch.syspath_prepend(str(HERE / folder))
    monkeypatch.delitem(sys.modules, "speed", raising=False)


def test_same_numbers_agree_and_show_what_half_precision_does(tmp_path, monkeypatch):
    from same_numbers import main

    asked = ["--size", "tiny", "--device", "cpu", "--dtypes", "float32,bfloat16", "--work", str(tmp_path / "work")]
    out = tmp_path / "out.json"
    assert main([*asked, "--out", str(out)], standalone_mode=False) == 0
    record = json.loads(out.read_text())
    attacks = record["figures"]["attacks"]
    assert set(attacks) == {"loss", "pia", "clid", "gsa@quick"} and record["figures"]["beyond"] == []
    assert all(of["float32"]["largest"] == 0 == of["float32"]["auc_change"] for of in attacks.values())
    assert all(of["bfloat16"]["largest"] > of["bfloat16"]["median"] > 0 for of in attacks.values())
    monkeypatch.delitem(sys.modules, "page", raising=False)
    import page

    monkeypatch.setattr(page, "RESULTS", tmp_path)
    out.with_name("gpu-same-numbers.json").write_text(out.read_text())
    assert re.search(r"\| `pia` +\| 0.0e\+00 +\| [+-]\d", page.precision()), page.precision()
    shards = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.parquet") if "measurements" in p.parts}
    assert main([*asked, "--out", str(out)], standalone_mode=False) == 0 and json.loads(out.read_text()) == record
    assert shards == {p: p.stat().st_mtime_ns for p in shards}, "nothing is measured again"
    record["steps"]["float32"] = record["steps"]["bfloat16"]  # what a faulty device would look like
    out.write_text(json.dumps(record))
    assert main([*asked, "--out", str(out)], standalone_mode=False) == 1
    assert set(json.loads(out.read_text())["figures"]["beyond"]) >= {"loss", "pia", "clid"}


def test_speed_measures_every_step_and_goes_on(tmp_path, monkeypatch):
    script, out = HERE / "gpu" / "speed.py", tmp_path / "out.json"
    asked = ["--size", "tiny", "--device", "cpu", "--dtypes", "float32", "--dtype", "float32", "--pairs", "1"]
    command = [sys.executable, str(script), *asked, "--no-compile", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    record = json.loads(out.read_text())
    way = record["figures"]["bare"]["float32"]
    assert 0 < way["utilisation"] < 2 and way["batch"] in (1, 4) and record["steps"]["flops"] > 1e6
    rows = {row["label"]: row for row in record["figures"]["attacks"]}
    assert set(rows) == {"loss", "pia", "all"} and rows["pia"]["asked"] == 2 and rows["all"]["executed"] == 3
    assert all(row["efficiency"] > 0 and row["seconds_per_image"] > 0 for row in rows.values())
    monkeypatch.delitem(sys.modules, "page", raising=False)
    import page

    monkeypatch.setattr(page, "RESULTS", tmp_path)
    out.with_name("gpu-speed.json").write_text(out.read_text())
    assert re.search(r"\| float32 +\| [14] ", page.gpu()) and re.search(r"\| `pia` +\| 2 ", page.gpu()), page.gpu()
    record["steps"]["attack pia"]["rounds"][0]["bare_s"] = 1e9  # kept, not measured again
    out.write_text(json.dumps(record))
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    again = json.loads(out.read_text())
    assert {row["label"]: row for row in again["figures"]["attacks"]}["pia"]["efficiency"] > 1e6


def test_bundle_names_what_the_machine_lacks(tmp_path):
    from bundle import lacking, main

    assert "diffusers" in lacking({"torch", "transformers"}) and "torch" not in lacking({"torch"})
    done = CliRunner().invoke(main, ["--list"])
    assert done.exit_code == 0 and "pydantic" in done.output


def test_a_checkout_is_known_without_being_installed(tmp_path):
    from entry_points import write

    from mia_bench.plugins import Registry

    place = write(tmp_path)
    found = {e.name for e in PathDistribution(place).entry_points if e.group == "mia_bench"}
    assert {"loss", "clid", "fluent-emoji"} <= found | set(Registry.load().attacks)
    assert {p.name for p in Registry.load().plugins if p.origin.startswith("mia-bench ")} <= found
