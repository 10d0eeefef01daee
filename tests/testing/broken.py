"""What tests of the conformance suite share: run the named check of a plugin, and see it fail as it should."""

import pytest

from mia_bench.testing import NonconformingError, checks


def the(check, plugin, **settings):
    """One check of a plugin."""
    return next(c for c in checks(plugin, **settings) if c.name == check)


def caught(check, plugin, *words, **settings):
    """The check fails, and the message names the plugin, the check, what was expected and found, and a fix."""
    one = the(check, plugin, **settings)
    with pytest.raises(NonconformingError) as error:
        one.run()
    text = str(error.value)
    assert f"{one.case.kind} {one.case.name} fails the check {check!r}" in text
    assert "\n  expected: " in text and "\n  found: " in text and "\n  fix: " in text
    assert error.value.fix and all(word in text for word in words), text
    return text
