"""The ledger: what became of every url, a line each time it was asked, never rewritten."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mia_bench.errors import UnavailableError, UsageError


class Row(BaseModel):
    """What asking one url gave.

    Attributes:
        id: The sample's id.
        kind: Its class: `members`, `nonmembers`, `memorised`.
        url: As the list has it.
        final_url: Where the redirects led.
        status: HTTP status of `final_url`, if it answered.
        content_type: As the server has it.
        bytes: Length of the body, if one was read.
        sha256: Of the body; only if it is an image that can be used.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        error: Why there is no image, in a word; empty if there is one.
        note: The same in a line.
        attempts: How often it was asked for this row.
        time: When it was settled, UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    kind: str
    url: str
    final_url: str = ""
    status: int | None = None
    content_type: str = ""
    bytes: int | None = None
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    error: str = ""
    note: str = ""
    attempts: int = 0
    time: str = ""


# Asking again, on another day, would hardly help.
SETTLED = {"scheme", "bad-url", "redirects", "noai", "encoding", "html", "not-image", "too-small", "too-big"}
UNSETTLED_STATUS = {403, 408, 425, 429}  # refusals that may be of the day


def settled(row: Row) -> bool:
    """Whether a url that gave no image need not be asked again on the next run."""
    if row.error.startswith("http-"):
        status = row.status or 0
        return 400 <= status < 500 and status not in UNSETTLED_STATUS
    return row.error in SETTLED


class Ledger:
    """JSON lines in one file. Of several lines of one id, the last counts.

    A line is written at once, so a kill leaves at most one torn line; one that cannot be read counts as never written,
    and its url is asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def rows(self) -> dict[str, Row]:
        """The last row of each id.

        Raises:
            UnavailableError: The file cannot be read.
        """
        found: dict[str, Row] = {}
        try:
            with self.path.open("rb") as file:
                for line in file:
                    with contextlib.suppress(ValidationError):
                        row = Row.model_validate_json(line)
                        found[row.id] = row
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UnavailableError(f"ledger {self.path}", error.strerror or str(error), "make it readable") from error
        return found

    @contextlib.contextmanager
    def appending(self) -> Iterator[None]:
        """Hold the file open for `append`.

        Raises:
            UsageError: It cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":  # a torn line ends here
                self._write(b"\n")
            yield
            with writing(self.path):
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = None

    def append(self, row: Row) -> None:
        """Add a row.

        Raises:
            UsageError: It cannot be written.
        """
        self._write(row.model_dump_json(exclude_defaults=True).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        assert self._file is not None, "only within `appending`"
        with writing(self.path):
            size = os.fstat(self._file).st_size
            try:
                while line:
                    line = line[os.write(self._file, line) :]
            except OSError:  # a disk that is full takes a part
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A file of the cache that cannot be written is named, with the way out.

    Raises:
        UsageError: On any OSError within.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise UsageError(
            f"cache {path}",
            f"cannot be written: {error.strerror or error}",
            "free some space, or move the folder and name it with MIA_BENCH_CACHE, and run the same command again: it "
            "goes on where it stopped"
            if full
            else "name a folder you may write to with the environment variable MIA_BENCH_CACHE",
        ) from error
