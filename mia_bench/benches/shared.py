"""Runs that a pytest session makes once, however many items, tests and xdist workers ask for them."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mia_bench import errors
from mia_bench.errors import MiaBenchError

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class SharedRuns:
    """Where a session's run folders are.

    Attributes:
        root: Their parent; `--mia-runs`, or a folder of this session alone.
        session: Tells this session from earlier ones with the same root; all its workers have one.
        worker: Name of the xdist worker, if this is one.
    """

    root: Path
    session: str
    worker: str = ""

    @classmethod
    def of(cls, config: pytest.Config) -> SharedRuns:
        """Those of a session, whose workers share a root."""
        worker = getattr(config, "workerinput", {})
        session = str(worker.get("testrunuid", uuid.uuid4().hex))
        if kept := config.getoption("mia_runs"):
            root = Path(config.invocation_params.dir, kept)
        elif (temporary := getattr(config, "_tmp_path_factory", None)) is not None:
            # A worker's own folder is inside of the session's.
            base = temporary.getbasetemp()
            root = (base.parent if worker else base) / f"mia-bench-{session[:8]}"
        else:  # -p no:tmpdir
            root = Path(tempfile.gettempdir()) / f"mia-bench-{session}"
        return cls(root, session, str(worker.get("workerid", "")))

    def once(self, name: str, work: Callable[[Path], None]) -> Path:
        """The folder `name` after `work(folder)`, which whoever comes first does while the others wait.

        Raises:
            MiaBenchError: What `work` raised, for whoever asks.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        note = self.root / f"{name}.json"
        with FileLock(self.root / f".{name}.lock"):
            if (done := self._read(note)) is None:
                try:
                    work(self.root / name)
                    done = {}
                except MiaBenchError as error:
                    done = {"kind": type(error).__name__, "said": [error.what, error.why, error.fix]}
                note.write_text(json.dumps({"session": self.session, **done}) + "\n", encoding="utf-8")
        if "said" in done:
            kind: type[MiaBenchError] = getattr(errors, str(done["kind"]), MiaBenchError)
            raise kind(*done["said"])
        return self.root / name

    def _read(self, note: Path) -> dict[str, Any] | None:
        """How it ended in this session, if it has."""
        try:
            found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # none yet, or of a session that was killed while it wrote
            return None
        return found if found["session"] == self.session else None
