"""Which mean-field updates are one operator, and its arguments: see `update_ops.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from crfrnn.filtering.filters import LatticeFilter, SeparableFilter
from crfrnn.filtering.linear import Filter, Normalized
from crfrnn.filtering.update_ops import STORAGE, mean_field_updates

__all__ = ["STORAGE", "Storage", "fused_updates"]

Storage = Literal["float32", "bfloat16", "float16"]


def fused_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    iterations: int = 1,
    *,
    storage: Storage = "float32",
) -> Tensor | None:
    """The operator on these kernels, or None where it does not serve.

    It serves float32 on the CPU and, with Triton, on the GPU, spatial Gaussians of one grid and
    lattices, normalised; but not the lattice's own derivative, which its filter has.
    """
    rows = [unary] if start is None else [start, unary]
    if not kernels or any(x.dtype != torch.float32 for x in (*rows, *penalties)):
        return None
    if not _serves_device(unary):
        return None
    factors: list[Tensor] = []
    tensors: list[Tensor] = []
    accuracies: list[str] = []
    shape: list[int] = []
    for kernel in kernels:
        if not isinstance(kernel, Normalized):
            return None
        own = kernel.kernel
        if isinstance(own, LatticeFilter) and not own.learns_through_tables:
            tensors += [own.features, *own.tables]
            accuracies.append(own.accuracy)
        elif isinstance(own, SeparableFilter) and shape in ([], own.shape):
            tensors.append(own.theta)
            accuracies.append("")
            shape = own.shape
        else:
            return None
        factors += [unary.new_empty(0) if x is None else x for x in (kernel.before, kernel.after)]
    learns = any(x.requires_grad for x in (*rows, *penalties, *factors, *tensors))
    result: Tensor = mean_field_updates(
        None if start is None else start.contiguous(),
        unary.contiguous(),
        list(penalties),
        factors,
        tensors,
        ",".join(accuracies),
        shape or [0],  # an empty list reads as one of tensors on the way back
        iterations,
        learns and torch.is_grad_enabled(),
        storage,
    )[0]
    return result


def _serves_device(unary: Tensor) -> bool:
    if unary.device.type != "cuda":
        return unary.device.type == "cpu"
    from crfrnn.filtering import cuda_update

    return cuda_update.serves(unary)
