"""Dataset repositories of the Hugging Face hub: from its cache, else fetched once, at one revision, no code run."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from mia_bench.cache import cache_folder
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench_plugins.datasets.labels import SUFFIXES

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
DATA = {".parquet", *SUFFIXES}
PATTERNS = ["README.md", "*.csv", "*.jsonl", "*.txt", *(f"*{suffix}" for suffix in sorted(DATA))]
TIMEOUT_S = 10.0
logger = logging.getLogger("mia_bench")
FULL = (errno.ENOSPC, errno.EDQUOT)


def snapshot(name: str, repository: str, revision: str, patterns: Sequence[str] = PATTERNS) -> tuple[Path, str]:
    """The folder of a dataset repository at a revision, and its commit.

    The cache comes first, so that a branch means the same commit until somebody fetches it anew. A copy that was not
    fetched here may lack files: the hub is asked once, or the user told. HF_HUB_OFFLINE is respected.

    Raises:
        UsageError: Neither a folder nor the name of a repository.
        UnavailableError: It is not in the cache and cannot be fetched.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # of each attempt to reach it
    if not sys.stderr.isatty():
        disable_progress_bars()
    if not NAME.fullmatch(repository):
        raise UsageError(f"dataset {name}:{repository}", "no such folder", "check the path, or write OWNER/NAME")
    what = f"dataset {name}:{repository}" + (f" at revision {revision}" if revision else "")
    fetch = f"`hf download {repository} --repo-type dataset" + (f" --revision {revision}`" if revision else "`")
    page = f"https://huggingface.co/datasets/{repository}"
    get = partial(
        snapshot_download, repository, repo_type="dataset", revision=revision or None, allow_patterns=list(patterns)
    )
    try:
        path = None
        with suppress(LocalEntryNotFoundError):
            path = _with_data(Path(get(local_files_only=True)))
        if path and not _whole(path, repository, patterns):
            if why := _unreachable(repository, path.name):
                text = "%s: the copy in the hub's cache may lack files, and the hub cannot say: %s"
                logger.warning(text, what, why)
                return path, path.name
            before = _files(path)
            path = Path(get(revision=path.name))
            if more := len(_files(path)) - len(before):
                logger.warning("%s: %d files that the hub's cache lacked were fetched", what, more)
            _remember(path, repository, patterns)
        if path is None:
            if not constants.HF_HUB_OFFLINE:
                logger.warning("%s: fetching it into the hub's cache", what)
            path = _with_data(Path(get()))
            if path:
                _remember(path, repository, patterns)
    except GatedRepoError as error:
        fix = f"ask for access at {page}, then `hf auth login` and {fetch}"
        raise UnavailableError(what, "gated: its owner decides who may read it", fix) from error
    except RevisionNotFoundError as error:
        raise UnavailableError(what, "no such revision", f"{page}/commits/main lists them") from error
    except RepositoryNotFoundError as error:
        why = "no such dataset on the hub, or a private one"
        raise UnavailableError(what, why, "check the name; if it is private, `hf auth login` first") from error
    except HFValidationError as error:
        raise UsageError(what, "that is no name of a repository", "check the path, or write OWNER/NAME") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        why = "not whole in the hub's cache, and the hub cannot be reached"
        why += ": HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        fix = f"run {fetch} where there is a network, with the same HF_HOME; or name a local copy: {name}:PATH"
        raise UnavailableError(what, why, fix) from error
    except Exception as error:  # of the HTTP client and the file system
        full = getattr(error, "errno", None) in FULL
        why = "no room for it in the hub's cache" if full else f"{type(error).__name__}: {brief(error)}"
        raise UnavailableError(what, why, "set HF_HOME to a larger disk" if full else f"try {fetch}") from error
    if path is None:
        why = "neither parquet files nor images are in it" + (" that are here" if constants.HF_HUB_OFFLINE else "")
        fix = (
            f"see {page}; `{name}:{repository},revision=refs/convert/parquet` reads the copy that the hub makes of most"
        )
        raise UnavailableError(what, why, f"{fix}; {fetch} gets all of it")
    return path, path.name


def _with_data(path: Path) -> Path | None:
    """A snapshot that holds more than a card; one of which another program took only that is no use."""
    return path if any(p.suffix in DATA for p in path.rglob("*")) else None


def _files(snapshot: Path) -> list[str]:
    """Names of its files; a link whose blob is gone is none."""
    return sorted(p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file())


def _whole(snapshot: Path, repository: str, patterns: Sequence[str]) -> bool:
    """Whether it holds every file that a finished download of this commit left."""
    with suppress(OSError, ValueError):
        left = json.loads(_note(snapshot, repository, patterns).read_text(encoding="utf-8"))
        return set(left) <= set(_files(snapshot))
    return False


def _remember(snapshot: Path, repository: str, patterns: Sequence[str]) -> None:
    """That a download has finished; the hub's cache does not say so itself."""
    note = _note(snapshot, repository, patterns)
    with suppress(OSError):  # then the hub is asked again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(_files(snapshot)), encoding="utf-8")


def _note(snapshot: Path, repository: str, patterns: Sequence[str]) -> Path:
    key = json.dumps([repository, snapshot.name, *patterns])
    return cache_folder() / "downloads" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _unreachable(repository: str, commit: str) -> str:
    """Why the hub cannot be asked for this commit; empty if it can."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().dataset_info(repository, revision=commit, timeout=TIMEOUT_S)
    except Exception as error:  # of the HTTP client; or the repository is gone, and the copy is what is left of it
        return f"{type(error).__name__}: {brief(error)}"
    return ""
