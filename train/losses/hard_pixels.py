"""Cross-entropy of the hardest pixels alone: hard example mining."""

from __future__ import annotations

import torch
from torch import Tensor

from data import VOID
from train.losses.cross_entropy import pixel_losses
from train.losses.reduction import labelled_mean


def hard_pixels(
    logits: Tensor, labels: Tensor, share: float, weights: Tensor | None = None
) -> Tensor:
    """The weighted mean of cross-entropy over the labelled pixels where it is highest.

        sum_{i in H} w_i CE_i / sum_{i in H} w_i

    H holds the share of the batch's labelled pixels with the highest w_i CE_i, rounded, and at
    least one. Void does not count: a batch with much of it keeps as large a share of the rest.
    H is chosen among the pixels of this process; the two sums run over all processes. Ties go
    either way.

    Shrivastava, Gupta and Girshick, "Training Region-based Object Detectors with Online Hard
    Example Mining", CVPR 2016, for regions; for pixels as in the authors' release of DeepLab.

    Args:
        logits: (B, L, H, W).
        labels: (B, H, W) ids, 255 = void.
        share: in (0, 1]; 1 is `cross_entropy`.
        weights: (B, H, W), 0 where the label is void; none for 1 at every labelled pixel.

    Returns:
        A scalar; 0 where no pixel is labelled.
    """
    labelled = labels != VOID
    losses = pixel_losses(logits, labels)
    weights = labelled.to(losses.dtype) if weights is None else weights
    # Void last: the lowest loss of a labelled pixel is 0.
    ranked = torch.where(labelled, weights * losses, -1).detach().flatten()
    order = ranked.argsort(descending=True)
    kept = (labelled.sum() * share).round().clamp(min=1)
    # A product, not a selection: how many are kept stays on the device.
    hardest = torch.arange(len(order), device=order.device) < kept
    chosen = weights.flatten()[order] * hardest
    return labelled_mean((chosen * losses.flatten()[order]).sum(), chosen.sum())
