import numpy as np
import pytest
import torch

from mia_bench.diffusion.denoiser import Condition, Denoiser
from mia_bench.diffusion.keyed import keyed, keys_of
from mia_bench.diffusion.rows import RowRunner, worker_pool
from mia_bench.diffusion.schedule import Schedule

SCHEDULE = Schedule.from_betas(np.linspace(1e-4, 0.02, 100))
SHAPE = (3, 8, 8)


class Net(torch.nn.Module):
    """A small network that depends on every input, row by row."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1)
        self.sizes = []

    def forward(self, x, t, text=None):
        self.sizes.append(len(x))
        hidden = self.first(x) + t.view(-1, 1, 1, 1) / 100
        if text is not None:
            hidden = hidden + text.view(len(x), -1, 1, 1)
        return self.last(torch.nn.functional.silu(hidden))


def make(rows=8, threads=1, **options):
    return Denoiser(Net(), SCHEDULE, RowRunner(rows, worker_pool(threads)), **options)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition(key, seed=0, b=5):
    return Condition(key, {"text": normal(b, 8, seed=seed)})


def named(name="x", b=5, seed=1):
    return keyed(normal(b, *SHAPE, seed=seed), name)


TEXT, OTHER, EMPTY = condition("text"), condition("other", seed=5), Condition("", {})


def directly(x, t, given):
    """The prediction without the harness, one row at a time and so one rounding apart."""
    rows = [
        Net()(torch.Tensor(x[i : i + 1]), torch.tensor([t]), *(v[i : i + 1] for v in given.states.values()))
        for i in range(len(x))
    ]
    return torch.cat(rows).detach()


def close(a, b):
    return torch.allclose(torch.Tensor(a), torch.Tensor(b), rtol=0, atol=1e-5)


def test_one_prediction():
    found = make()(named(), 7, TEXT)
    assert found.shape == (5, *SHAPE) and close(found, directly(named(), 7, TEXT))


@pytest.mark.parametrize("t", [[7], [7, 9, 11]])
def test_inputs_for_other_timesteps_are_refused(t):
    with pytest.raises(ValueError, match="one t for each"):
        make()(keyed(normal(5, 2, *SHAPE), ["a", "b"]), t, TEXT)


@pytest.mark.parametrize("given", [TEXT, [TEXT, OTHER]])
def test_one_timestep_serves_all_draws(given):
    denoiser, draws = make(), [named("a", seed=1), named("b", seed=2)]
    found = denoiser(keyed(torch.stack(draws, dim=1), ["a", "b"]), 7, given)
    assert found.shape == (5, 2, *([2] if isinstance(given, list) else []), *SHAPE)
    before = denoiser.executed
    for i, draw in enumerate(draws):
        one = denoiser(draw, 7, given)
        assert torch.equal(torch.Tensor(found)[:, i], torch.Tensor(one)) and (keys_of(found)[i] == keys_of(one)).all()
    assert denoiser.executed == before
    assert close(denoiser(draws[1], 7, TEXT), directly(draws[1], 7, TEXT))


def test_unconditional():
    assert close(make()(named(), 7, EMPTY), directly(named(), 7, EMPTY))


def test_grid_shapes_and_cells():
    x, grid = named(), keyed(normal(5, 2, *SHAPE), ["a", "b"])
    denoiser = make()
    assert denoiser(x, 7, [TEXT, OTHER]).shape == (5, 2, *SHAPE)
    assert denoiser(x, [7], TEXT).shape == (5, 1, *SHAPE)
    assert denoiser(x, [7, 9, 11], TEXT).shape == (5, 3, *SHAPE)
    found = denoiser(grid, (7, 9), [TEXT, OTHER, TEXT])
    assert found.shape == (5, 2, 3, *SHAPE)
    for j, t in enumerate((7, 9)):
        for k, given in enumerate((TEXT, OTHER, TEXT)):
            assert close(found[:, j, k], directly(torch.Tensor(grid)[:, j], t, given))


def test_numpy_timesteps():
    assert torch.equal(make()(named(), np.int64(7), TEXT), make()(named(), 7, TEXT))
    assert make()(named(), np.array([7, 9]), TEXT).shape == (5, 2, *SHAPE)


def test_counts_asked_and_executed():
    denoiser = make()
    with denoiser.asked_by("a"):
        denoiser(named(), [7, 9], [TEXT, OTHER])
        with denoiser.asked_by("b"):
            denoiser(named(), 9, OTHER)
        denoiser(named(), 11, TEXT)
    denoiser(named(), 11, TEXT)
    assert denoiser.asked == {"a": 25, "b": 5, "": 5}
    assert denoiser.executed == 25  # the second and the last one were known
    assert denoiser.rows.done == 25 and set(denoiser.predict.sizes) == {8}


def test_equal_names_are_shared_within_a_call_too():
    denoiser = make()
    found = denoiser(named(), [7, 7], [TEXT, TEXT, OTHER])
    assert denoiser.executed == 10 and denoiser.asked[""] == 30
    assert torch.equal(found[:, 0, 0], found[:, 1, 1]) and torch.equal(found[:, 0, 2], found[:, 1, 2])


@pytest.mark.parametrize(
    "ask",
    [
        lambda d: d(named("y"), 7, TEXT),
        lambda d: d(named(), 8, TEXT),
        lambda d: d(named(), 7, OTHER),
        lambda d: d(named() * 1, 7, TEXT),
        lambda d: d(named(), 7, TEXT.select(torch.arange(5))),
        lambda d: d(named(), 7, TEXT, grad=True),
        lambda d: (d.forget(), d(named(), 7, TEXT)),
    ],
    ids=["input", "time", "condition", "unnamed input", "unnamed condition", "gradient", "forgotten"],
)
def test_what_is_not_shared(ask):
    denoiser = make()
    denoiser(named(), 7, TEXT)
    ask(denoiser)
    assert denoiser.executed == denoiser.asked[""] == 10


def test_unnamed_queries_are_not_remembered():
    denoiser, x = make(), torch.Tensor(named())
    first = denoiser(x, 7, TEXT)
    assert torch.equal(first, denoiser(x, 7, TEXT))
    assert denoiser.executed == 10 and keys_of(first) is None and not denoiser._memory


def test_unnamed_conditions_are_not_confused():
    found = make()(named(), 7, [condition(None, seed=2), condition(None, seed=3)])
    assert not torch.equal(found[:, 0], found[:, 1])


def test_predictions_are_named_and_chain():
    denoiser = make()
    e = denoiser(named(), [7, 9], [TEXT, OTHER])
    assert keys_of(e).tolist() == [["e(x,7,text)", "e(x,7,other)"], ["e(x,9,text)", "e(x,9,other)"]]
    one = denoiser(named(), 7, TEXT)
    for _ in range(2):  # a second attack that walks the same way asks for nothing new
        denoiser(SCHEDULE.jump(named(), one, 7, 9), 9, TEXT)
    assert denoiser.executed == 25


def test_results_are_copies():
    denoiser = make()
    first = denoiser(named(), 7, TEXT)
    (first * 1).zero_()
    torch.Tensor(first).zero_()
    assert not torch.equal(denoiser(named(), 7, TEXT), first)


@pytest.mark.parametrize("rows", [7, 8])
@pytest.mark.parametrize("threads", [1, 2])
def test_sharing_does_not_change_a_bit(rows, threads):
    shared, alone = make(rows, threads), make(rows, threads, share=False)
    for t, given in [(7, TEXT), ([9, 7], [OTHER, TEXT]), ([7, 9], TEXT)]:
        assert torch.equal(shared(named(), t, given), alone(named(), t, given))
    assert (shared.executed, alone.executed) == (20, 35) and shared.asked == alone.asked


def test_companions_do_not_change_a_bit():
    whole = make()(named(), [7, 9], [TEXT, OTHER])
    for rows in ([2], [4, 0], [1, 2, 3]):
        index = torch.tensor(rows)
        part = make()(torch.Tensor(named())[index], [7, 9], [TEXT.select(index), OTHER.select(index)])
        assert torch.equal(part, whole[index])


def test_out_of_memory_is_survived_and_counted_once():
    class Small(Net):
        def forward(self, x, t, text=None):
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x, t, text)

    denoiser = Denoiser(Small(), SCHEDULE, RowRunner(8))
    assert close(denoiser(named(), 7, TEXT), directly(named(), 7, TEXT))
    assert denoiser.rows.rows == 2 and denoiser.executed == denoiser.asked[""] == 5


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "flow"])
def test_hands_out_noise_whatever_the_network_predicts(prediction):
    schedule = Schedule(SCHEDULE.signal, SCHEDULE.noise, prediction)
    found = Denoiser(Net(), schedule, RowRunner(8))(named(), [7, 90], TEXT)
    for j, t in enumerate((7, 90)):
        output = directly(named(), t, TEXT)
        assert torch.allclose(
            found[:, j], schedule.epsilon(output, torch.Tensor(named()), torch.full((5,), t)), rtol=1e-4, atol=1e-4
        )


# Gradients ----------------------------------------------------------------------------------------------------------


def loss_of(denoiser, x, given=TEXT):
    return (denoiser(x, 7, given, grad=True) ** 2).sum(dim=(1, 2, 3))


def test_gradient_of_inputs():
    denoiser, x = make(), torch.Tensor(named()).requires_grad_()
    (found,) = denoiser.gradient(loss_of(denoiser, x), [x])
    y = x.detach().clone().requires_grad_()
    direct = Net()(y, torch.full((5,), 7), TEXT.states["text"])
    (wanted,) = torch.autograd.grad((direct**2).sum(), y)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_gradient_of_conditions_and_weights():
    denoiser, text = make(), normal(5, 8).requires_grad_()
    weights = list(denoiser.predict.parameters())
    losses = loss_of(denoiser, named(), Condition(None, {"text": text}))
    found = denoiser.gradient(losses, [text, *weights])
    plain_net = Net()
    direct = plain_net(torch.Tensor(named()), torch.full((5,), 7), text)
    wanted = torch.autograd.grad((direct**2).sum(), [text, *plain_net.parameters()])
    assert len(found) == len(wanted) == 5
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_do_not_depend_on_companions():
    def gradient(rows):
        denoiser, x = make(), torch.Tensor(named())[rows].requires_grad_()
        return denoiser.gradient(loss_of(denoiser, x, TEXT.select(torch.tensor(rows))), [x])[0]

    whole = gradient([0, 1, 2, 3, 4])
    for rows in ([3], [4, 1], [2, 0, 3]):
        assert torch.equal(gradient(rows), whole[rows])


def test_graph_is_kept_where_gradients_are_off():
    denoiser, x = make(), torch.Tensor(named()).requires_grad_()
    with torch.no_grad():
        found = denoiser(x, [7, 9], [TEXT, OTHER], grad=True)
    assert found.requires_grad
    assert not make()(named(), 7, TEXT).requires_grad


def test_gradient_queries_are_counted_and_not_remembered():
    denoiser, x = make(), torch.Tensor(named()).requires_grad_()
    with denoiser.asked_by("a"):
        denoiser.gradient(loss_of(denoiser, x)[:3], [x])
    assert denoiser.asked == {"a": 5} and denoiser.executed == 5
    assert denoiser.backward == {"a": 3} and not denoiser._memory


# Descent ------------------------------------------------------------------------------------------------------------

CENTRES = torch.tensor([[0.5, -0.5], [0.1, 0.05], [1.0, 1.0], [0.0, 0.0]])


def quadratic(log=None):
    def objective(values, rows):
        if log is not None:
            log.append(rows.tolist())
        return ((values - CENTRES[rows]) ** 2).sum(dim=1)

    return objective


def test_descent_finds_each_samples_minimum():
    found = make().descend(torch.zeros(4, 2), quadratic(), steps=500, lr=0.02)
    assert torch.allclose(found, CENTRES, atol=1e-3) and not found.requires_grad


def test_descent_is_adam():
    wanted = torch.zeros(4, 2, requires_grad=True)
    adam = torch.optim.Adam([wanted], lr=0.02)
    for _ in range(20):
        adam.zero_grad()
        quadratic()(wanted, torch.arange(4)).sum().backward()
        adam.step()
    found = make().descend(torch.zeros(4, 2), quadratic(), steps=20, lr=0.02, tolerance=-1.0)
    assert torch.allclose(found, wanted.detach(), atol=1e-5)


def test_each_sample_stops_on_its_own():
    denoiser, log = make(), []
    with denoiser.asked_by("a"):
        found = denoiser.descend(torch.zeros(4, 2), quadratic(log), steps=500, lr=0.02, tolerance=1e-3)
    losses = quadratic()(found, torch.arange(4))
    assert (losses <= 1e-3).all() and torch.equal(found[3], torch.zeros(2))  # the last one starts at its minimum
    running = [len(rows) for rows in log]
    assert log[0] == [0, 1, 2, 3] and log[1] == [0, 1, 2] and log[-1] == [2]
    assert running == sorted(running, reverse=True) and len(log) < 500
    # One backward pass for each sample that was still running; what finished at a step is not differentiated.
    assert denoiser.backward == {"a": sum(running[1:])}


def test_descent_does_not_depend_on_companions():
    whole = make().descend(torch.zeros(4, 2), quadratic(), steps=60, lr=0.02, tolerance=1e-3)
    for i in range(4):
        alone = make().descend(
            torch.zeros(1, 2), lambda v, rows, i=i: quadratic()(v, rows + i), steps=60, lr=0.02, tolerance=1e-3
        )
        assert torch.equal(alone[0], whole[i])


@pytest.mark.parametrize("threads", [1, 2])
def test_descent_takes_as_many_samples_at_a_time_as_a_call_has_rows(threads):
    whole = make().descend(torch.zeros(4, 2), quadratic(), steps=60, lr=0.02, tolerance=1e-3)
    log: list[list[int]] = []
    found = make(3, threads).descend(torch.zeros(4, 2), quadratic(log), steps=60, lr=0.02, tolerance=1e-3)
    assert torch.equal(found, whole)
    assert {tuple(rows) for rows in log} <= {(0, 1, 2), (0, 2), (1, 2), (0, 1), (0,), (1,), (2,), (3,)}
    assert [0, 1, 2] in log and [3] in log


def test_descent_leaves_its_start_alone():
    start = named("x", b=4)
    before = torch.Tensor(start).clone()
    make().descend(start, lambda v, rows: (v**2).sum(dim=(1, 2, 3)), steps=3, lr=0.1)
    assert torch.equal(torch.Tensor(start), before)


def test_descent_through_the_network():
    denoiser, wanted = make(), torch.Tensor(make()(named(seed=3), 7, TEXT))

    def objective(values, rows):
        found = denoiser(values, 7, TEXT.select(rows), grad=True)
        return ((found - wanted[rows]) ** 2).mean(dim=(1, 2, 3))

    start = torch.Tensor(named())
    with torch.no_grad():  # as the engine calls an attack
        found = denoiser.descend(start, objective, steps=30, lr=0.05)
        before, after = objective(start, torch.arange(5)), objective(found, torch.arange(5))
    assert (after < 0.5 * before).all()
    assert denoiser.backward[""] == 5 * 30
