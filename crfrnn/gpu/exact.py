"""The exact filter on the GPU: the sum of `plain.py`, streamed by Triton's kernels.

Functions of the same names and meanings as the plain ones, which serve whatever the kernels do
not: integer rows, more than 16 feature dimensions, no pixel or no label, no Triton.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crfrnn import plain, triton_kernels

MAX_DIM = 16  # of the features
KEY_BITS = 62  # of a cell's number on the space-filling curve
MAX_AXIS_BITS = 16  # of one coordinate


def exact_order(features: Tensor) -> Tensor:
    """Pixels with near features after each other, (B, N)."""
    if not serves(features, features):
        return plain.exact_order(features)
    return morton_order(features.to(sum_dtype(features)))


def morton_order(features: Tensor) -> Tensor:
    """Pixels in the order of their cells' Morton numbers, whose bits the axes take in turn: (B, N).

    A cell is as long on every axis: distances are what matters (Morton, IBM 1966).

    Args:
        features: (B, N, d), d <= KEY_BITS, N >= 1.
    """
    dim = features.shape[2]
    bits = min(KEY_BITS // dim, MAX_AXIS_BITS)
    above = features - features.amin(1, keepdim=True)
    span = above.amax((1, 2), keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)
    cells = (above / span * (2**bits - 1)).long()
    axis = torch.arange(dim, device=features.device)
    number = torch.zeros_like(cells[..., 0])
    for bit in range(bits):
        number += ((cells >> bit & 1) << (bit * dim + axis)).sum(2)
    return number.argsort(dim=1, stable=True)


def exact_filter(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    """`plain.exact_filter` without kernels below epsilon / N: see `filters.ExactFilter`."""
    if not serves(features, v):
        return plain.exact_filter(features, v)
    from crfrnn.triton_kernels import exact

    features = features.to(sum_dtype(features, v)).contiguous()
    return exact.exact_filter(features, v.contiguous(), order, epsilon)


def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float
) -> Tensor:
    """`plain.exact_features_grad` without kernels below epsilon / N."""
    if not serves(features, v):
        return plain.exact_features_grad(features, v, grad)
    from crfrnn.triton_kernels import exact_grad

    precise = features.to(sum_dtype(features, v, grad)).contiguous()
    rows = v.contiguous(), grad.contiguous()
    return exact_grad.exact_features_grad(precise, *rows, order, epsilon).to(features.dtype)


def serves(features: Tensor, v: Tensor) -> bool:
    """Tell whether the kernels take features and rows of these sizes and dtypes."""
    supported = features.is_floating_point() and v.is_floating_point()
    sized = 1 <= features.shape[2] <= MAX_DIM and features.numel() > 0 and v.numel() > 0
    return supported and sized and triton_kernels.available()


def sum_dtype(*rows: Tensor) -> torch.dtype:
    """Return what rows are summed in: float32, or float64 where one is."""
    return torch.float64 if any(x.dtype == torch.float64 for x in rows) else torch.float32
