"""The contract of a target: the model under audit.

A model family supplies `weights`, `load` and `predict`; with latents also `posterior` and `picture`, with captions also
`tokens` and `text_states`, with gradients `network`. This class adds what attacks call: `encode`, `decode`,
`condition`, `denoiser`, `differentiable`. VAE and text encoder run at a fixed row count too, and once per image and
caption.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mia_bench.attack import Capability
from mia_bench.errors import UnavailableError
from mia_bench.target_meta import TargetMeta as TargetMeta
from mia_bench.target_meta import TargetOptions as TargetOptions

if TYPE_CHECKING:
    import torch

    from mia_bench.batch import Batch as Batch
    from mia_bench.diffusion.denoiser import Condition, Denoiser
    from mia_bench.diffusion.rows import RowRunner
    from mia_bench.diffusion.schedule import Schedule
    from mia_bench.encoder import Encoder

TEXT_BYTES = 2**28  # of text states remembered between batches: a thousand texts of Stable Diffusion 1


class Target(ABC):
    """Base class of a loaded model.

    Attributes for attacks:
        schedule: Signal and noise levels (`abar`, `noised`, `jump`).
        denoiser: Predicts noise over grids.
        sample_shape: Shape of one denoiser input, `(C, H, W)`.
        image_size: Side in pixels.
        reference: Another model that some attacks ask beside the target, or None.
        encoders: Encoders that attacks named, by what was written: `target.encoders["dino"]`.
        options: How it is loaded; set before anything is read.
        note: What the user should know of where it comes from.
    """

    meta: ClassVar[TargetMeta]
    reads: ClassVar[frozenset[str]] = frozenset()
    """Options that this target understands."""
    schedule: Schedule
    denoiser: Denoiser
    image_size: int
    sample_shape: tuple[int, ...]
    reference: Target | None = None

    def __init__(self, argument: str = "") -> None:
        self.argument = argument
        self.options, self.note = TargetOptions(), ""
        self.device, self.dtype = "cpu", "float32"
        self.latent: Literal["mode", "sample"] = "mode"
        self.encoders: dict[str, Encoder] = {}
        self.opened_for: object = None  # the harness's: how it was opened last

    # What a model family supplies -------------------------------------------------------------------------------

    @abstractmethod
    def load(self) -> None:
        """Read the weights to `self.device` in `self.dtype`; sets `schedule`, `image_size` and `sample_shape`."""

    @abstractmethod
    def weights(self) -> Mapping[str, str]:
        """sha256 of every file that defines the model, by name; readable before `load`."""

    def fetch(self) -> Mapping[str, Path]:
        """Get what `load` needs onto this machine, if it lies elsewhere.

        Returns:
            The files by name; none of a target that reads no files.

        Raises:
            UnavailableError: They cannot be had, or not read.
        """
        return {}

    @abstractmethod
    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        """The network's own output for `x` `(R, C, H, W)` float32, `t` int64 `(R,)`."""

    def posterior(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and standard deviation of the latents, scaled: `(R, 3, H, W)` in [-1, 1] -> `(R, 2, C, h, w)`."""
        raise NotImplementedError(f"{self.meta.name} works on pixels")

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to images: `(R, C, h, w)` -> `(R, 3, H, W)`, about [-1, 1]."""
        raise NotImplementedError(f"{self.meta.name} works on pixels")

    def network(self) -> torch.nn.Module:
        """The network behind `predict`, for attacks that read its weights."""
        raise NotImplementedError(f"{self.meta.name} gives no access to its weights")

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids int64 `(N, L)`, truncated and padded."""
        raise NotImplementedError(f"{self.meta.name} takes no captions")

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Text encoder: `(R, L)` -> states `(R, L, D)`, passed to `predict` as `encoder_hidden_states`."""
        raise NotImplementedError(f"{self.meta.name} takes no captions")

    # What the harness and attacks call --------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this target can do, with the reference model it was given."""
        able = self.meta.capabilities | ({Capability.REFERENCE} if self.reference else frozenset())
        return able | ({Capability.VARY} if {Capability.DENOISE, Capability.GENERATE} <= able else frozenset())

    @property
    def conditioned(self) -> bool:
        """Whether a sample's caption conditions it; attacks may write captions of their own only with `CAPTION`."""
        return Capability.CAPTION in self.meta.capabilities

    @property
    def guided(self) -> bool:
        """Whether there is a null condition to guide away from."""
        return self.conditioned

    def settings(self) -> Mapping[str, Any]:
        """What else decides its numbers, JSON-ready; part of its fingerprint."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """Where it comes from: recorded with a run, never compared."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights and configuration files, and of settings if there are any."""
        made_of = {**self.weights(), **({"settings": self.settings()} if self.settings() else {})}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]

    def open(
        self,
        device: str = "cpu",
        dtype: str = "float32",
        rows: int | None = None,
        threads: int = 1,
        share: bool = True,
        latent: Literal["mode", "sample"] = "mode",
        compile: bool = False,
    ) -> None:
        """Load the model, its reference and its encoders, and build the counting denoiser.

        Args:
            device: torch device.
            dtype: Precision of the networks.
            rows: Rows per call of every network; by the size of one input, or image, if not given.
            threads: Calls at once on a CPU.
            share: Whether equal queries run once.
            latent: Posterior `mode` (deterministic) or a `sample` of it.
            compile: Compile the denoiser's network with `torch.compile`; queries for gradients run it as it is.

        Raises:
            MiaBenchError: It cannot be loaded, or not so.
        """
        import torch

        from mia_bench.diffusion.compiled import Compiled, check_compilable
        from mia_bench.diffusion.denoiser import Denoiser
        from mia_bench.diffusion.fitting import row_runners
        from mia_bench.diffusion.rows import worker_pool

        if compile:
            check_compilable(self)
        self.device, self.dtype, self.latent = device, dtype, latent
        pool = worker_pool(threads) if torch.device(device).type == "cpu" else None
        # TF32 keeps 10 bits: enough to drown attacks that compare nearby predictions.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            self.load()
        except torch.OutOfMemoryError as error:
            what, fix = f"target {self.argument or self.meta.name}", "--dtype float16 takes half; "
            if "offload" in self.reads:
                fix += "--offload keeps the weights in main memory; "
            why = f"its weights do not fit in the memory of {device}"
            raise UnavailableError(what, why, f"{fix}or another --device") from error
        runners = row_runners(self, rows, pool, compile)
        self.vae_rows, self.decode_rows, self.text_rows = (runners[kind] for kind in ("vae", "decoder", "text"))
        self.denoiser = Denoiser(self.predict, self.schedule, runners["denoiser"], share)
        if compile:
            self.denoiser.compiled = Compiled(self.predict)
        self._texts: OrderedDict[str, Any] = OrderedDict()
        self._decoded: dict[str, torch.Tensor] = {}
        self._moments: dict[str, torch.Tensor] = {}
        if self.reference:
            self.reference.open(device, dtype, rows, threads, share, latent, compile)
            why = ""
            if self.reference.sample_shape != self.sample_shape:
                why = f"its inputs are {self.reference.sample_shape}, the target's {self.sample_shape}"
            elif not self.schedule.agrees(self.reference.schedule):
                why = "its noise levels are not the target's, so it cannot be asked about the same noised images"
            if why:
                what = f"reference {self.reference.argument or self.reference.meta.name}"
                raise UnavailableError(what, why, "give a model of the target's family with --reference")
            other = self.reference.denoiser
            other.account, other.rows, other.name = self.denoiser.account, self.denoiser.rows, "reference"
        for encoder in self.encoders.values():
            encoder.open(self)

    def first_rows(self) -> int:
        """Rows per call at first: by the size of one input, on a GPU also by the memory left beside the weights."""
        from mia_bench.diffusion.fitting import first_rows

        return first_rows(self)

    def free_bytes(self) -> int | None:
        """Memory of the device that is free or held for calls to come; None for a CPU, which is not asked."""
        import torch

        if torch.device(self.device).type != "cuda":
            return None
        held = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + held

    def device_facts(self) -> Mapping[str, Any]:
        """Name and memory of the device, as they tell one kind from another."""
        import torch

        properties = torch.cuda.get_device_properties(self.device)
        return {"device": properties.name, "memory_bytes": properties.total_memory}

    @property
    def networks(self) -> dict[str, RowRunner]:
        """What runs each network, by name."""
        own = {
            "denoiser": self.denoiser.rows,
            "vae": self.vae_rows,
            "decoder": self.decode_rows,
            "text": self.text_rows,
        }
        return own | {f"encoder {name}": encoder.rows for name, encoder in self.encoders.items()}

    def forget(self) -> None:
        """Start a new batch: earlier predictions are dropped, recent text states kept."""
        if self.reference:
            self.reference.forget()
        self.denoiser.forget()
        self._decoded.clear()
        self._moments.clear()
        for encoder in self.encoders.values():
            encoder.forget()
        kept = sum(state.numel() * state.element_size() for state in self._texts.values())
        while kept > TEXT_BYTES:
            _, state = self._texts.popitem(last=False)
            kept -= state.numel() * state.element_size()

    def encode(self, pixels: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Images to denoiser inputs; named pictures of one batch go through the network once.

        Args:
            pixels: float32 `(B, 3, H, W)` in [-1, 1].
            noise: Standard normal `(B, C, h, w)` for a posterior sample, or None for its mode.

        Returns:
            float32 `(B, C, h, w)`; for a pixel-space model a copy of its input.
        """
        if self.meta.kind == "pixel":
            return pixels.clone()
        import torch

        from mia_bench.diffusion.keyed import picture_name

        name = picture_name(pixels)
        moments = self._moments.get(name) if name else None
        if moments is None:
            with torch.inference_mode():
                moments = self.vae_rows(self.posterior, pixels).float()
        if name:
            self._moments[name] = moments
        with torch.no_grad():  # a copy, which gradient attacks may put into a graph
            return moments[:, 0].clone() if noise is None else moments[:, 0] + moments[:, 1] * noise

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Denoiser inputs to images; equal ones of one batch are decoded once.

        Args:
            latents: float32 `(B, C, h, w)`, or `(B, n, C, h, w)`.

        Returns:
            float32 `(B, [n,] 3, H, W)`, about [-1, 1], not clamped; for a pixel-space model a copy of its input.
        """
        import torch

        from mia_bench.diffusion.keyed import keys_of, named_picture, plain

        keys = keys_of(latents) if self.denoiser.share else None
        name = None if keys is None else str(keys.tolist())  # of a grid a list: one draw is not its grid
        if self.meta.kind == "pixel":
            images = plain(latents)
        elif name in self._decoded:
            images = self._decoded[name]
        else:
            with torch.inference_mode():
                images = self.decode_rows(self.picture, plain(latents).flatten(0, -4)).float()
            images = images.view(*latents.shape[:-3], *images.shape[1:])
            if name:
                self._decoded[name] = images
        return named_picture(images.clone(), f"{self.denoiser.name}-decoded", name)

    def generate(
        self,
        batch: Batch,
        captions: Sequence[str],
        *,
        strength: float | None = None,
        steps: int = 50,
        guidance: float = 7.5,
        draw: int = 0,
    ) -> torch.Tensor:
        """Images for captions, or like the batch's own images; equal requests of one batch are answered once.

        Deterministic DDIM from noise that belongs to the sample. A target that can do no more overrides this.

        Args:
            batch: Whose samples' noise, and images.
            captions: B captions; not read by an unconditional target.
            strength: None from noise alone; else from the image, noised to this share of the steps, in [0, 1].
            steps: Of the whole way from noise.
            guidance: w; each step of a `guided` target is two queries unless it is 0 or 1.
            draw: Number of the noise.

        Returns:
            float32 `(B, 3, H, W)` in [-1, 1].
        """
        from mia_bench.diffusion.sampler import path, walk

        timesteps = path(self, steps, 1.0 if strength is None else strength)
        start: torch.Tensor = batch.eps(timesteps[0], draw, "start")
        if strength is not None:
            start = self.schedule.noised(batch.x0, start, timesteps[0])
        null = batch.null if self.guided else None
        *_, latents = walk(self, start, timesteps, self.condition(captions), null, guidance=guidance)
        return self.shown(latents)

    def shown(self, latents: torch.Tensor) -> torch.Tensor:
        """What `decode` makes of latents as a pipeline shows it: float32 `(B, [n,] 3, H, W)`, clipped to [-1, 1]."""
        from mia_bench.diffusion.keyed import named_picture, picture_name

        images = self.decode(latents)
        return named_picture(images.clamp(-1, 1), "shown", picture_name(images))

    def probe(self, batch: Batch) -> None:
        """Ask something plain of the target.

        Raises:
            NetworkError: The target itself is at fault, and no attack that asked it.
        """
        self.denoiser(batch.x0 * 1, 0, batch.condition)  # without a name, so it is not answered from memory

    @contextmanager
    def differentiable(self) -> Iterator[dict[str, torch.nn.Parameter]]:
        """The denoiser's weights by name, with gradients switched on within the block."""
        weights = dict(self.network().named_parameters())
        for weight in weights.values():
            weight.requires_grad_(True)
        try:
            yield weights
        finally:
            for weight in weights.values():
                weight.requires_grad_(False)

    def condition(self, texts: Sequence[str]) -> Condition:
        """Text states for one caption per sample; each distinct text is encoded once.

        Args:
            texts: B captions; the empty string is the null condition.
        """
        from mia_bench.diffusion.denoiser import Condition

        if not self.conditioned:
            return Condition("", {})
        import torch

        from mia_bench.diffusion.transfer import to_device

        new = [t for t in dict.fromkeys(texts) if t not in self._texts]
        if new:
            with torch.inference_mode():
                tokens = to_device(self.tokens(new), torch.device(self.device))
                states = self.text_rows(self.text_states, tokens)
            self._texts.update(zip(new, states, strict=True))
        for text in texts:
            self._texts.move_to_end(text)
        key = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
        return Condition(key, {"encoder_hidden_states": torch.stack([self._texts[t] for t in texts])})
