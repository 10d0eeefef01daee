"""Commands on recorded results: mirror and leaderboard."""

import json

import tiny


def test_leaderboard_is_written_and_checked(cli, tiny_run, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(tiny_run("--json").out)
    assert cli("leaderboard", "--results", "results", "--check").status == 1, "there is no file yet"
    assert cli("leaderboard", "--results", "results").status == 0
    page = (tmp_path / "leaderboard.md").read_text()
    assert "## icons × tiny" in page and "| loss " in page
    assert cli("leaderboard", "--results", "results", "--check").status == 0
    (tmp_path / "leaderboard.md").write_text(page + "edited")
    stale = cli("leaderboard", "--results", "results", "--check")
    assert stale.status == 1 and "mia-bench leaderboard --results results" in stale.err
    assert (tmp_path / "leaderboard.md").read_text() == page + "edited", "--check writes nothing"
    assert cli("leaderboard", "--results", "nowhere").status == 5


def test_mirror_prints_a_row_for_each_attack(cli, tiny_run, tmp_path):
    assert tiny_run(limit=20).status == 0
    assert tiny_run("--dataset", "icons-mirror", "--target", "tiny:8", limit=20, out=tmp_path / "mirror").status == 0
    done = cli("mirror", "run", "mirror")
    assert "loss" in done.out and "pia" in done.out and "deviation" in done.out
    rows = json.loads(cli("mirror", "run", "mirror", "--json").out)
    assert {row["label"] for row in rows} == {"loss", "pia"}
    assert done.status == (0 if all(row["passes"] for row in rows) else 1)
    for row in rows:
        assert abs(row["deviation"] - (row["auc"] - row["auc_mirror"])) < 1e-9


def test_a_run_is_no_mirror_of_itself(cli, tiny_run):
    tiny_run()
    done = cli("mirror", "run", "run")
    assert done.status == 2 and "one model" in done.err and "fix:" in done.err


MEMORISED = """
from dataclasses import replace
from mia_bench import DatasetMeta, hookimpl
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji

class Seen(FluentEmoji):
    meta = DatasetMeta(name="seen", summary="some memorised", targets=("tiny",))

@hookimpl
def mia_bench_datasets():
    return [Seen]
"""


def test_memorised_images_are_two_tables_and_two_records(cli, tiny_run, tmp_path):
    (tmp_path / "seen.py").write_text(MEMORISED)
    asked = ("-p", "seen.py", "--dataset", "seen", "--positives", "memorised")
    done = tiny_run(*asked)
    assert done.status == 0
    headers = [line for line in done.out.splitlines() if line.startswith("seen on tiny:")]
    assert headers == [
        f"seen on tiny: 3 memorised images against 3 {others}; seed 0, float32"
        for others in ("other members", "non-members")
    ]
    assert done.out.count("\nloss ") == 2
    assert done.out.count("queries asked") == 1 and done.out.count("they fit for membership") == 1
    scored = cli("score", "run", "-p", tiny.__file__, "-p", "seen.py", "--positives", "memorised")
    assert scored.out == done.out.replace(str(tmp_path / "run"), "run")
    records = json.loads(tiny_run(*asked, "--json").out)
    assert [record["task"]["negatives"] for record in records] == ["members", "nonmembers"]
    one = tiny_run(*asked, "--negatives", "members", "--json").out
    assert json.loads(one) == records[0]
    (tmp_path / "one.json").write_text(one)
    assert headers[0] in cli("report", "one.json").out
    assert "3 members, 3 non-members" in cli("report", "run").out.splitlines()[0]


def test_memorised_images_that_are_not_there(cli, tiny_run, tmp_path):
    done = tiny_run("--positives", "memorised")
    assert done.status == 5
    assert "error: --positives memorised: dataset icons has no memorised images" in done.err and "fix:" in done.err
    assert not (tmp_path / "run").exists()
    assert tiny_run("--positives", "memorised", "--collect-only").status == 5
    assert tiny_run("--negatives", "members").status == 2
    assert tiny_run().status == 0
    assert cli("score", "run", "-p", tiny.__file__, "--positives", "memorised").status == 5
