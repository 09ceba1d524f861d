"""Cross-entropy, each pixel with a weight of its own or all alike."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from data import VOID
from train.losses.reduction import labelled_mean, precise


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """sum_i w_i (-log softmax(z_i)[y_i]) / sum_i w_i, over the labelled pixels i.

    Both sums run over all processes (`labelled_mean`). With w_i = class_weights[y_i] this is what
    torch calls the weighted mean. Computed in float32 whatever the logits come in.

    Args:
        logits: z, (B, L, H, W), any floating dtype.
        labels: y, (B, H, W) ids, 255 = void.
        weights: w, (B, H, W), 0 where the label is void; none for 1 at every labelled pixel.

    Returns:
        A scalar; 0 where no pixel is labelled.
    """
    if weights is None:
        total = F.cross_entropy(precise(logits), labels, ignore_index=VOID, reduction="sum")
        return labelled_mean(total, (labels != VOID).sum())
    return labelled_mean((weights * pixel_losses(logits, labels)).sum(), weights.sum())


def pixel_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z_i)[y_i] of every pixel, 0 where it is void: (B, H, W)."""
    return F.cross_entropy(precise(logits), labels, ignore_index=VOID, reduction="none")
