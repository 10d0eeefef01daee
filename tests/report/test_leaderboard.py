"""The leaderboard shows what was recorded, and nothing that does not belong together."""

import json

import pytest
import tiny

from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.report.leaderboard import leaderboard as page_of
from mia_bench.report.markdown import markdown
from mia_bench.report.verdicts import LEGEND
from mia_bench_plugins.controls import blind


def leaderboard(folder):
    return page_of(folder, "results")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two seeds on one target, and another target."""
    place = tmp_path_factory.mktemp("runs")
    made = tiny.registry(blind, samples=tiny.icons(20, 20, (4, 4)))
    runs = {f"tiny-{seed}": tiny.go(place / str(seed), made, attacks="loss,pia,clid", seed=seed) for seed in (1, 0)}
    runs["other"] = tiny.go(place / "other", made, attacks="loss", target="tiny:8")
    return {name: result.model_dump(mode="json") for name, result in runs.items()}


@pytest.fixture
def folder(results, tmp_path):
    for name, content in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "speed.json").write_text('{"benchmark": "speed"}')
    return tmp_path


def cells(page, section, label):
    part = page.split(f"## {section}\n")[1].split("## ")[0]
    line = next(line for line in part.splitlines() if line.startswith(f"| {label} "))
    found = [cell.strip() for cell in line.strip("|").split("|")]
    return [found[0], *found[2:]]  # without N


def test_one_section_for_each_dataset_and_target(folder):
    page = leaderboard(folder)
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## given × tiny", "## given × tiny:8"]


def test_a_row_shows_the_lowest_seed_and_the_spread_over_seeds(folder, results):
    page = leaderboard(folder)
    row = cells(page, "given × tiny", "loss")
    auc = {
        name: next(r for r in results[name]["rows"] if r["label"] == "loss")["evaluation"]["auc"] for name in results
    }
    first = auc["tiny-0"]
    assert row[1] == f"{first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}]"
    mean = (auc["tiny-0"]["value"] + auc["tiny-1"]["value"]) / 2
    assert row[2].startswith(f"{mean:.3f} ± ") and row[2].endswith("(2)")
    assert cells(page, "given × tiny:8", "loss")[2] == "", "one seed has no spread"


def test_rows_are_sorted_by_auc_with_blind_beside_and_below(folder):
    part = leaderboard(folder).split("## given × tiny\n")[1].split("\n\n")[0].strip()
    header, _, *lines = part.splitlines()
    names = [cell.strip() for cell in header.strip("|").split("|")]
    rows = [dict(zip(names, (c.strip() for c in line.strip("|").split("|")), strict=True)) for line in lines]
    attacks = [row for row in rows if row["verdict"] != "control"]
    assert rows[: len(attacks)] == attacks, "controls come last"
    assert len(attacks) == 3 and {row["N"] for row in rows} == {"40"}
    assert all(0 <= float(row["blind"]) <= 1 and row["verdict"] in LEGEND for row in attacks)
    values = [float(row["AUC [95 %]"].split()[0]) for row in attacks]
    assert values == sorted(values, reverse=True)


def test_provenance_is_named(folder, results):
    page = leaderboard(folder)
    first = results["tiny-0"]
    for text in (first["samples_hash"][:12], first["target_fingerprint"][:12], "noise seeds 0, 1", "torch "):
        assert text in page


def test_the_page_does_not_depend_on_file_names_or_order(folder, results, tmp_path):
    before = leaderboard(folder)
    (folder / "tiny-0.json").rename(folder / "z.json")
    assert leaderboard(folder) == before


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("samples_hash", "0" * 32, "samples_hash"),
        ("target_fingerprint", "0" * 24, "target_fingerprint"),
        ("dtype", "float16", "dtype"),
        ("dataset_revision", "2", "dataset_revision"),
        ("latent", "sample", "latent"),
        ("independent_noise", True, "independent_noise"),
        ("noise", "recorded:0", "recorded noise"),
        ("n_members", 3, "n_members"),
        ("seed", 0, "seed 0 twice"),
    ],
)
def test_what_does_not_belong_together_is_refused(folder, results, field, value, why):
    (folder / "tiny-1.json").write_text(json.dumps({**results["tiny-1"], field: value}))
    with pytest.raises(UsageError, match=why):
        leaderboard(folder)


@pytest.mark.parametrize("change", [{"params": {"t": 1}}, {"definition": "another version"}, {"n": 39}])
def test_rows_that_were_made_otherwise_are_refused(folder, results, change):
    content = json.loads(json.dumps(results["tiny-1"]))
    next(r for r in content["rows"] if r["label"] == "loss").update(change)
    (folder / "tiny-1.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="loss"):
        leaderboard(folder)


def without_pia(content):
    return json.dumps(content | {"rows": [r for r in content["rows"] if r["label"] != "pia"]})


def test_an_attack_that_the_first_seed_lacks_is_no_silent_gap(folder, results):
    (folder / "tiny-0.json").write_text(without_pia(results["tiny-0"]))
    with pytest.raises(UsageError, match="pia"):
        leaderboard(folder)


def test_an_attack_that_a_later_seed_lacks_says_so(folder, results):
    (folder / "tiny-1.json").write_text(without_pia(results["tiny-1"]))
    page = leaderboard(folder)
    assert cells(page, "given × tiny", "loss")[2].endswith("(2)")
    assert cells(page, "given × tiny", "pia")[2] == "", "no spread over one seed"


def test_an_unfinished_run_is_no_result(folder, results):
    (folder / "other.json").write_text(json.dumps({**results["other"], "unfinished": "4 of 6 samples are measured"}))
    with pytest.raises(UsageError, match=r"other\.json: unfinished"):
        leaderboard(folder)


def test_provenance_cannot_break_out_of_its_line(folder, results):
    hostile = [{"device": {"name": "<img src=x> [x](http://evil)"}}]
    (folder / "other.json").write_text(json.dumps({**results["other"], "environments": hostile}))
    page = leaderboard(folder)
    assert "<img" not in page.replace("\\<img", "") and "[x](" not in page.replace("\\[x\\](", "")


def test_damaged_files_are_named(folder):
    (folder / "bad.json").write_text("{")
    with pytest.raises(UnavailableError, match=r"bad\.json"):
        leaderboard(folder)
    (folder / "bad.json").write_text('{"schema_version": 1, "rows": []}')
    with pytest.raises(UnavailableError, match=r"bad\.json"):
        leaderboard(folder)


def test_an_empty_folder_is_no_leaderboard(tmp_path):
    with pytest.raises(NothingError):
        leaderboard(tmp_path)


def test_names_cannot_break_out_of_a_cell():
    assert markdown("a|b [x](http://y) <b>`c`\n\x1b[1m") == r"a\|b \[x\](http://y) \<b\>\`c\` " + "�" + r"\[1m"


def test_failed_rows_say_why(tmp_path):
    made = tiny.registry(tiny.plugin([tiny.attack("bad", score=lambda s, m, c: 1 / 0)]), samples=tiny.icons(6, 6))
    result = tiny.go(tmp_path / "run", made, attacks="bad,loss")
    (tmp_path / "bad.json").write_text(result.model_dump_json())
    row = cells(leaderboard(tmp_path), "given × tiny", "bad")
    assert "failed" in row and "ZeroDivisionError" in row[-1]


def test_the_mirror_test_is_shown_where_it_was_made(folder):
    row = {"label": "loss", "deviation": -0.02, "low": -0.05, "high": 0.01, "passes": True}
    rows = [row, {**row, "label": "pia", "deviation": 0.3, "low": 0.2, "high": 0.4, "passes": False}]
    (folder / "mirror.json").write_text(json.dumps({"benchmark": "mirror", "runs": ["tiny", "x"], "attacks": rows}))
    page = leaderboard(folder)
    assert "-0.020 [-0.050, +0.010]" in cells(page, "given × tiny", "loss")
    assert "+0.300 [+0.200, +0.400]; the split shows" in cells(page, "given × tiny", "pia")
    assert "mirror" not in page.split("## given × tiny:8\n")[1], "no column where nothing was tested"
    (folder / "mirror.json").write_text('{"benchmark": "mirror", "attacks": [{}], "runs": []}')
    with pytest.raises(UnavailableError, match=r"mirror\.json"):
        leaderboard(folder)
