"""The checks of targets."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from unittest import mock

from mia_bench.attack import Capability
from mia_bench.errors import UnavailableError
from mia_bench.target import Target, TargetOptions
from mia_bench.testing.common import Argument, Placed, check_name, check_summary, loads
from mia_bench.testing.suite import Case, Fault, NotHere
from mia_bench.testing.tiny import batch_of, icons

if TYPE_CHECKING:
    import torch

    from mia_bench.batch import Batch
    from mia_bench.dataset import Sample

COUNT, ROWS = 3, 2  # images, and rows a call: one call is padded
LOW, HIGH = 100, 600  # timesteps
STEPS = 3
RTOL = 1e-4  # between row counts, of the largest value; within one row count nothing may change
TEXTS = ("a red apple", "two dogs on a beach", "")


class TargetCase(Case):
    """One target.

    Args:
        plugin: Its class.
        argument: What follows its name, or a function that makes a small model in a folder and returns the argument.
        options: How it is loaded, e.g. `TargetOptions(resolution=32)`.
        captions: As many captions as a call is made with, where not any text will do.
    """

    kind = "target"

    def __init__(
        self,
        plugin: type[Target],
        argument: Argument = "",
        options: TargetOptions | None = None,
        captions: tuple[str, str, str] = TEXTS,
    ) -> None:
        self.plugin, self.placed, self.texts = plugin, Placed(argument), captions
        self.options = options or TargetOptions()

    def new(self) -> Target:
        """An instance that is not loaded yet.

        Raises:
            NotHere: Its weights are not on this machine.
        """
        target: Target = self.plugin(self.placed.argument)
        target.options = self.options
        if self.plugin.meta.repository and not self.placed.argument:
            raise NotHere(f"the weights of {self.plugin.meta.repository} are not asked for")
        return target

    def opened(self, rows: int = ROWS) -> Target:
        """A loaded one."""
        target = self.new()
        target.open(rows=rows)
        return target

    @cached_property
    def target(self) -> Target:
        """The one that is asked most."""
        return self.opened()

    @cached_property
    def samples(self) -> list[Sample]:
        """Three images with captions."""
        from dataclasses import replace

        return [replace(s, caption=text) for s, text in zip(icons(COUNT, 0), self.texts, strict=True)]

    def batch(self, target: Target) -> Batch:
        """Of all samples."""
        return batch_of(target, self.samples)

    def can(self, *capabilities: Capability) -> None:
        """Skip a check of what the target does not claim to do."""
        if lacking := set(capabilities) - self.target.capabilities:
            raise NotHere(f"it does not claim to {' or '.join(sorted(lacking))}")


def metadata(case: TargetCase) -> None:
    """A name the command line takes, a summary of one line, and something that it can do."""
    check_name(case)
    check_summary(case)
    able = case.plugin.meta.capabilities
    if not able & {Capability.DENOISE, Capability.GENERATE, Capability.VARY}:
        raise Fault(
            f"its capabilities are {sorted(able)}", "a target denoises or generates: say so in meta.capabilities"
        )
    if Capability.REFERENCE in able:
        raise Fault("it claims a reference", "leave Capability.REFERENCE out: users name one with --reference")


def fingerprint(case: TargetCase) -> None:
    """It is identified before anything is loaded, and two instances of one model alike."""
    first, second = case.new(), case.new()
    refused = mock.Mock(side_effect=AssertionError("loaded"))
    with mock.patch.object(case.plugin, "load", refused):
        try:
            found = first.fingerprint, second.fingerprint
        except AssertionError as error:
            fix = "`weights` and `settings` read files, never a loaded model: a run is planned before it is loaded"
            raise Fault("the fingerprint needs the model loaded", fix) from error
        except UnavailableError as error:
            fix = "give a small model: conformance(..., argument=...), a function of a folder or a path"
            raise Fault(str(error), fix) from error
    if found[0] != found[1]:
        raise Fault("two instances of one model have two fingerprints", "make `weights` of the files' content alone")
    first.open(rows=ROWS)
    del first.__dict__["fingerprint"]
    if first.fingerprint != found[0]:
        raise Fault("the fingerprint changes when the model is loaded", "make it of what is known before `load`")


def shapes(case: TargetCase) -> None:
    """Images encode to `sample_shape` and decode to images again, float32 and finite."""
    target = case.target
    if Capability.DENOISE not in target.capabilities:
        raise NotHere("it shows no inputs of a denoiser")
    x0 = _checked("encode", target.encode(case.batch(target).pixels), (COUNT, *target.sample_shape))
    _checked("decode", target.decode(x0), (COUNT, 3, target.image_size, target.image_size))


def _checked(what: str, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    finite = bool(values.isfinite().all())
    if tuple(values.shape) != shape or values.dtype != torch.float32 or not finite:
        found = f"{what} gave {values.dtype} {tuple(values.shape)}, finite: {finite}, instead of float32 {shape}"
        raise Fault(found, "set sample_shape and image_size in `load` to what the networks take")
    return values


def schedule(case: TargetCase) -> None:
    """Signal falls and noise rises with the timestep, as the checkpoint's scheduler has it."""
    import numpy as np

    case.can(Capability.DENOISE)
    signal, noise = (np.asarray(v) for v in (case.target.schedule.signal, case.target.schedule.noise))
    if len(signal) < 2 or not ((np.diff(signal) < 0).all() and (np.diff(noise) > 0).all()):
        raise Fault(f"{len(signal)} levels, not in order", "build it with mia_bench.diffusion.schedule.Schedule")


def noise(case: TargetCase) -> None:
    """The denoiser gives noise of its input's shape, that depends on input, timestep and, if it takes them, caption."""
    import torch

    case.can(Capability.DENOISE)
    target = case.target
    batch = case.batch(target)
    x, given = target.schedule.noised(batch.x0, batch.eps(HIGH), HIGH), batch.condition
    found = _checked("the denoiser", target.denoiser(x, HIGH, given), tuple(x.shape))
    grid = target.denoiser(x, [LOW, HIGH], [given])
    _checked("the denoiser on a grid", grid, (COUNT, 2, 1, *target.sample_shape))
    others = {
        "input": target.denoiser(x * 0.5, HIGH, given),
        "timestep": target.denoiser(x, LOW, given),
    }
    if target.conditioned:
        others["caption"] = target.denoiser(x, HIGH, target.condition([*case.texts[1:], case.texts[0]]))
    for name, other in others.items():
        if torch.equal(other, found):
            raise Fault(f"another {name} changes nothing", f"pass the {name} on to the network in `predict`")


def captions(case: TargetCase) -> None:
    """A caption's states are its own: the same beside others, and not those of another caption."""
    import torch

    target = case.target
    if not target.conditioned or Capability.DENOISE not in target.capabilities:
        raise NotHere("it takes no captions, or shows no states")
    whole, other = target.condition(case.texts).states, case.opened()
    for row, text in enumerate(case.texts):
        alone = other.condition([text]).states
        for name, states in whole.items():
            if len(states) != COUNT or not torch.equal(states[row], alone[name][0]):
                raise Fault(
                    f"{name} of a caption changes with its companions", "pad all texts to one length in `tokens`"
                )
    if all(torch.equal(states[0], states[1]) for states in whole.values()):
        raise Fault("two captions have equal states", "read the text in `tokens`")


def row_independence(case: TargetCase) -> None:
    """Alone or beside others: the same bits at one row count of the networks' calls, about the same at another."""
    import torch

    case.can(Capability.DENOISE)
    whole = _asked(case.target, case.samples)
    alone = _asked(case.target, case.samples[1:2])
    other = _asked(case.opened(rows=COUNT + 2), case.samples)
    for name, values in whole.items():
        if not torch.equal(values[1:2], alone[name]):
            fix = (
                "no batch statistics and no work across samples in `predict`, `posterior` and `picture`; `eval()` mode"
            )
            raise Fault(f"{name} of a sample changes with its companions", fix)
        if float((values - other[name]).abs().max()) > RTOL * float(values.abs().max()):
            raise Fault(f"{name} changes with the row count", "padding rows must not be read: treat each row by itself")


def _asked(target: Target, samples: list[Sample]) -> dict[str, torch.Tensor]:
    batch = batch_of(target, samples)
    x = target.schedule.noised(batch.x0, batch.eps(HIGH), HIGH)
    predicted = target.denoiser(x, HIGH, batch.condition)
    return {"encode": batch.x0 * 1, "denoiser": predicted * 1, "decode": target.decode(batch.x0)}


def generation(case: TargetCase) -> None:
    """Generated images lie in [-1, 1], one for each caption, the same when asked again, others for other captions."""
    import torch

    case.can(Capability.GENERATE)
    _generated(case, None)
    if case.target.conditioned:
        batch = case.batch(case.target)
        usual = case.target.generate(batch, case.texts, steps=STEPS)
        turned = case.target.generate(batch, [*case.texts[1:], case.texts[0]], steps=STEPS)
        if torch.equal(usual, turned):
            raise Fault("other captions make the same images", "read `captions` in `generate`")


def variation(case: TargetCase) -> None:
    """Images generated from an image and a strength lie in [-1, 1], and differ more at a larger strength.

    From the image as the target shows it, which a poor autoencoder changes too.
    """
    case.can(Capability.VARY)
    target, batch = case.target, case.batch(case.target)
    image = target.shown(batch.x0) if Capability.DENOISE in target.capabilities else batch.pixels
    near, far = (_generated(case, strength) for strength in (0.1, 1.0))
    moved = [float((values - image).abs().mean()) for values in (near, far)]
    if not moved[0] < moved[1]:
        found = f"at strength 0.1 they are {moved[0]:.3g} away from the image, at 1.0 {moved[1]:.3g}"
        raise Fault(found, "strength 0 keeps the image, 1 forgets it")


def _generated(case: TargetCase, strength: float | None) -> torch.Tensor:
    import torch

    target = case.target
    steps = {"steps": 10 if strength else STEPS, "strength": strength}
    made = [target.generate(case.batch(target), case.texts, **steps) for _ in range(2)]  # type: ignore[arg-type]
    values = _checked("generate", made[0], (COUNT, 3, target.image_size, target.image_size))
    if float(values.abs().max()) > 1:
        raise Fault(f"values up to {float(values.abs().max()):.3g}", "clip to [-1, 1]: `self.shown(latents)` does")
    if not torch.equal(*made):
        raise Fault("asked again, it makes another image", "take noise from the batch: batch.eps(t, draw, 'start')")
    return values


def gradients(case: TargetCase) -> None:
    """Gradients reach the input and each weight within `differentiable`, and are off again after it."""
    import torch

    case.can(Capability.DENOISE, Capability.GRADIENT)
    target = case.target
    batch = batch_of(target, case.samples[:1])
    x = (batch.x0 * 1).requires_grad_()
    with target.differentiable() as weights, torch.enable_grad():
        loss = target.denoiser(x, HIGH, batch.condition, grad=True).square().sum()
        found = torch.autograd.grad(loss, [x, *weights.values()], allow_unused=True)
    if not weights:
        raise Fault("`network` has no weights", "return the module that `predict` calls")
    if (
        found[0] is None
        or all(g is None for g in found[1:])
        or not all(bool(g.isfinite().all()) for g in found if g is not None)
    ):
        raise Fault("the gradient is missing or not finite", "no torch.no_grad, detach or numpy in `predict`")
    if any(weight.requires_grad for weight in weights.values()):
        raise Fault("weights require gradients after the block", "leave `differentiable` as it is")


def facts(case: TargetCase) -> None:
    """What a run records of it can be written as JSON."""
    import json

    target = case.target
    for name, value in (("settings", target.settings()), ("facts", target.facts()), ("weights", target.weights())):
        try:
            json.dumps(dict(value))
        except (TypeError, ValueError) as error:
            raise Fault(
                f"`{name}` gave {value!r}: {error}", "return texts, numbers, lists and mappings of them"
            ) from error


CHECKS: tuple[Any, ...] = (
    loads,
    metadata,
    fingerprint,
    facts,
    shapes,
    schedule,
    noise,
    captions,
    row_independence,
    generation,
    variation,
    gradients,
)
