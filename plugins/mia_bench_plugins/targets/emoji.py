"""The embedded targets: small Stable-Diffusion-shaped models trained on half of Fluent Emoji."""

from __future__ import annotations

from pathlib import Path

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

DATA = Path(__file__).parents[1] / "data"
LICENCE = "U-Net MIT; VAE and text encoder CC BY-SA 4.0; see data/LICENSE.md"


class EmojiDefault(StableDiffusion):
    """67 passes over the 491 members: attacks are spread, none saturated."""

    meta = TargetMeta(
        name="emoji-default",
        summary="2.7 M-parameter U-Net after 67 passes over its members; embedded",
        kind="latent",
        capabilities=StableDiffusion.meta.capabilities,
        licence=LICENCE,
    )

    def folder(self, part: str) -> Path:
        return DATA / "emoji_default" / part


class EmojiOvertrain(EmojiDefault):
    """The same training after 117 passes; VAE, text encoder and schedule are shared."""

    meta = TargetMeta(
        name="emoji-overtrain",
        summary="the same training after 117 passes; embedded",
        kind="latent",
        capabilities=StableDiffusion.meta.capabilities,
        licence=LICENCE,
    )

    def folder(self, part: str) -> Path:
        return DATA / "emoji_overtrain" / part if part == "unet" else super().folder(part)


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [EmojiDefault, EmojiOvertrain]
