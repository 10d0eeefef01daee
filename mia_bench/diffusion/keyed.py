"""Tensors that carry a symbolic name of how they were made.

The denoiser shares a query when two attacks ask for the same input at the same time and condition. Comparing names on
the host finds that without reading a tensor back from the device. Any operation outside the harness's own algebra
returns a plain tensor without a name. Shared tensors are read-only: changing one in place, or through a view, is an
error.

Pictures carry a name more lightly, for the encoders that look at them: whoever asked for one may change it, and the
name is gone with the change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SAMPLE_DIMS = 3  # channels, height, width: what one sample looks like to the denoiser
LONGEST = 256  # of a name; every step of a walk doubles it, so longer ones are hashed


class Keyed(torch.Tensor):
    """A tensor `(B, *grid, C, H, W)` with one name per grid cell in `keys` (object array of shape `grid`)."""

    keys: NDArray[np.object_]
    version: int

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, options = getattr(func, "__name__", ""), kwargs or {}
        in_place = name.endswith("_") and not name.endswith("__")
        in_place |= name in ("__setitem__", "__set__") or bool(options.get("inplace"))
        if in_place or isinstance(options.get("out"), Keyed):
            raise RuntimeError(f"{name} would change a shared tensor in place; use a copy")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **options)


def keyed(tensor: torch.Tensor, keys: Any) -> Keyed:
    """Name a tensor.

    Args:
        tensor: `(B, *grid, C, H, W)`.
        keys: One name, or an array of names of shape `grid`.
    """
    named: Keyed = tensor.detach().as_subclass(Keyed) if isinstance(tensor, Keyed) else tensor.as_subclass(Keyed)
    named.keys = np.asarray(keys, dtype=object).copy()
    for cell, name in np.ndenumerate(named.keys):
        named.keys[cell] = shortened(name)
    named.version = version_of(named)
    return named


def shortened(name: Any) -> Any:
    """A name, or its hash where it is long."""
    long = len(str(name)) > LONGEST
    return "#" + hashlib.sha256(str(name).encode()).hexdigest()[:32] if long else name


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor's storage was changed in place, views included; inference tensors refuse such changes."""
    return 0 if tensor.is_inference() else int(tensor._version)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same storage without a name, free of the subclass's overhead."""
    return tensor.as_subclass(torch.Tensor) if isinstance(tensor, Keyed) else tensor


def keys_of(tensor: torch.Tensor) -> NDArray[np.object_] | None:
    """Names of a tensor's grid cells, or None if it was made outside the algebra.

    Raises:
        RuntimeError: The tensor was changed after it was named.
    """
    if not isinstance(tensor, Keyed):
        return None
    if version_of(tensor) != tensor.version:
        raise RuntimeError(f"shared tensor {tensor.keys.ravel()[0]} was changed in place; use a copy")
    return tensor.keys


def combine(result: torch.Tensor, name: Callable[..., str], *inputs: Any) -> torch.Tensor:
    """Name `result` from the names of its inputs; unnamed if any input is.

    Args:
        result: `(B, *grid, C, H, W)`.
        name: Called with one key or value per input, broadcast over the grid.
        inputs: Tensors (their keys are used) or arrays of plain values.
    """
    keys = [keys_of(x) if isinstance(x, torch.Tensor) else np.asarray(x, dtype=object) for x in inputs]
    if any(k is None for k in keys):
        return result
    grid = result.shape[1 : result.ndim - SAMPLE_DIMS]
    cells = np.broadcast_arrays(*[k for k in keys if k is not None], np.empty(grid, dtype=object))[:-1]
    names = np.empty(grid, dtype=object)
    for cell in np.ndindex(*grid):
        names[cell] = name(*(c[cell] for c in cells))
    return keyed(result, names)


def named_picture(images: torch.Tensor, how: str, *made_of: str | None) -> torch.Tensor:
    """Name a plain tensor of pictures by how it was made of named things; not at all if one has no name.

    Args:
        images: `(B, 3, H, W)`; the same object is returned.
        how: What was done.
        made_of: Names of what it was done to.
    """
    if None not in made_of and not images.is_inference():  # whose changes could not be noticed
        images.made = shortened(f"{how}({','.join(map(str, made_of))})"), version_of(images)  # type: ignore[attr-defined]
    return images


def picture_name(images: torch.Tensor) -> str | None:
    """The name of pictures, or None if they have none or were changed since."""
    name, version = getattr(images, "made", (None, 0))
    return name if version == version_of(images) else None
