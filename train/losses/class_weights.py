"""Weights of pixels by their class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data import VOID


def class_weights(labels: Tensor, weights: Sequence[float]) -> Tensor:
    """weights[y_i] at every labelled pixel i, 0 where it is void: (B, H, W) float32.

    Args:
        labels: y, (B, H, W) ids, 255 = void.
        weights: of the L classes.
    """
    table = torch.zeros(VOID + 1, device=labels.device)
    table[: len(weights)] = torch.tensor(weights, device=labels.device)
    return table[labels]
