"""Each kind of target through the public command line: saved by diffusers, loaded by path, attacked, scored."""

import json
from pathlib import Path

import pipelines
import pytest
import tiny

ATTACKS = "loss,pia,secmi"
KINDS = {  # kind -> pipeline, what it is made with, what the command adds
    "epsilon": ("sd", {}, []),
    "velocity": ("sd_v", {}, []),
    "two text encoders": ("sdxl", {}, []),
    "transformer": ("sd3", {}, []),
    "packed": ("flux", {}, ["--resolution", "32"]),
    "pixels": ("ddpm", {}, []),
    "latents": ("ldm", {}, []),
}


@pytest.fixture
def cli(capfd, monkeypatch, tmp_path):
    import sys

    from mia_bench.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mia-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_run_on_it(cli, tmp_path, kind):
    name, options, more = KINDS[kind]
    folder = pipelines.saved(name, tmp_path / "pipeline", **options)
    captioned = name not in ("ddpm", "ldm")
    attacks = ATTACKS + ",clid" * captioned
    given = ["--attacks", attacks, "--dataset", "fluent-emoji", "--target", folder, "--limit", 2, "--out", "out", *more]
    status, out, err = cli("run", *given, "--rows", 4, "--threads", 1, "--json")
    result = json.loads(out)
    rows = {row["label"]: row for row in result["rows"] if not row["control"]}
    assert set(rows) == set(attacks.split(","))
    assert {row["status"] for row in rows.values()} == {"ok"} and not result["failures"], err
    found = tiny.scores(Path("out"))
    for label in rows:
        values = [v for (attack, _), v in found.items() if attack == label]
        assert len(values) == len(set(values)) >= 4
    assert result["target_facts"]["weights"] and status == 0
    assert ("guidance" in result["target_facts"]) == (name == "flux")
    if not captioned:
        status, _, err = cli("run", *given, "--attacks", "clid")
        assert status == 2 and "takes no captions" in err and "leave clid out" in err


def test_classes_are_read_from_captions(cli, tmp_path):
    from PIL import Image

    folder = pipelines.saved("ddpm_class", tmp_path / "pipeline")
    for i in range(4):
        image = tmp_path / "data" / ("members" if i % 2 else "nonmembers") / f"{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * i, 90, 200 - 40 * i)).save(image)
        image.with_suffix(".txt").write_text(str(i) if i else "seven")
    given = ["--dataset", f"folder:{tmp_path / 'data'}", "--target", folder, "--rows", 4, "--threads", 1, "--json"]
    status, out, err = cli("run", "--attacks", "loss", "--out", "out", *given)
    result = json.loads(out)
    assert status == 3 and len(tiny.scores(Path("out"))) >= 3
    assert "'seven' is none of its classes; it has 4" in json.dumps(result["failures"])


def test_listings_show_families_and_known_models(cli):
    _, out, _ = cli("list", "targets", "--json")
    shown = {row["name"]: row for row in json.loads(out)["targets"]}
    for name in ("stable-diffusion-xl:PATH", "stable-diffusion-3:PATH", "flux:PATH", "ldm:PATH", "ddpm:PATH"):
        assert name in shown
    assert "CompVis/stable-diffusion-v1-4" in shown["sd-v1-4"]["summary"]
    _, out, _ = cli("describe", "sd-v1-5")
    assert "runwayml/stable-diffusion-v1-5" in out and "Open RAIL" in out


def test_mistakes_about_targets(cli, tmp_path):
    folder = pipelines.saved("ddpm", tmp_path / "pipeline")
    base = ["run", "--attacks", "loss", "--dataset", "fluent-emoji", "--limit", 1, "--target"]
    for given, status, said, fix in (
        ([folder, "--revision", "x"], 2, "the target is a folder", "leave it out"),
        ([folder, "--lora", "x"], 2, "ddpm does not read --lora", "leave it out"),
        ([folder, "--resolution", 33], 2, "--resolution 33: the model needs a multiple of", "its own is 32"),
        ([tmp_path / "nothing.safetensors"], 3, "no such folder", "model_index.json"),
        (["sd-v1-4:x"], 2, "sd-v1-4 takes no argument", "--target sd-v1-4"),
    ):
        code, _, err = cli(*base, *given)
        assert code == status and said in err and "  fix: " in err and fix in err, err
