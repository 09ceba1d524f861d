"""Pixels along a space-filling curve, so that pixels near in the list have near features."""

from __future__ import annotations

import torch
from torch import Tensor

KEY_BITS = 62  # of a cell's number on the curve
MAX_AXIS_BITS = 16  # of one coordinate


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
