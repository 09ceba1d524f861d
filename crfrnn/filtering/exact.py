"""The Gaussian kernel summed exactly: the specification and the oracle.

    (K v)_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j,   j = i included

O(N^2) time and O(N) memory, on any device, in any floating dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crfrnn.filtering.linear import Filter

TILE = 1 << 22  # kernel values held at a time: 16 MB in float32


class ExactFilter(Filter):
    """K v by the sum itself, tile by tile. K is symmetric.

    Args:
        features: (B, N, d), already divided by theta.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features.detach()

    def matvec(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        num_pixels = v.shape[1]
        rows = max(1, TILE // num_pixels)
        return torch.stack(
            [
                torch.cat([gaussian(tile, f) @ v_b for tile in f.split(rows)])
                for f, v_b in zip(self.features, v, strict=True)
            ]
        )

    def rmatvec(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self.matvec(v)


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / 2) of (M, d) and (N, d): (M, N).

    The difference is taken before the square: |a|^2 + |b|^2 - 2ab cancels badly
    in float32 once positions reach hundreds of theta.
    """
    squared = a.new_zeros(a.shape[0], b.shape[0])
    for a_k, b_k in zip(a.unbind(1), b.unbind(1), strict=True):
        difference = a_k[:, None] - b_k
        squared.addcmul_(difference, difference)
    return squared.mul_(-0.5).exp_()
