"""Commands on recorded results: mirror and leaderboard."""

import json


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
