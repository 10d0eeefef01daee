"""Snapshots of hub repositories: only the files a model needs, at one commit, from the cache where there is no network.

The work is huggingface_hub's, with its cache (HF_HUB_CACHE), its token (`hf auth login`) and its HF_HUB_OFFLINE.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from mia_bench.diffusion.checkpoint import INDEX, TEXTS
from mia_bench.errors import MiaBenchError, UnavailableError, UsageError, brief

REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


def parse(spec: str, revision: str | None = None) -> tuple[str, str | None]:
    """`owner/name` or `owner/name@REVISION` to repository and revision.

    Raises:
        UsageError: Two revisions.
    """
    match = REPOSITORY.fullmatch(spec)
    name, own = (match["name"], match["revision"]) if match else (spec, None)
    if own and revision and own != revision:
        raise UsageError(f"--revision {revision}", f"{spec} names another", "give one of them")
    return name, own or revision


def is_repository(spec: str) -> bool:
    """Whether `spec` is written like a hub repository, and is no path."""
    return bool(REPOSITORY.fullmatch(spec)) and not spec.startswith((".", "~")) and not Path(spec).exists()


def patterns(parts: Iterable[str], variant: str = "", suffix: str = "safetensors") -> list[str]:
    """What is fetched of these parts: texts, and the weights of one precision and format."""
    found = [INDEX]
    for part in parts:
        found += [f"{part}/*{s}" for s in sorted(TEXTS)]
        found += [f"{part}/{stem}{variant}.{suffix}" for stem in STEMS]
        found += [f"{part}/{stem}-?????-of-?????{variant}.{suffix}" for stem in STEMS]
        found += [f"{part}/{stem}{variant}-?????-of-?????.{suffix}" for stem in STEMS if variant]
    return found


def snapshot(repository: str, revision: str | None, wanted: Sequence[str]) -> Path:
    """The folder of a repository's files at one commit, whose name is the commit's.

    Args:
        repository: `owner/name`.
        revision: Branch, tag or commit; the main branch if not given.
        wanted: Patterns of the files.

    Raises:
        UnavailableError: It cannot be had; the message says what to do.
    """
    return _snapshot(repository, revision, tuple(wanted))


@cache  # a branch does not move within a process
def _snapshot(repository: str, revision: str | None, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    # `*` matches slashes too.
    nested = None if any("/" in pattern for pattern in wanted) else ["*/*"]
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(wanted), ignore_patterns=nested)
        )
    except Exception as error:  # huggingface_hub's, the HTTP client's and the file system's
        raise refusal(error, repository, revision, wanted) from error


def refusal(error: Exception, repository: str, revision: str | None, wanted: Sequence[str] = ()) -> MiaBenchError:
    """What to tell the user of an error of the hub."""
    from huggingface_hub import constants

    names = {cls.__name__ for cls in type(error).__mro__}
    page = f"{constants.ENDPOINT}/{repository}"
    what = f"repository {repository}" + (f" at {revision}" if revision else "")
    if "GatedRepoError" in names:
        fix = f"ask for access at {page}, then `hf auth login`"
        return UnavailableError(what, "it is gated, and no token here has access", fix)
    if "RevisionNotFoundError" in names:
        fix = f"leave out --revision, or give a commit, tag or branch of {page}/commits/main"
        return UnavailableError(what, "it has no such revision", fix)
    if "RepositoryNotFoundError" in names or getattr(getattr(error, "response", None), "status_code", 0) == 401:
        fix = f"check the name at {page}; for a private one `hf auth login`, for a folder give its path"
        return UnavailableError(what, "there is no such repository, or it is private", fix)
    if isinstance(error, OSError) and error.errno in FULL:
        why = f"no room for it in {constants.HF_HUB_CACHE}: {os.strerror(error.errno)}"
        return UnavailableError(what, why, "free some space, or set HF_HUB_CACHE to a folder on a larger disk")
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "IncompleteSnapshotError"} or _no_network(names):
        cached = f"not whole in the hub's cache, {constants.HF_HUB_CACHE}"
        why = f"{cached}, and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{cached}, and no network"
        fix = f"fetch it where there is one: `{fetching(repository, revision, wanted)}`"
        return UnavailableError(what, why, fix)
    if "HFValidationError" in names:
        return UnavailableError(what, "that is no name of a repository", "give owner/name, a folder or a file")
    return UnavailableError(what, f"{type(error).__name__}: {brief(error)}", f"run again; look at {page}")


def _no_network(names: set[str]) -> bool:
    return bool(names & {"ConnectError", "TimeoutException", "ConnectionError", "TransportError"})


def fetching(repository: str, revision: str | None, wanted: Sequence[str]) -> str:
    """The command that fills the hub's cache: with a pipeline, or with an adapter's own files."""
    at = [repository, *(["--revision", revision] if revision else [])]
    if INDEX in wanted:
        return shlex.join(["mia-bench", "fetch", "--weights", *at])
    include = [word for pattern in wanted for word in ("--include", pattern)]
    return shlex.join(["hf", "download", *at, *include, "--exclude", "*/*"])
