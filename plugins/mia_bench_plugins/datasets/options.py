"""What follows a dataset's name: a place, then options, as in `parquet:PATH,caption=text,member=seen`.

Commas rather than `?` and `&`, which a shell would take for itself. A comma belongs to the path unless a word and `=`
follow it. An option may be empty: `split_column=` says that the column of that name is none of ours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import suggest

OPTION = re.compile(r",(?=[a-z_]+=)")


class Options(BaseModel):
    """Base class of a dataset's options; values come as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = TypeVar("T", bound=Options)


def parse(name: str, argument: str, options: type[T]) -> tuple[str, T]:
    """The place and the options of a dataset's argument.

    Raises:
        UsageError: An option that it does not have, given twice, or whose value means nothing.
    """
    place, *parts = OPTION.split(argument)
    given: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key in given:
            raise UsageError(f"dataset {name}, option {key}", "given twice", "give it once")
        given[key] = value
    try:
        return place, options.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        unknown = problem["type"] == "extra_forbidden"
        why = f"no such option; {suggest(key, options.model_fields)}" if unknown else problem["msg"]
        fix = f"`mia-bench describe {name}` says what it takes"
        raise UsageError(f"dataset {name}, option {key}", why, fix) from None


def folder_of(name: str, place: str, how: str = "") -> Path:
    """The folder that the user named.

    Args:
        name: Of the dataset.
        place: What was written after the colon.
        how: How to get the data, when nothing was written.

    Raises:
        UsageError: Nothing was named.
        UnavailableError: It is not there.
    """
    if not place:
        fix = f"write --dataset {name}:PATH"
        raise UsageError(f"dataset {name}", "no path given", f"{how}; then {fix}" if how else fix)
    root = Path(place).expanduser()
    if not root.is_dir():
        why = "not a folder" if root.exists() else "no such folder"
        raise UnavailableError(f"dataset {name}:{place}", why, f"check the path; {how}" if how else "check the path")
    return root
