"""SecMI on models whose last timestep is pure noise."""

import warnings

import numpy as np
import pytest
import tiny

from mia_bench.diffusion.schedule import Schedule
from mia_bench_plugins.attacks.secmi import SecMI


def errors(signal, t):
    target = tiny.Tiny()
    target.open(rows=4)
    target.schedule = target.denoiser.schedule = Schedule(signal, np.sqrt(1 - signal**2))
    batch = tiny.batch_of(target, tiny.icons(2, 2))
    attack = SecMI(SecMI.Params(t=t).resolved("latent"))
    return attack.measure(batch, target)["error"]


def test_the_last_timestep_counts_where_it_is_reached_alone():
    signal = np.linspace(0.99, 0.1, 200)
    wanted = errors(signal, 100)
    signal[-1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = errors(signal, 100)
    assert (found == wanted).all() and found.isfinite().all()
    with pytest.raises(ValueError, match="timestep 199 is pure noise"):
        errors(signal, 189)
