"""Every bundled encoder passes the conformance suite; large ones in a small copy, where one is made."""

import pytest
from small import blip, clip, dino

from mia_bench.plugins import Registry
from mia_bench.testing import checks

SMALL = {"clip": clip, "dino": dino, "blip": blip}
CHECKS = [
    check
    for name, cls in sorted(Registry.load().encoders.items())
    for check in checks(cls, argument=SMALL.get(name, ""))
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_conformance(check):
    check()
