"""The denoiser that counts: every attack's only way to the network.

It takes whole grids (samples x timesteps x conditions), runs them in calls of one fixed row count, remembers within a
batch what another attack already asked for, and counts queries twice: *asked* (what the attack's paper would count)
and *executed* (after sharing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from mia_bench.diffusion.keyed import SAMPLE_DIMS, keyed, keys_of, plain
from mia_bench.diffusion.rows import RowRunner
from mia_bench.diffusion.schedule import Schedule, Timesteps
from mia_bench.trace import span

Predict = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Condition:
    """What the network is conditioned on, for each sample of a batch.

    Attributes:
        key: Name of this choice of conditions; None for one that has no name and is never shared.
        states: Keyword arguments of the network, each `(B, ...)`; empty for an unconditional model.
    """

    key: str | None
    states: Mapping[str, torch.Tensor]

    def select(self, rows: torch.Tensor) -> Condition:
        """The conditions of some samples (int64 indices `(b,)`), unnamed."""
        return Condition(None, {name: value[rows] for name, value in self.states.items()})


Given = Condition | Sequence[Condition]


@dataclass
class _Cell:
    """One point of the grid: B rows with one input, one timestep, one condition."""

    x: torch.Tensor
    t: int
    condition: Condition
    key: tuple[str, int, str] | None


@dataclass
class Account:
    """Who asked how much: queries and backward passes by attack."""

    asked: Counter[str] = field(default_factory=Counter)
    backward: Counter[str] = field(default_factory=Counter)
    asker: str = ""


@dataclass
class Denoiser:
    """Predicts noise.

    Args:
        predict: The network: `(x (R, C, H, W), t int64 (R,), **states)` -> its output `(R, C, H, W)`.
        schedule: Turns the network's output into noise.
        rows: Runs it at a fixed row count.
        share: Whether equal queries within a batch are run once.
        account: Where queries are booked; a target and its reference model share one.
        name: What its predictions are called; two models' predictions of one input must not be taken for each other.
        compiled: The network compiled, for queries that ask no gradient.
    """

    predict: Predict
    schedule: Schedule
    rows: RowRunner
    share: bool = True
    account: Account = field(default_factory=Account)
    name: str = "e"
    compiled: Predict | None = None
    _memory: dict[object, torch.Tensor] = field(default_factory=dict)

    def __call__(
        self, x: torch.Tensor, t: Timesteps, given: Given, *, grad: bool = False, pad: bool = True
    ) -> torch.Tensor:
        """Noise predictions over a grid.

        Args:
            x: Noised inputs `(B, C, H, W)`, or `(B, T, C, H, W)` with one input for each t, or T draws for one t.
            t: One timestep, or T of them.
            given: One condition, or a list of C.
            grad: Keep the graph for gradients with respect to `x`, the conditions or the weights; nothing is shared.
            pad: Fill calls up to the fixed row count. Only a caller that always asks for one sample's whole grid gets
                the same bits without.

        Returns:
            eps, float32 `(B, [T,] [C,] C, H, W)`: an axis for T if `t` is a list or `x` has one, one for C if `given`
            is a list.

        Raises:
            ValueError: `x` holds inputs for another number of timesteps than `t`.
        """
        one, several = isinstance(t, int | np.integer), x.ndim > 1 + SAMPLE_DIMS
        ts = [int(t)] * (x.shape[1] if several else 1) if isinstance(t, int | np.integer) else [int(s) for s in t]
        if several and len(ts) != x.shape[1]:
            raise ValueError(f"inputs of shape {tuple(x.shape)} for timesteps {t}: give one t for each of axis 1")
        conditions = [given] if isinstance(given, Condition) else list(given)
        cells = [cell for j, s in enumerate(ts) for cell in self._column(x, j, s, conditions, share=not grad)]
        with self.rows.lock:
            self.asked[self.account.asker] += len(cells) * x.shape[0]
        outputs = self._with_graph(cells, pad) if grad else self._shared(cells)
        grid = [len(ts)] * (several or not one) + [len(conditions)] * (not isinstance(given, Condition))
        with torch.set_grad_enabled(grad):
            result = torch.stack(outputs, dim=1).reshape(x.shape[0], *grid, *outputs[0].shape[-SAMPLE_DIMS:])
        names = [None if c.key is None else f"{self.name}({c.key[0]},{c.key[1]},{c.key[2]})" for c in cells]
        if grad or None in names:
            return result
        return keyed(result, np.array(names, dtype=object).reshape(grid))

    @property
    def asked(self) -> Counter[str]:
        """Queries asked, by attack."""
        return self.account.asked

    @property
    def backward(self) -> Counter[str]:
        """Backward passes, by attack."""
        return self.account.backward

    @property
    def executed(self) -> int:
        """Queries run, after sharing and without padding."""
        return self.rows.done

    @contextmanager
    def asked_by(self, name: str) -> Iterator[None]:
        """Book the queries within on `name`."""
        before, self.account.asker = self.account.asker, name
        try:
            yield
        finally:
            self.account.asker = before

    def forget(self) -> None:
        """Drop what the last batch asked; called by the harness at the start of each batch."""
        self._memory.clear()

    def gradient(self, losses: torch.Tensor, wrt: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Gradients of per-sample losses.

        Args:
            losses: `(b,)`. Their sum is differentiated, so a sample's gradient does not depend on the others.
            wrt: Tensors with a leading sample axis (or weights, where one sample is asked at a time).
        """
        with self.rows.lock:
            self.backward[self.account.asker] += losses.shape[0]
        with span(self.rows.kind):
            return torch.autograd.grad(losses.sum(), list(wrt))

    def descend(
        self,
        start: torch.Tensor,
        objective: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        *,
        steps: int,
        lr: float,
        tolerance: float = 0.0,
    ) -> torch.Tensor:
        """Minimise a per-sample objective with Adam (Kingma & Ba 2015), each sample stopping on its own.

        As many samples at a time as a call has rows, so that the graph of one call at most is held a thread.

        Args:
            start: `(B, ...)`.
            objective: `(values (b, ...), rows int64 (b,))` -> losses `(b,)` of the samples `rows` still running;
                it asks this denoiser with `grad=True` only, perhaps in several threads.
            steps: Most steps per sample.
            lr: Learning rate.
            tolerance: A sample stops once its loss is at most this.

        Returns:
            `(B, ...)`, detached.
        """
        value = plain(start).detach().clone()
        groups = torch.split(torch.arange(len(value), device=value.device), self.rows.rows)

        def one(group: int) -> torch.Tensor:
            rows = groups[group]
            return self._descended(value[rows], lambda v, r: objective(v, rows[r]), steps, lr, tolerance)

        return torch.cat(self.rows.each(one, len(groups)))

    def _descended(
        self,
        value: torch.Tensor,
        objective: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        steps: int,
        lr: float,
        tolerance: float,
    ) -> torch.Tensor:
        """As `descend`, of all samples at once and in place."""
        first, second = torch.zeros_like(value), torch.zeros_like(value)
        running = torch.arange(value.shape[0], device=value.device)
        for step in range(1, steps + 1):
            with torch.enable_grad():
                now = value[running].requires_grad_()
                losses = objective(now, running)
                keep = (losses.detach() > tolerance).nonzero()[:, 0]  # who goes on: the step's one wait for the device
                if not len(keep):
                    break
                # The finished samples' gradient is dropped with them; only running ones are counted.
                (gradient,) = self.gradient(losses[keep], [now])
            running, gradient = running[keep], gradient[keep]
            first[running] = 0.9 * first[running] + 0.1 * gradient
            second[running] = 0.999 * second[running] + 0.001 * gradient**2
            unbiased = first[running] / (1 - 0.9**step), second[running] / (1 - 0.999**step)
            value[running] -= lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        return value

    def _column(
        self, x: torch.Tensor, j: int, t: int, conditions: Sequence[Condition], *, share: bool
    ) -> Iterator[_Cell]:
        """The cells of one timestep."""
        keys = keys_of(x)
        grid = x.ndim > 1 + SAMPLE_DIMS
        rows = plain(x)[:, j] if grid else plain(x)
        name = None if keys is None else str(keys[j] if grid else keys[()])
        for condition in conditions:
            named = share and name is not None and condition.key is not None
            yield _Cell(rows, t, condition, (str(name), t, str(condition.key)) if named else None)

    def _shared(self, cells: list[_Cell]) -> list[torch.Tensor]:
        """Predictions for each cell, equal ones run once."""
        todo: dict[object, _Cell] = {}
        names: list[object] = []
        for index, cell in enumerate(cells):
            name = cell.key if self.share and cell.key is not None else index
            names.append(name)
            if name not in self._memory and name not in todo:
                todo[name] = cell
        with torch.inference_mode():
            found = dict(zip(todo, self._predict(list(todo.values())), strict=True))
        self._memory.update({name: eps for name, eps in found.items() if isinstance(name, tuple)})
        return [found[name] if name in found else self._memory[name] for name in names]

    def _with_graph(self, cells: list[_Cell], pad: bool) -> list[torch.Tensor]:
        with torch.enable_grad():
            return self._predict(cells, pad)

    def _predict(self, cells: list[_Cell], pad: bool = True) -> list[torch.Tensor]:
        """All rows of all cells through the network; eps `(B, C, H, W)` for each cell."""
        if not cells:
            return []
        count = cells[0].x.shape[0]
        x = torch.cat([c.x for c in cells])
        t = torch.cat([torch.full((count,), c.t, device=x.device) for c in cells])  # filled there: nothing to copy
        names = list(cells[0].condition.states)
        states = [torch.cat([c.condition.states[n] for c in cells]) for n in names]

        predict = self.compiled if self.compiled and torch.is_inference_mode_enabled() else self.predict

        def network(x: torch.Tensor, t: torch.Tensor, *states: torch.Tensor) -> torch.Tensor:
            return self.schedule.epsilon(predict(x, t, **dict(zip(names, states, strict=True))), x, t)

        return list(torch.split(self.rows(network, x, t, *states, pad=pad), count))
