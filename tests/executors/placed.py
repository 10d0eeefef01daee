"""Runs in other processes: a plugin file, a log of who measured what."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry

PLUGIN = Path(__file__).parent / "slowly.py"
OPTIONS = RunOptions(attacks="slowly,pia", dataset="icons", target="tiny", limit=12, threads=1, rows=4, batch=4)


class Place:
    """Where runs of one test are."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "log"
        self.registry = Registry.load([PLUGIN])

    def options(self, name, **options):
        return replace(OPTIONS, out=self.folder / name, **options)

    def run(self, name, **options):
        self.log.unlink(missing_ok=True)
        return run(self.registry, self.options(name, **options))

    def bytes(self, name):
        return (self.folder / name / "scores.parquet").read_bytes()

    def logged(self):
        """(pid, sample) for each measurement."""
        return [tuple(line.split()) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def measured(self):
        return Counter(sample for _, sample in self.logged())
