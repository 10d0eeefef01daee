"""The `mia-bench` command: one file per subcommand, loaded when called."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import sys
import time
from typing import Any, NoReturn

import click

from mia_bench.errors import ExitStatus, MiaBenchError

COMMANDS = {
    "run": "Run attacks on a dataset and a target, and print the table.",
    "fetch": "Download the images of a dataset that is a list of urls, or the weights of a target.",
    "list": "List attacks, datasets, targets and plugins.",
    "describe": "Describe one attack, dataset or target.",
    "inspect": "Show what a dataset is like before any model is asked.",
    "score": "Score a run again from its stored measurements.",
    "merge": "Join what `run --shard` measured apart, check that nothing is lacking, and score it.",
    "import": "Make a run of per-sample scores that another program computed.",
    "report": "Print the table of a finished run, write a page of it, or compare runs.",
    "runs": "List the runs in a folder.",
    "doctor": "Say what this machine has, and which attacks can be run on a target.",
    "compare": "Hold a run against a baseline: the same scores, or no more leakage.",
    "mirror": "Compare a run with one on the mirrored target.",
    "audit": "Say with error rates whether a model was trained on images, as a set and one by one.",
    "leaderboard": "Write leaderboard.md from recorded results.",
    "new": "Write the skeleton of an attack, dataset, target or encoder, with its test.",
}


OUTPUT_FAULTS = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG}  # of a write; a file that was opened names itself


class LazyGroup(click.Group):
    """Imports a subcommand only when it is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` is a subcommand's module once that is imported

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mia_bench.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from mia_bench.plugins import suggest

            raise click.UsageError(f"unknown command {args[0]!r}: {suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            print(end="", flush=True)  # while a full disk can still be told
        except (OSError, EOFError) as error:
            raise _PastClickError(error) from error
        return status


class _PastClickError(Exception):
    """Carries what click would take for Ctrl-C (EOFError) or end with its own status (a broken pipe)."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(error)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mia-bench")
def group() -> None:
    """Was this image used to train this diffusion model? Membership-inference attacks, one harness, one table.

    Exit status: 0 fine, 1 a test or check failed, 2 usage, 3 data or weights unavailable or samples left out, 4 a
    selected plugin is broken or an attack failed, 5 nothing selected, run or compared, 70 internal error, 130
    interrupted (run again to resume).
    """


def main() -> None:
    """Entry point: turns errors into messages and exit statuses."""
    # Weights come from where the user says; nothing is looked up on the network behind their back.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        status = group.main(standalone_mode=False, obj=time.time())  # for who asks how long starting took
        sys.exit(status if isinstance(status, int) else ExitStatus.OK)
    except click.exceptions.Abort as error:  # click's name for Ctrl-C; a run says in it what it keeps
        if not isinstance(error.__context__, KeyboardInterrupt):
            _internal(error)
        click.echo(": ".join(["interrupted", *map(str, error.__context__.args)]), err=True)
        sys.exit(ExitStatus.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except MiaBenchError as error:
        _fail(error.what, error.why, error.fix, error.status)
    except _PastClickError as error:
        _unexpected(error.error)
    except Exception as error:
        _unexpected(error)


def _unexpected(error: Exception) -> NoReturn:
    if isinstance(error, BrokenPipeError) and _reader_left():  # as `| head` does; no fault
        _drop_output()
        sys.exit(ExitStatus.OK)
    if isinstance(error, OSError) and error.filename is None and error.errno in OUTPUT_FAULTS:
        _drop_output()
        why = error.strerror or str(error)
        _fail("standard output", why, "free some space or send the output elsewhere, and run again")
    _internal(error)


def _internal(error: Exception) -> NoReturn:
    if os.environ.get("MIA_BENCH_DEBUG"):
        raise error
    _fail(
        f"internal error: {type(error).__name__}",
        str(error),
        "set MIA_BENCH_DEBUG=1 for the traceback and report it",
        ExitStatus.INTERNAL,
    )


def _fail(what: str, why: str = "", fix: str = "", status: ExitStatus = ExitStatus.USAGE) -> NoReturn:
    from mia_bench.report.text import printable

    with contextlib.suppress(OSError):  # nobody can be told; the status still says it
        click.echo(f"error: {printable(what)}" + (f": {printable(why)}" if why else ""), err=True)
        if fix:
            click.echo(f"  fix: {printable(fix)}", err=True)
    sys.exit(status)


def _reader_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _drop_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
