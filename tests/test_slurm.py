"""The recipe for SLURM, run as its array tasks would be."""

import os
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "examples" / "slurm"
OPTIONS = ["--attacks", "pia", "--limit", "6", "--threads", "1"]


def bash(script, *arguments, **variables):
    environment = {**os.environ, **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = ["bash", str(RECIPE / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_array_tasks_and_a_merge_are_one_run(tmp_path):
    folder = tmp_path / "a run"
    for task in (2, 1):
        early = bash("merge.sbatch", folder)
        assert early.returncode == 3 and ("it has no run.json" if task == 2 else "not fully measured") in early.stderr
        done = bash("measure.sbatch", 2, folder, *OPTIONS, SLURM_ARRAY_TASK_ID=str(task))
        assert done.returncode == 0, done.stderr
        assert f"shard {task}/2 is measured" in done.stdout
    text = (folder / "run.json").read_text(encoding="utf-8")
    assert '"command": "mia-bench run' in text and "--shard" not in text, "the command of the whole"
    merged = bash("merge.sbatch", folder)
    assert merged.returncode == 0, merged.stderr
    assert "pia" in merged.stdout and "6 members" in merged.stdout
