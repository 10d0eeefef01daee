"""The scripts for a machine with a GPU, dry-run on the CPU."""

import io
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import PathDistribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mia_bench_plugins.targets.ddpm import DDPM

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
    assert set(attacks) == {"loss", "pia", "clid"} and record["figures"]["beyond"] == []
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
    import speed

    out = tmp_path / "out.json"
    asked = ["--size", "tiny", "--device", "cpu", "--dtypes", "float32", "--dtype", "float32", "--pairs", "1"]
    command = [*asked, "--no-compile", "--out", str(out)]
    speed.main(command, standalone_mode=False)
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
    speed.main(command, standalone_mode=False)
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


@pytest.fixture
def images(tmp_path):
    rows = []
    for number in range(60):
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "JPEG")
        rows.append({"id": f"train/{number}", "jpeg": file.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    return tmp_path / "all.parquet"


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, images):
    import cifar

    size = cifar.SIZES["tiny"]
    pixels = cifar.split(images, size, 0, tmp_path / "split.parquet")
    rows = pq.read_table(tmp_path / "split.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == 40 and len(pixels) == 20
    kinds = Counter((row["member"], row["split"]) for row in rows)
    assert kinds == {(m, s): n for m in (True, False) for s, n in (("calibration", 4), ("audit", 16))}
    whole = cifar.Cifar(size, pixels, tmp_path, "cpu", seed=3)
    seen = []
    whole.rows, rows_of = lambda: seen.append(rows_of()) or seen[-1], whole.rows
    for _ in range(5):
        whole.advance()
    assert all(Counter(torch.cat(seen).tolist())[i] == 2 for i in range(20)), "two passes of five steps"
    assert cifar.Cifar(size, pixels, tmp_path, "cpu", seed=3).step == 0, "nothing is kept yet"
    part = cifar.Cifar(size, pixels, tmp_path, "cpu", seed=3)
    for _ in range(2):
        part.advance()
    part.save()
    part = cifar.Cifar(size, pixels, tmp_path, "cpu", seed=3)
    for _ in range(3):
        part.advance()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, part.net.state_dict()[name]) and torch.equal(whole.average[name], part.average[name])
        assert not torch.equal(value, whole.average[name]), "the average lags behind"


def test_a_training_is_audited_along_the_way(tmp_path, images, monkeypatch):
    import cifar

    monkeypatch.setitem(cifar.SIZES, "tiny", replace(cifar.SIZES["tiny"], kept=(1, 2), attacks="loss", last="pia"))
    out, size = tmp_path / "out.json", ["--size", "tiny", "--device", "cpu", "--work", str(tmp_path / "work")]
    asked = [str(images), *size, "--out", str(out)]
    first = CliRunner().invoke(cifar.main, [*asked, "--minutes", "0"], catch_exceptions=False)
    assert "no checkpoint has been audited" in first.output and "0 of 5 steps: the same command goes on" in first.output
    done = CliRunner().invoke(cifar.main, asked, catch_exceptions=False)
    steps = json.loads(out.read_text())["steps"]
    assert [*steps] == ["audit 1", "audit 2"]
    assert "pia" in steps["audit 2"]["attacks"] and "pia" not in steps["audit 1"]["attacks"]
    assert 0 <= steps["audit 1"]["attacks"]["loss"]["auc"]["value"] <= 1
    assert re.search(r"loss +0\.\d+ +0\.\d+", done.output), done.output
    checkpoint = DDPM(str(tmp_path / "work" / "checkpoints" / "2"))
    checkpoint.open()
    assert checkpoint.image_size == 32 and len(checkpoint.schedule) == 1000


def test_two_regimes_of_a_text_to_image_target(tmp_path, monkeypatch):
    import emoji64

    rows, kinds = [], [("audit", True), ("audit", False), ("calibration", True), ("calibration", False)]
    for number, (split, member) in enumerate([*kinds * 6, ("memorised", True)]):
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG")
        about = {"id": f"icon-{number}", "caption": f"icon {number}", "split": split, "member": member}
        rows.append({**about, "image": file.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet")
    recipe = emoji64.REGIMES["overtrain"]
    for name, repeats in (("overtrain", 5), ("realworld", 1)):
        changed = replace(recipe, augment=name == "realworld", repeats=repeats, passes=2, kept=(1, 2))
        monkeypatch.setitem(emoji64.REGIMES, name, changed)
        asked = ["audit", str(tmp_path), "--regime", name, "--size", "tiny", "--device", "cpu"]
        done = CliRunner().invoke(
            emoji64.main, [*asked, "--out", str(tmp_path / f"{name}.json")], catch_exceptions=False
        )
        steps = json.loads((tmp_path / f"{name}.json").read_text())["steps"]
        assert "loss" in steps["audit 1"]["attacks"] and "clid" not in steps["audit 1"]["attacks"]
        assert {"loss", "pia", "clid"} <= set(steps["audit 2"]["attacks"]), done.output
        training = emoji64.Emoji64(emoji64.SIZES["tiny"], changed, rows, tmp_path / name, "cpu", 0)
        assert len(training.one_pass) == 12 + repeats and training.done
        draws = [training.latents.draw(torch.zeros(1, dtype=torch.long)) for _ in range(8)]
        assert (torch.stack(draws).std(0).mean() > 0.2) == changed.augment, "augmented images differ"
        assert {rows[i]["member"] for i in training.one_pass} == {True}


def test_all_attacks_of_the_embedded_benchmark_are_asked_of_the_larger_one():
    import emoji64

    assert {"clid", "drc[emoji-lpips]@quick", "wu-ip@quick"} <= set(emoji64.everything())
