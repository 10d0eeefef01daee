"""A folder for the runs of one test."""

import pytest
from placed import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOWLY_LOG", str(tmp_path / "log"))
    return Place(tmp_path)
