"""What all targets share that diffusers loads: parts, latents, precision, adapters, offloading.

A family names its parts, and says how its denoiser is called and what its captions become; a new family is one file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mia_bench.attack import Capability
from mia_bench.diffusion.checkpoint import Checkpoint
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.target import Target

if TYPE_CHECKING:
    import torch

UNET = frozenset({"class_embed_type", "addition_embed_type", "time_cond_proj_dim", "num_class_embeds"})


class PipelineTarget(Target):
    """A target of the parts of a diffusers pipeline; each lies in the attribute of its name once loaded.

    Attributes:
        parts: Part -> classes it may be, the usual one first.
        optional: Those that a pipeline may lack.
        denoiser_part: The one that predicts.
        vae_part: The one that encodes and decodes, or nothing.
        upcast_vae: Whether a VAE that says so (`force_upcast`) runs in float32 where float16 is asked for.
    """

    reads = frozenset({"revision", "lora", "allow_pickle", "config", "offload", "resolution"})
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    optional: ClassVar[frozenset[str]] = frozenset()
    denoiser_part: ClassVar[str] = "unet"
    vae_part: ClassVar[str] = "vae"
    upcast_vae: ClassVar[bool] = False
    text_encoder: Any
    text_encoder_2: Any
    text_encoder_3: Any
    tokenizer: Any
    tokenizer_2: Any
    tokenizer_3: Any
    transformer: Any
    unet: Any
    vae: Any
    vqvae: Any

    # What a family may say otherwise ----------------------------------------------------------------------------

    def fit(self) -> None:
        """Set `sample_shape` and `image_size` from the loaded parts; refuse what the family cannot serve.

        Raises:
            UnavailableError: The parts do not fit together.
        """
        from mia_bench.diffusion.checkpoint import square

        self.check_unet()
        config = self.autoencoder.config
        channels = int(config.get("vq_embed_dim") or config.latent_channels)
        self.shape(channels, square(self.denoiser_module, channels), self.factor)

    @property
    def factor(self) -> int:
        """Pixels to a side of one latent."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    # What families use ------------------------------------------------------------------------------------------

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the parts come from."""
        from mia_bench.diffusion.source import open_checkpoint

        return open_checkpoint(self.argument or self.meta.repository, self.options, self.parts)

    @property
    def denoiser_module(self) -> Any:
        """The network that predicts."""
        return getattr(self, self.denoiser_part)

    @property
    def autoencoder(self) -> Any:
        """The VAE."""
        return getattr(self, self.vae_part)

    @property
    def present(self) -> list[str]:
        """The parts that the pipeline has.

        Raises:
            UnavailableError: It lacks one that the family cannot do without.
        """
        found = [part for part in self.parts if self.checkpoint.has(part)]
        if lacking := [part for part in self.parts if part not in found and part not in self.optional]:
            name = self.checkpoint.index().get("_class_name")
            why = f"this {name} has none, and the family {self.meta.name} cannot do without"
            raise UnavailableError(f"target part {lacking[0]}", why, "give a complete pipeline; refiners do not fit")
        return found

    def shape(self, channels: int, side: int | None, factor: int = 1, multiple: int | None = None) -> None:
        """Set the size of inputs, `side` unless the user asked for another.

        Args:
            channels: Of one input.
            side: The model's own, in inputs; None if it does not say.
            factor: Pixels to a side of one input.
            multiple: What the side must be divisible by; the U-Net's own if not given.

        Raises:
            UsageError: The user's resolution does not fit.
            UnavailableError: There is no resolution.
        """
        if multiple is None:
            blocks = self.denoiser_module.config.block_out_channels
            multiple = 2 ** (len(blocks) - 1)
        if asked := self.options.resolution:
            if asked % (factor * multiple):
                why = f"the model needs a multiple of {factor * multiple}"
                fix = f"its own is {side * factor}" if side else f"try {512 // (factor * multiple) * factor * multiple}"
                raise UsageError(f"--resolution {asked}", why, fix)
            side = asked // factor
        if side is None:
            why = "its configuration does not say of which size its images are (sample_size)"
            raise UnavailableError(f"target part {self.denoiser_part}", why, "add --resolution PIXELS")
        self.sample_shape, self.image_size = (channels, side, side), side * factor

    def check_unet(self, *expected: str) -> None:
        """Refuse a U-Net with other inputs than the family gives it.

        Raises:
            UnavailableError: It wants more, such as a class or a guidance scale.
        """
        config = self.denoiser_module.config
        extra = sorted(n for n in UNET if config.get(n) is not None and n not in expected)
        if extra:
            why = f"it wants further inputs ({', '.join(f'{n}={config[n]}' for n in extra)})"
            fix = f"the family {self.meta.name} does not give them; `mia-bench list targets` shows others"
            raise UnavailableError(f"target part {self.denoiser_part}", why, fix)

    # The contract -----------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[Capability]:
        # Offloaded weights leave the device after each layer, so there is nothing to go back through.
        lost = {Capability.GRADIENT} if self.options.offload else set()
        return super().capabilities - lost

    def settings(self) -> Mapping[str, Any]:
        return {"resolution": self.options.resolution} if self.options.resolution else {}

    def facts(self) -> Mapping[str, Any]:
        notes = {"note": self.note} if self.note else {}
        return {**self.checkpoint.facts, **notes, **self.settings(), "weights": dict(self.weights())}

    @cached_property
    def _weights(self) -> Mapping[str, str]:
        adapters = {}
        if self.options.lora:
            from mia_bench.diffusion.lora import adapter_hashes

            adapters = adapter_hashes(self.options)
        return {**self.checkpoint.hashes(self.present), **adapters}

    def weights(self) -> Mapping[str, str]:
        return self._weights

    def fetch(self) -> Mapping[str, Path]:
        from mia_bench.diffusion.lora import adapters

        self.checkpoint.check(self.present)
        return {**self.checkpoint.paths(self.present), **adapters(self.options)}

    def load(self) -> None:
        import torch

        self.__dict__.pop("_scaling", None)  # of the device before
        for part in self.optional:
            setattr(self, part, None)
        for part in self.present:
            if part == "scheduler":
                continue
            dtype = self.dtype
            if part == self.vae_part and self.upcast_vae and dtype == "float16":
                dtype = "float32" if self.checkpoint.config(part).get("force_upcast", True) else dtype
            setattr(self, part, self.checkpoint.load(self.parts[part], part, dtype))
        if self.options.lora:
            from mia_bench.diffusion.lora import fuse

            fuse(self)
        for part in self.parts:
            network = getattr(self, part, None)
            if isinstance(network, torch.nn.Module):
                self._place(network)
        self.schedule = self.checkpoint.schedule()
        self.fit()

    def _place(self, network: Any) -> None:
        import torch

        device = torch.device(self.device)
        if self.options.offload and device.type != "cpu":
            offload(network, device)
        else:
            network.to(device=device, memory_format=layout(device.type, network.dtype))

    def posterior(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        found = self.autoencoder.encode(pixels.to(self.autoencoder.dtype)).latent_dist
        scale, shift = self._scaling
        return torch.stack([(found.mean - shift) * scale, found.std * scale], dim=1)

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        scale, shift = self._scaling
        scaled = (latents / scale + shift).to(self.autoencoder.dtype)
        image: torch.Tensor = self.autoencoder.decode(scaled, return_dict=False)[0]
        return image

    @cached_property
    def _scaling(self) -> tuple[float | torch.Tensor, float | torch.Tensor]:
        """What latents are multiplied with once their shift is taken off; float32 `(1, C, 1, 1)` if by channel."""
        import torch

        config = self.autoencoder.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return config.scaling_factor, config.get("shift_factor") or 0.0
        mean, std = (torch.tensor(v, dtype=torch.float32, device=self.device).view(1, -1, 1, 1) for v in (mean, std))
        return config.scaling_factor / std, mean

    def network(self) -> torch.nn.Module:
        module: torch.nn.Module = self.denoiser_module
        return module


def layout(device: str, dtype: torch.dtype) -> torch.memory_format:
    """How a network's convolutions lie in memory: channels last for a GPU's matrix units, which half precision uses.

    In float32 (TF32 is off) they are not used, and on a CPU it gains nothing: as the weights come, then.
    """
    import torch

    return torch.channels_last if device == "cuda" and dtype.itemsize == 2 else torch.preserve_format


def offload(network: Any, device: torch.device) -> None:
    """Keep a network's weights in main memory; each layer visits the device for its turn, attention goes in slices.

    Raises:
        UnavailableError: accelerate is not installed.
    """
    from diffusers.hooks import apply_group_offloading
    from diffusers.utils import is_accelerate_available

    if not is_accelerate_available():
        why = "diffusers moves layers with accelerate, which is not installed"
        raise UnavailableError("--offload", why, "pip install 'mia-bench[offload]'")
    if hasattr(network, "set_attention_slice"):
        network.set_attention_slice("auto")
    apply_group_offloading(network, onload_device=device, offload_type="leaf_level")


def ids(tokenizer: Any, texts: Sequence[str], length: int | None = None) -> torch.Tensor:
    """Token ids int64 `(N, L)`, truncated and padded to `length`, or to what the tokenizer says."""
    found: torch.Tensor = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        return_tensors="pt",
        **({"max_length": length} if length else {}),
    ).input_ids
    return found
