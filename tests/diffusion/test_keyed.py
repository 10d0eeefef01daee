import numpy as np
import pytest
import torch

from mia_bench.diffusion.keyed import Keyed, combine, keyed, keys_of, plain
from mia_bench.diffusion.schedule import Schedule

SCHEDULE = Schedule.from_betas(np.linspace(1e-4, 0.02, 100))


@pytest.fixture
def x():
    return keyed(torch.ones(2, 1, 3, 3), "x")


@pytest.fixture
def eps():
    return keyed(torch.ones(2, 2, 1, 3, 3), ["e5", "e7"])


def test_names_survive_the_algebra(x, eps):
    assert keys_of(x)[()] == "x"
    noised = SCHEDULE.noised(x, eps, [5, 7])
    q, jump = (f"{name}:{SCHEDULE.mark}" for name in "qJ")
    assert keys_of(noised).tolist() == [f"{q}(x,e5,5)", f"{q}(x,e7,7)"]
    one = SCHEDULE.noised(x, keyed(torch.ones(2, 1, 3, 3), "e5"), 5)
    assert keys_of(one)[()] == f"{q}(x,e5,5)"  # the same name as in the grid
    assert keys_of(SCHEDULE.jump(one, x, 5, 7))[()] == f"{jump}({q}(x,e5,5),x,5>7)"


def test_other_noise_levels_make_other_inputs(x):
    eps = keyed(torch.ones(2, 1, 3, 3), "e")
    others = Schedule.from_betas(np.linspace(1e-4, 0.01, 100)), Schedule.from_flow(100)
    made = (SCHEDULE, *others, Schedule.from_betas(np.linspace(1e-4, 0.02, 100), "v_prediction"))
    for named in ([s.noised(x, eps, 5) for s in made], [s.jump(x, eps, 5, 7) for s in made]):
        names = [keys_of(one)[()] for one in named]
        assert len(set(names[:3])) == 3 and names[3] == names[0], "what the network predicts does not matter"


def test_one_unnamed_input_makes_the_result_unnamed(x, eps):
    assert keys_of(SCHEDULE.noised(x * 1, eps, [5, 7])) is None
    assert keys_of(SCHEDULE.noised(x, plain(eps), [5, 7])) is None
    assert keys_of(SCHEDULE.jump(x, torch.ones(2, 1, 3, 3), 5, 7)) is None
    assert keys_of(combine(torch.ones(2, 1, 3, 3), lambda a: "named", torch.ones(2, 1, 3, 3))) is None


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * 1,
        lambda x: x + 0,
        lambda x: x[:1],
        lambda x: x[...],
        lambda x: x.clone(),
        lambda x: x.flip(0),
        lambda x: x.detach(),
        lambda x: torch.cat([x, x]),
        lambda x: torch.nn.functional.relu(x),
        lambda x: x.double(),
        lambda x: x.reshape(2, 9),
        lambda x: next(iter(x.unbind(0))),
    ],
)
def test_names_vanish_under_foreign_operations(x, operation):
    result = operation(x)
    assert type(result) is torch.Tensor and keys_of(result) is None


def add_in_place(x):
    x += 1


def set_item(x):
    x[0] = 5


def set_data(x):
    x.data = torch.zeros(2, 1, 3, 3)


@pytest.mark.parametrize(
    "operation",
    [
        add_in_place,
        set_item,
        set_data,
        lambda x: x.add_(1),
        lambda x: x.clamp_(0, 0.5),
        lambda x: x.zero_(),
        lambda x: x.copy_(torch.zeros(2, 1, 3, 3)),
        lambda x: torch.add(x, 1, out=x),
        lambda x: torch.nn.functional.leaky_relu(x, inplace=True),
        lambda x: torch.nn.init.zeros_(x),
    ],
)
def test_changing_in_place_is_refused(x, operation):
    with pytest.raises(RuntimeError, match="in place"):
        operation(x)
    assert (plain(x) == 1).all() and keys_of(x)[()] == "x"


def test_plain_shares_storage(x):
    assert type(plain(x)) is torch.Tensor and plain(x).data_ptr() == x.data_ptr()
    assert plain(plain(x)) is not None and keys_of(plain(x)) is None


def test_renaming_makes_a_new_tensor(x):
    other = keyed(x, "y")
    assert isinstance(other, Keyed)
    assert keys_of(x)[()] == "x" and keys_of(other)[()] == "y"
