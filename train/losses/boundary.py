"""Weights of pixels by their distance from a label edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID


def boundary_weights(labels: Tensor, weight: float, radius: int) -> Tensor:
    """`weight` at pixels near a label edge, 1 at the others, 0 where it is void.

    A pixel is near an edge where the square of (2 radius + 1)^2 pixels around it (Chebyshev
    distance, as the trimaps of `eval`) holds two classes: with radius 1 the two rows along the
    edge, one on each side. Void is no class and so makes no edge: where a mask has a band of it
    between two objects, as VOC's, only a radius wider than the band reaches across.

    A square holds two classes where its highest label is not its lowest, so two max-poolings
    of the labels and their negatives find every edge at once.

    Args:
        labels: (B, H, W) ids, 255 = void.
        weight: of the pixels near an edge.
        radius: pixels of this grid, at least 1.

    Returns:
        (B, H, W) float32.
    """
    labelled = labels != VOID
    ids = labels.float()
    both = torch.stack([ids, -ids], dim=1).masked_fill(~labelled[:, None], -torch.inf)
    width = 2 * radius + 1  # of the square: a row and a column after each other
    rows = F.max_pool2d(both, (1, width), stride=1, padding=(0, radius))
    highest, minus_lowest = F.max_pool2d(rows, (width, 1), 1, padding=(radius, 0)).unbind(dim=1)
    near = highest > -minus_lowest
    return torch.where(near, weight, 1.0) * labelled
