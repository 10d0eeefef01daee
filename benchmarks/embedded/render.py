"""Icons as small RGB images: resvg at 256 px on white, Lanczos to 64 px, 2×2 mean to 32 px."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from concepts import Concept
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sources import FLUENT, NOTO, TWEMOJI, Package

LARGE, MIDDLE = 256, 64


def fluent(found: list[Concept], work: Path) -> NDArray[np.uint8]:
    """The target style; (N, 32, 32, 3) in the order of the concepts."""
    return _render("fluent", FLUENT, [concept.id for concept in found], work)


def public(found: list[Concept], work: Path) -> dict[str, NDArray[np.uint8]]:
    """The other styles, each (N, 32, 32, 3) in the order of the concepts: what everything frozen is trained on."""
    return {
        style: _render(style, package, _names(package, found, work), work)
        for style, package in (("noto", NOTO), ("twemoji", TWEMOJI))
    }


def _names(package: Package, found: list[Concept], work: Path) -> list[str]:
    chars = {_bare(code): name for code, name in package.read(work / "npm", "chars.json").items()}
    return [chars[_bare(concept.hexcode)] for concept in found]


def _bare(code: str) -> str:
    return code.upper().replace("-FE0F", "")


def _render(style: str, package: Package, names: list[str], work: Path) -> NDArray[np.uint8]:
    path = work / f"{style}.npy"
    if not path.exists():
        icons = package.read(work / "npm", "icons.json")
        with ProcessPoolExecutor() as pool:
            images = list(pool.map(raster, [svg(icons, name) for name in names], chunksize=32))
        np.save(path, np.stack([_flipped(image, icons, name) for image, name in zip(images, names, strict=True)]))
    pixels: NDArray[np.uint8] = np.load(path)
    return pixels


def svg(icons: dict[str, Any], name: str) -> str:
    """The icon, or its parent's drawing if it is an alias."""
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'


def raster(drawing: str) -> NDArray[np.uint8]:
    """A drawing as (32, 32, 3) uint8 on white."""
    return reduced(middle(drawing))


def middle(drawing: str) -> NDArray[np.uint8]:
    """A drawing as (64, 64, 3) uint8 on white; no font of the machine is read."""
    png = resvg_py.svg_to_bytes(
        svg_string=drawing, width=LARGE, height=LARGE, background="white", skip_system_fonts=True
    )
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if image.size != (LARGE, LARGE):
        image = ImageOps.pad(image, (LARGE, LARGE), color="white")
    return np.asarray(image.resize((MIDDLE, MIDDLE), Image.Resampling.LANCZOS))


def reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At half the side."""
    return np.asarray(Image.fromarray(picture).reduce(2))


def drawn(icons: dict[str, Any], name: str) -> NDArray[np.uint8]:
    """An icon as (64, 64, 3)."""
    return _flipped(middle(svg(icons, name)), icons, name)


def _flipped(image: NDArray[np.uint8], icons: dict[str, Any], name: str) -> NDArray[np.uint8]:
    return image[:, ::-1] if icons["aliases"].get(name, {}).get("hFlip") else image
