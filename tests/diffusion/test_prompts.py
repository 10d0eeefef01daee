"""Prompts that keep guided steps on an inversion's way, on networks with one number for a prompt."""

import pytest
import tiny
import torch
from tiny import batch_of

from mia_bench.diffusion import prompts
from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import plain
from mia_bench.diffusion.prompts import kept_on_the_way, prompt_of
from mia_bench.diffusion.sampler import levels, walk

W = 7.5
SAMPLES = tiny.icons(5, 0)


class Heard(tiny.Tiny):
    """`output(x, t, c)`, where c `(R, 1, 1, 1)` is the prompt; 0 for the empty one."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def text_states(self, tokens):
        return (tokens != ord(" ")).sum(1).view(-1, 1, 1).float()

    def predict(self, x, t, encoder_hidden_states):
        return self.output(x, t, encoder_hidden_states.view(-1, 1, 1, 1))


def heard(x, t, c):
    """What the prompt adds grows with it, and with the image."""
    return 0.1 * torch.tanh(x) + 0.3 * torch.tanh(c) * (1 + x)


def way_of(target, batch, depth=5):
    path = levels(target, 50)[: depth + 1]
    return [batch.x0, *walk(target, batch.x0, path, batch.null, batch.null, label="destination")], path


def found(output=heard, start=(1.0, -0.5, 2.0), rows=(0, 1, 2), **options):
    target = Heard(output)
    target.open(rows=4)
    batch = batch_of(target, [SAMPLES[row] for row in rows])
    given = {"until": 2, "guidance": W, "steps": 12, "lr": 0.05, **options}
    with torch.no_grad():
        way, path = way_of(target, batch)
        target.denoiser.asked.clear()
        states = kept_on_the_way(target, torch.tensor(start).view(-1, 1, 1), way, path, batch.null, **given)
    return states.view(-1), target, (way, path)


def directly(target, way, path, start, row, loudness=0.0):
    """One sample, with autograd and torch's Adam on the equations as they stand."""
    schedule, p = target.schedule, torch.tensor(start, requires_grad=True)
    y, silent = plain(way[-1])[row].double(), torch.zeros(())
    for k in (5, 4, 3):
        t, to, z = path[k], path[k - 1], plain(way[k - 1])[row].double()
        adam = torch.optim.Adam([p], lr=0.05)

        def move(p, y=y, t=t, to=to):
            e_null, e_p = heard(y, t, silent), heard(y, t, p)
            return schedule.jump(y, e_null + W * (e_p - e_null), t, to), e_p - e_null

        for _ in range(12):
            moved, difference = move(p)
            loss = ((moved - z) ** 2).mean() + loudness * (difference**2).mean()
            if loss <= 1e-5 + 2e-5 * k:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
        y = move(p)[0].detach()
    return float(p.detach())


@pytest.mark.parametrize("loudness", [0.0, 1.0])
def test_it_is_adam_on_the_distance_from_the_way(loudness):
    start = (1.0, -0.5, 2.0)
    states, target, way = found(loudness=loudness)
    wanted = [directly(target, *way, p, row, loudness) for row, p in enumerate(start)]
    assert states.tolist() == pytest.approx(wanted, abs=2e-3)
    assert (states.abs() < 0.8 * torch.tensor(start).abs()).all(), "an image that nothing holds silences its prompt"


def test_loudness_counts():
    assert not torch.equal(found(loudness=0.0)[0], found(loudness=50.0)[0])


def test_queries_and_backward_passes_at_most():
    _, target, _ = found(lambda x, t, c: torch.where(c == 0, 0.0, 1 + 0 * c).expand_as(x))
    assert target.denoiser.asked[""] == 3 * 3 * (1 + 12 + 1)  # samples, levels
    assert target.denoiser.backward[""] == 3 * 3 * 12


def test_each_sample_stops_where_its_own_error_is_small():
    quiet = 1e-4
    states, target, _ = found(start=(1.0, quiet, 2.0))
    assert states[1] == pytest.approx(quiet) and states[0] < 0.8
    assert target.denoiser.backward[""] < 2 * 3 * 12 + 1


def test_no_sample_touches_another(monkeypatch):
    """Nor does the time at which another stops."""
    start, rows = (1.0, -0.02, 2.0, 0.05, -0.4), range(5)
    monkeypatch.setattr(prompts, "TOLERANCE", 2e-4)
    whole, target, _ = found(start=start, rows=rows)
    assert 0 < target.denoiser.backward[""] < 5 * 3 * 12, "some stopped early"
    for i in range(5):
        assert torch.equal(found(start=start[i : i + 1], rows=[i])[0], whole[i : i + 1])
    assert torch.equal(found(start=start[::-1], rows=rows[::-1])[0], whole.flip(0))


def test_states_take_the_precision_of_the_text_encoder():
    null = Condition("", {"encoder_hidden_states": torch.zeros(3, 1, 1, dtype=torch.float16)})
    given = prompt_of(torch.ones(3, 1, 1), null)
    assert given.key is None and given.states["encoder_hidden_states"].dtype == torch.float16
