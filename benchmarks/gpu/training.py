"""A training that is audited along the way: it stops after any step, and goes on to the same weights."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from timing import Record

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench.report.text import table


class Training(ABC):
    """Adam on the error of the noise (Ho et al. 2020, Alg. 1), with a moving average of the weights.

    Args:
        net: What predicts the noise from `(x_t, t, *conditions)`; bfloat16 on a GPU.
        abar: Of the schedule, `(T,)`.
        one_pass: Indices of the images of a pass, in any order.
        kept: Passes after which a checkpoint is kept.
        batch: Images a step.
        work: Where the state and the checkpoints go.
        device: torch device.
        seed: Of order, augmentation, timesteps, noise and dropout: each step's depend on it and the step alone.
        rate: Learning rate after `warm_up` steps.
        decay: Of the average, shorter at first.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        abar: Tensor,
        one_pass: Sequence[int],
        kept: Sequence[int],
        batch: int,
        work: Path,
        device: str,
        seed: int,
        rate: float,
        warm_up: int = 500,
        decay: float = 0.9999,
    ) -> None:
        self.net = net.to(device, memory_format=torch.channels_last).train()
        self.abar, self.one_pass, self.kept, self.batch = abar.to(device), torch.tensor(one_pass), kept, batch
        self.work, self.device, self.seed = work, device, seed
        self.rate, self.warm_up, self.decay = rate, warm_up, decay
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=rate)
        self.step = 0
        if (work / "state.pt").exists():
            state = torch.load(work / "state.pt", map_location=device)
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]

    @abstractmethod
    def inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Clean inputs of the images `rows`, drawn or augmented as the training has it, and their conditions."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the average as a pipeline."""

    @property
    def ends(self) -> dict[int, int]:
        """Passes by the step that ends them."""
        return {passes * len(self.one_pass) // self.batch: passes for passes in self.kept}

    @property
    def done(self) -> bool:
        return self.step >= max(self.ends)

    def train(self, seconds: float) -> float:
        """Train for so long, or to the end.

        Returns:
            Images a second.
        """
        began, first = time.monotonic(), self.step
        while not self.done and time.monotonic() - began < seconds:
            loss = self.advance()
            if passes := self.ends.get(self.step):
                self.write(self.folder(passes))
                self.save()  # what kills the command costs no more than this
                print(f"{passes} passes, {self.step} steps, last loss {loss.item():.4f}", flush=True)
        self.save()
        return (self.step - first) * self.batch / max(1e-9, time.monotonic() - began)

    def advance(self) -> Tensor:
        """One step."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        clean, *conditions = self.inputs(self.rows())
        t = torch.randint(len(self.abar), (len(clean),), device=self.device)
        noise, abar = torch.randn_like(clean), self.abar[t, None, None, None]
        noised = (abar.sqrt() * clean + (1 - abar).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        half = torch.autocast("cuda", torch.bfloat16) if self.device.startswith("cuda") else nullcontext()
        with half:
            predicted = self.net(noised, t, *conditions).sample
        loss = functional.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, self.step / self.warm_up)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([*self.average.values()], [*self.net.state_dict().values()], 1 - decay)
        return loss.detach()

    def rows(self) -> Tensor:
        """Images of this step: passes that are each shuffled, one running into the next."""
        count, start = len(self.one_pass), self.step * self.batch
        wanted = torch.arange(start, start + self.batch)
        orders = {
            p: torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + int(p)))
            for p in (wanted // count).unique().tolist()
        }
        return self.one_pass[torch.stack([orders[int(i) // count][int(i) % count] for i in wanted])].to(self.device)

    def folder(self, passes: int) -> Path:
        return self.work / "checkpoints" / str(passes)

    def save(self) -> None:
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "average": self.average, "step": self.step}, self.work / "state.part")
        (self.work / "state.part").replace(self.work / "state.pt")


def along_the_way(
    training: Training,
    record: Record,
    minutes: float,
    kind: str,
    dataset: str,
    attacks: Iterable[str],
    last: Iterable[str] = (),
) -> None:
    """Train for some minutes, and audit all checkpoints that no call before has audited; print AUCs by passes.

    Args:
        training: What to train.
        record: Of both.
        minutes: Of training.
        kind: Of target, as `mia-bench run` names it before the colon.
        dataset: As `mia-bench run` takes it.
        attacks: That every checkpoint is audited with.
        last: That only the last one is audited with, because they ask many queries.
    """
    if not training.done:
        pace = training.train(60 * minutes)
        parameters = sum(p.numel() for p in training.net.parameters())
        record.write(parameters=parameters, steps_trained=training.step, images_per_second=pace)
    for passes in training.kept:
        if training.folder(passes).exists():
            asked = [*attacks, *(last if passes == max(training.kept) else ())]
            given = f"{kind}:{training.folder(passes)}", dataset, asked, training.work / "runs" / str(passes)
            record.once(f"audit {passes}", lambda given=given: audit(*given, training.device))
    print(trajectory(record))
    if not training.done:
        print(f"{training.step} of {max(training.ends)} steps: the same command goes on")


def audit(target: str, dataset: str, attacks: Iterable[str], out: Path, device: str) -> dict[str, Any]:
    """A run on one checkpoint: AUC and TPR at 1 % FPR with intervals, by attack."""
    began = time.monotonic()
    options = RunOptions(attacks=",".join(attacks), target=target, dataset=dataset, out=out, device=device)
    result = run(Registry.load(), options)

    def point(metric: Any) -> dict[str, float | None]:
        return {"value": metric.value, "low": metric.low, "high": metric.high}

    rows = {row.label: row.evaluation for row in result.rows if row.evaluation}
    figures = {label: {"auc": point(e.auc), "tpr_at_1": point(e.tpr_at_1)} for label, e in rows.items()}
    return {"attacks": figures, "seconds": time.monotonic() - began}


def trajectory(record: Record) -> str:
    """AUC by attack and passes, the best at the last checkpoint first."""
    found = {int(name.removeprefix("audit ")): step["attacks"] for name, step in record.steps.items()}
    if not found:
        return "no checkpoint has been audited"
    passes = sorted(found)

    def auc(label: str, after: int) -> float:
        return float(found[after].get(label, {}).get("auc", {}).get("value") or 0.0)

    labels = sorted({label for of in found.values() for label in of}, key=lambda label: -auc(label, passes[-1]))
    rows = [[label, *(f"{auc(label, p):.3f}" if auc(label, p) else "–" for p in passes)] for label in labels]
    return table(rows, ["AUC after so many passes", *map(str, passes)])
