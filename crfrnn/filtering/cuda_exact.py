"""The exact filter on the GPU: the sum of `exact.py`, streamed by Triton's kernels.

Functions of the same names and meanings as the plain ones, which serve whatever the kernels do
not: integer rows, more than 16 feature dimensions, no pixel or no label, no Triton.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crfrnn import triton_kernels
from crfrnn.filtering import exact as plain_exact
from crfrnn.filtering.morton import morton_order

MAX_DIM = 16  # of the features


def exact_order(features: Tensor) -> Tensor:
    """Pixels with near features after each other, (B, N)."""
    if not serves(features, features):
        return plain_exact.exact_order(features)
    return morton_order(features.to(sum_dtype(features)))


def exact_filter(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    """`exact.exact_filter` without kernels below epsilon / N: see `filters.ExactFilter`."""
    if not serves(features, v):
        return plain_exact.exact_filter(features, v)
    from crfrnn.triton_kernels import exact

    features = features.to(sum_dtype(features, v)).contiguous()
    return exact.exact_filter(features, v.contiguous(), order, epsilon)


def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float
) -> Tensor | None:
    """`ops.gaussian_features_grad` without kernels below epsilon / N, or None: see `serves`."""
    if not serves(features, v):
        return None
    from crfrnn.triton_kernels import exact_grad

    precise = features.to(sum_dtype(features, v, grad)).contiguous()
    rows = v.contiguous(), grad.contiguous()
    return exact_grad.exact_features_grad(precise, *rows, order, epsilon).to(features.dtype)


def serves(features: Tensor, v: Tensor) -> bool:
    """Whether the kernels take features and rows of these sizes and dtypes."""
    supported = features.is_floating_point() and v.is_floating_point()
    sized = 1 <= features.shape[2] <= MAX_DIM and features.numel() > 0 and v.numel() > 0
    return supported and sized and triton_kernels.available()


def sum_dtype(*rows: Tensor) -> torch.dtype:
    """What rows are summed in: float32, or float64 where one is."""
    return torch.float64 if any(x.dtype == torch.float64 for x in rows) else torch.float32
