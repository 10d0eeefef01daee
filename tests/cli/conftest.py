"""The command as a user calls it, in this process."""

import sys
from dataclasses import dataclass

import pytest
import tiny

from mia_bench.cli import main


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def all(self):
        return self.out + self.err


@pytest.fixture
def cli(capfd, monkeypatch, tmp_path):
    """`cli("run", ...)`: its exit status and what it printed; the current folder is a temporary one."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mia-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture
def tiny_run(cli, tmp_path):
    """`mia-bench run` of quick attacks on the tiny target."""

    def call(*arguments, out=tmp_path / "run", limit=3, attacks="loss,pia"):
        options = ["--attacks", attacks, "--target", "tiny", "-p", tiny.__file__, "--limit", limit, "--out", out]
        return cli("run", *options, *arguments)

    return call
