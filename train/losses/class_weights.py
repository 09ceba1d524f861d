"""Weights of pixels by their class, given or from how frequent the class is."""

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


def balanced_weights(pixels: Tensor, power: float) -> tuple[float, ...]:
    """w_c = (n_max / n_c) ** power: 1 for the most frequent class, more for the rarer.

    Cross-entropy with these weights learns p(c | x) pi_c ** -power, up to its norm, instead of
    p(c | x): at power 1 as if all classes had been equally frequent, which the class accuracy asks
    for. Mean IoU counts false positives too and asks for less; 1/2 is a usual choice.

    Args:
        pixels: n, (L,), of the training split; a class without any weighs as the rarest that has.
        power: at least 0; 0 weighs all alike.
    """
    counted = pixels.clamp(min=int(pixels[pixels > 0].min())).double()
    return tuple(((counted.max() / counted) ** power).tolist())
