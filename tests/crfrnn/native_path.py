"""What the tests of the native CPU path share: random rows, and how far apart paths may be."""

from __future__ import annotations

import torch
from torch import Tensor

# Sums of non-negative terms: each of at most 100 roundings (the pixels around a vertex, 3 taps in
# each of d + 1 blurs, d + 1 vertices) is off by at most 2^-24 of the sum so far. Both paths add in
# the same order, and differ by the roundings that a fused multiply-add leaves out.
ROUNDINGS = 100 * 2**-24


def random_features(batch: int, num_pixels: int, dim: int) -> Tensor:
    """(B, N, d), some 2 widths apart."""
    generator = torch.Generator().manual_seed(dim)
    return torch.randn(batch, num_pixels, dim, generator=generator) * 2


def random_rows(batch: int, num_pixels: int, num_labels: int) -> Tensor:
    """(B, N, L) in [0, 1)."""
    generator = torch.Generator().manual_seed(num_labels)
    return torch.rand(batch, num_pixels, num_labels, generator=generator)
