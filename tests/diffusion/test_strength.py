import pytest

from mia_bench.diffusion.strength import steps_at


@pytest.mark.parametrize(
    ("steps", "strength", "taken"),
    [(50, 1.0, 50), (50, 0.4, 20), (50, 0.02, 1), (49, 0.02, 1), (10, 0.02, 1), (10, 0.0, 1), (100, 0.29, 29)],
)
def test_steps_of_a_strength(steps, strength, taken):
    assert steps_at(steps, strength) == taken
