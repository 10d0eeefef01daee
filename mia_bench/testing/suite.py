"""What a conformance check is, and how pytest gets one test for each."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mia_bench.attack import Attack, Control
from mia_bench.dataset import Dataset
from mia_bench.encoder import Encoder
from mia_bench.errors import BrokenPluginError, MiaBenchError, UsageError
from mia_bench.target import Target


class NonconformingError(BrokenPluginError):
    """A plugin failed a check: which one, what was expected and found, and the fix."""

    def __str__(self) -> str:
        return f"{self.what}\n  {self.why}\n  fix: {self.fix}"


class Fault(Exception):  # noqa: N818  it is about the plugin, not an error of ours
    """Raised by a check: what was found instead of what its docstring asks for.

    Args:
        found: What is wrong.
        fix: What the author can do.
    """

    def __init__(self, found: str, fix: str) -> None:
        self.found, self.fix = found, fix
        super().__init__(found, fix)


class NotHere(Exception):  # noqa: N818
    """Raised by a check that needs what is not on this machine, and must be shown as skipped."""


class Case(ABC):
    """One plugin under test; what its checks share is made once, when first asked for."""

    kind: ClassVar[str]
    plugin: Any

    @property
    def name(self) -> str:
        """As on the command line."""
        return str(getattr(getattr(self.plugin, "meta", None), "name", self.plugin.__name__))


@dataclass(frozen=True)
class Check:
    """One check of one plugin; call it to run it as a test.

    Attributes:
        case: The plugin, and what its checks share.
        body: The check; the first line of its docstring says what is expected.
        exempt: Why this plugin is exempt, or nothing.
    """

    case: Case
    body: Callable[[Any], None]
    exempt: str = ""

    @property
    def name(self) -> str:
        """As `exempt` and the test's id name it."""
        return named(self.body)

    @property
    def id(self) -> str:
        """Of the test: plugin and check."""
        return f"{self.case.name}-{self.name}"

    def run(self) -> None:
        """Run it, exempt or not.

        Raises:
            NonconformingError: The plugin fails it.
            NotHere: What it needs is not on this machine.
        """
        from mia_bench.engine.blame import fault

        try:
            self.body(self.case)
        except Fault as error:
            raise self._failed(error.found, error.fix) from error.__cause__
        except NotHere:
            raise
        except MiaBenchError as error:
            raise self._failed(str(error), error.fix or "fix the plugin") from error
        except Exception as error:
            where = "fix the plugin; MIA_BENCH_DEBUG=1 prints the traceback"
            raise self._failed(fault(error, self.case.plugin), where) from error

    def _failed(self, found: str, fix: str) -> NonconformingError:
        expected = inspect.cleandoc(self.body.__doc__ or "").partition("\n\n")[0]
        what = f"{self.case.kind} {self.case.name} fails the check {self.name!r}"
        return NonconformingError(what, f"expected: {' '.join(expected.split())}\n  found: {found}", fix)

    def __call__(self) -> None:
        """As a test: fails with the message alone, and is skipped where the plugin is exempt."""
        import pytest

        if self.exempt:
            pytest.skip(f"declared exempt: {self.exempt}")
        said: NotHere | NonconformingError
        try:
            return self.run()
        except (NotHere, NonconformingError) as error:
            said = error
        # Outside of the block, or pytest would print the message once more as the cause.
        if isinstance(said, NotHere):
            pytest.skip(str(said))
        pytest.fail(str(said), pytrace=False)


def named(body: Callable[[Any], None]) -> str:
    """The name of a check, by its function."""
    return body.__name__.replace("_", "-")


def checks(plugin: type, exempt: Mapping[str, str] | None = None, **settings: Any) -> list[Check]:
    """The checks of a plugin, as `conformance` takes them.

    Raises:
        UsageError: It is no plugin class, or an exemption names no check or no reason.
    """
    case, bodies = _case(plugin, settings)
    names, exempt = [named(body) for body in bodies], exempt or {}
    for name, reason in exempt.items():
        if name not in names:
            raise UsageError(f"exempt={{{name!r}: ...}}", "there is no such check", f"known: {', '.join(names)}")
        if not reason.strip():
            raise UsageError(f"exempt={{{name!r}: ...}}", "it gives no reason", "say why the check cannot hold")
    return [Check(case, body, exempt.get(named(body), "")) for body in bodies]


def conformance(plugin: type, exempt: Mapping[str, str] | None = None, **settings: Any) -> Callable[[Check], None]:
    """Tests of a plugin, one for each check, under any name that pytest collects.

    Args:
        plugin: A class of an attack, control, dataset, target or encoder.
        exempt: Name of a check -> why this plugin cannot satisfy it.
        settings: Of an attack, `preset` (`quick` if it has one, else its defaults), `params` set beside it, and `rtol`
            (how far terms may differ between row counts; 1e-5). Of the others, `argument`: what follows the name, or a
            function that is given an empty folder, puts a small copy there and returns the argument. Of a target,
            `options` and three `captions`.

    Returns:
        A test function, parametrised by check.

    Raises:
        UsageError: As `checks`.
    """
    import pytest

    @pytest.mark.parametrize("check", checks(plugin, exempt, **settings), ids=lambda check: check.id)
    def test_conformance(check: Check) -> None:
        __tracebackhide__ = True
        check()

    return test_conformance


def _case(plugin: type, settings: Mapping[str, Any]) -> tuple[Case, tuple[Callable[[Any], None], ...]]:
    """Imported when asked for: a plugin's tests pay for the checks of its own kind alone."""
    if isinstance(plugin, type):
        if issubclass(plugin, Attack):
            from mia_bench.testing import attacks

            return attacks.AttackCase(plugin, **settings), (
                attacks.CONTROL if issubclass(plugin, Control) else attacks.ATTACK
            )
        if issubclass(plugin, Dataset):
            from mia_bench.testing import datasets

            return datasets.DatasetCase(plugin, **settings), datasets.CHECKS
        if issubclass(plugin, Target):
            from mia_bench.testing import targets

            return targets.TargetCase(plugin, **settings), targets.CHECKS
        if issubclass(plugin, Encoder):
            from mia_bench.testing import encoders

            return encoders.EncoderCase(plugin, **settings), encoders.CHECKS
    what = f"conformance({getattr(plugin, '__name__', plugin)!s})"
    raise UsageError(what, "not a class of an attack, dataset, target or encoder", "give the class itself")
