"""The Gaussian kernel summed exactly: the specification and the oracle.

    (K v)_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j,   j = i included

O(N^2) time and O(N) memory, on any device, in any floating dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 2048  # pixels on each side of the part of K that is held at a time: 16 MB in float32


def exact_filter(features: Tensor, v: Tensor) -> Tensor:
    """K v, tile by tile. K is symmetric: this is K' v as well.

    Args:
        features: (B, N, d), already divided by theta.
        v: (B, N, L).

    Returns:
        (B, N, L).
    """
    return torch.stack([_one_image(f, x) for f, x in zip(features, v, strict=True)])


def exact_order(features: Tensor) -> Tensor:
    """The order in which a faster path takes the pixels, (B, N); here it is their own.

    Args:
        features: (B, N, d).
    """
    batch, num_pixels, _ = features.shape
    return torch.arange(num_pixels, device=features.device).repeat(batch, 1)


def _one_image(features: Tensor, v: Tensor) -> Tensor:
    """K v of one image, (N, L); the order of every sum is fixed by TILE alone.

    Each tile is two products at once: a single one would be cut up by the number of threads.
    """
    out = torch.zeros_like(v)
    for receivers, total in zip(torch.split(features, TILE), torch.split(out, TILE), strict=True):
        half = -(-receivers.shape[0] // 2)
        even = F.pad(receivers, (0, 0, 0, 2 * half - receivers.shape[0]))
        for senders, sent in zip(torch.split(features, TILE), torch.split(v, TILE), strict=True):
            tile = gaussian(even, senders).reshape(2, half, -1)
            total += torch.bmm(tile, sent.expand(2, -1, -1)).flatten(0, 1)[: total.shape[0]]
    return out


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
