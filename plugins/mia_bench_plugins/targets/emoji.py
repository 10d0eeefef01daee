"""The embedded targets: three small Stable-Diffusion-shaped models that share all but the U-Net."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench.diffusion.checkpoint import Checkpoint, Folder
from mia_bench.diffusion.pipeline import PipelineTarget
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

DATA = Path(__file__).parents[1] / "data" / "emoji"


def _meta(name: str, summary: str) -> TargetMeta:
    return TargetMeta(
        name=name,
        summary=f"2.7 M-parameter U-Net, {summary}; embedded",
        kind="latent",
        capabilities=StableDiffusion.meta.capabilities,
        licence="U-Net MIT; VAE and text encoder Apache-2.0 and CC BY 4.0; see data/LICENSE.md",
    )


class EmojiRealworld(StableDiffusion):
    """Flips, shifts and small colour changes; every image seen equally often."""

    meta = _meta("emoji-realworld", "trained with augmentation")
    reads = PipelineTarget.reads - {"revision", "config"}

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Folder(DATA, places={"unet": DATA / self.meta.name.removeprefix("emoji-") / "unet"})


class EmojiOvertrain(EmojiRealworld):
    """130 passes without augmentation, the memorised images 50 times a pass."""

    meta = _meta("emoji-overtrain", "130 passes without augmentation")


class EmojiMirror(EmojiRealworld):
    """The overtrained recipe on the non-members."""

    meta = _meta("emoji-mirror", "as emoji-overtrain, on its non-members")


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [EmojiRealworld, EmojiOvertrain, EmojiMirror]
