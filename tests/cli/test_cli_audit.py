"""`mia-bench audit`: of a run, and of a model and folders of images that are run first."""

import json

import pytest
import tiny

from mia_bench.evidence import Audit


@pytest.fixture
def folders(tmp_path):
    """`unseen/` and `mine/`: embedded icons as files, one of them damaged."""
    samples = tiny.icons(0, 30, unknown=4)
    for name, member in (("unseen", False), ("mine", None)):
        (tmp_path / name).mkdir()
        for sample in samples:
            if sample.member is member:
                sample.open().save(tmp_path / name / f"{sample.id}.png")
    (tmp_path / "mine" / "damaged.png").write_bytes(b"no image")


def test_of_a_run_in_words_and_in_json(cli, tiny_run):
    tiny_run(limit=25)
    done = cli("audit", "run", "-p", tiny.__file__, "--draws", 5)
    assert done.status == 0, done.err
    for part in ("Was tiny trained on these images?", "25 images in question, 25 images known to be unseen"):
        assert part in done.out
    for title in ("ALL IMAGES TOGETHER", "ONE BY ONE", "WHAT THIS MEANS, AND WHAT NOT"):
        assert f"\n\n{title}\n" in done.out
    found = Audit.model_validate(json.loads(cli("audit", "run", "-p", tiny.__file__, "--draws", 5, "--json").out))
    assert found.attacks == ("loss", "pia") and len(found.images) == 25 and found.set.n == 25


def test_the_run_keeps_the_results_that_it_has(cli, tiny_run, tmp_path):
    tiny_run(limit=12, attacks="logged,loss")
    plain = (tmp_path / "run" / "scores.parquet").read_bytes()
    assert cli("score", "run", "-p", tiny.__file__, "-o", "logged.scale=3").status == 0
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("results.json", "scores.parquet", "run.json")}
    assert kept["scores.parquet"] != plain
    for options in ((), ("-o", "logged.scale=-1")):
        assert "12 images in question" in cli("audit", "run", "-p", tiny.__file__, "--draws", 0, *options).out
        assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept


def test_of_a_model_and_folders_which_are_run_first(cli, folders):
    asked = ("--target", "tiny", "-p", tiny.__file__, "--dataset", "folder:unseen", "--suspects", "folder:mine")
    done = cli("audit", *asked, "--attacks", "loss", "--draws", 0, "--out", "audited")
    assert done.status == 3, "a sample was left out"
    assert "left out 'suspects/damaged.png'" in done.err
    assert "4 images in question, 30 images known to be unseen (1 more could not be used)" in done.out
    assert "images: folder:mine beside folder:unseen" in done.out and "suspects/" in done.out
    again = cli("audit", "audited", "-p", tiny.__file__, "--draws", 0)
    assert again.out == done.out, "the folder holds all that it takes"
    cheap = cli("audit", *asked, "--draws", 0, "--out", "cheap")
    assert "\nattacks: pia, sima, loss, pfami\n" in cheap.out, "what needs captions is left out where none has one"


def test_too_few_for_any_verdict_is_status_5(cli, tiny_run):
    tiny_run(limit=2)
    done = cli("audit", "run", "-p", tiny.__file__)
    assert done.status == 5 and "Too thin" in done.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "nothing to audit is named"),
        (["nowhere"], 3, "it has no run.json"),
        (["run", "--target", "tiny"], 2, "has been run already"),
        (["run", "--suspects", "folder:x"], 2, "has been run already"),
        (["run", "--attacks", "clid"], 2, "no scores of it on both"),
        (["run", "--attacks", "clod"], 2, "clid"),
        (["--target", "tiny", "--dataset", "folder:nowhere"], 3, "nowhere"),
    ],
)
def test_mistakes_are_named(cli, tiny_run, arguments, status, said):
    tiny_run()
    done = cli("audit", "-p", tiny.__file__, *arguments)
    assert done.status == status and said in done.err and "fix:" in done.err, done.err


def test_the_page_has_the_pictures_of_images_from_elsewhere(cli, folders, tmp_path):
    asked = ("--target", "tiny", "-p", tiny.__file__, "--dataset", "folder:unseen", "--suspects", "folder:mine")
    cli("audit", *asked, "--attacks", "loss", "--draws", 0, "--out", "audited")
    done = cli("audit", "audited", "-p", tiny.__file__, "--draws", 0, "--html", "page.html", "--pictures", 3)
    assert done.out.endswith("page: page.html\n")
    shown = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert shown.count('<img src="data:') == 3 and "Was tiny trained on these images?" in shown
    assert "mia-bench audit audited -p" in shown and "--suspects folder:mine" in shown


def test_a_single_image_is_headed_as_one(cli, folders, tmp_path):
    (tmp_path / "mine" / "damaged.png").unlink()
    for file in sorted((tmp_path / "mine").iterdir())[1:]:
        file.unlink()
    asked = ("--target", "tiny", "-p", tiny.__file__, "--dataset", "folder:unseen", "--suspects", "folder:mine")
    done = cli("audit", *asked, "--attacks", "loss", "--draws", 0)
    assert "\nTHE IMAGE\n" in done.out and "ITS PLACE AMONG THE UNSEEN" in done.out
    assert "among all" not in done.out and "ALL ATTACKS" not in done.out
