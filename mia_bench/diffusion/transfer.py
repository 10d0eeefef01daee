"""Between host and device, as seldom as possible and without waiting where that can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from the host without waiting for the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def stacked(arrays: Sequence[NDArray[np.float32]], device: torch.device) -> torch.Tensor:
    """Arrays of one shape to a tensor `(N, ...)` on a device: put together where the device copies from."""
    shape = (len(arrays), *arrays[0].shape)
    together = torch.empty(shape, dtype=torch.float32, pin_memory=device.type == "cuda")
    np.stack(arrays, out=together.numpy())
    return to_device(together, device)


def on_host(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same with all tensors on the host: one copy for those of a kind, so that the device is waited for once."""
    found = [dict(terms) for terms in measured]
    kinds: dict[object, list[tuple[dict[str, Any], str, torch.Tensor]]] = defaultdict(list)
    for terms in found:
        for name, value in terms.items():
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                kinds[value.device, value.dtype].append((terms, name, value.detach().as_subclass(torch.Tensor)))
    for members in kinds.values():
        packed = torch.cat([value.reshape(-1) for *_, value in members]).cpu()
        parts = torch.split(packed, [value.numel() for *_, value in members])
        for (terms, name, value), part in zip(members, parts, strict=True):
            terms[name] = part.view(value.shape)
    return found
