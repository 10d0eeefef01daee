"""What `import mia_bench` offers, to programs and to type checkers."""

import subprocess
import sys

import pytest

import mia_bench


def test_every_contract_is_listed_and_there():
    assert set(mia_bench.__all__) <= set(dir(mia_bench))
    for name in mia_bench.__all__:
        assert getattr(mia_bench, name)
    with pytest.raises(AttributeError, match="Atack"):
        mia_bench.Atack  # noqa: B018


def test_a_type_checker_reports_a_name_that_does_not_exist(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text("from mia_bench import Atack, Attack\n")
    config = tmp_path / "mypy.ini"  # what the modules themselves hold is another run's business, and takes long
    config.write_text("[mypy]\nfollow_imports = skip\n[mypy-mia_bench]\nfollow_imports = normal\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        f"--config-file={config}",
        f"--cache-dir={tmp_path}",
        str(tmp_path / "mine.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1 and '"Atack"' in errors[0], done.stdout
