"""The training loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID
from models import SegmenterOutput


def loss_terms(output: SegmenterOutput, masks: Tensor, unary_weight: float) -> dict[str, Tensor]:
    """Pixel-wise cross-entropy after the CRF, and before it.

        loss = (CE(crf) + unary_weight * CE(unary)) / (1 + unary_weight)

    each averaged over the pixels that are not void; without a CRF, CE(unary) alone. The
    weighted mean keeps the gradient's length, and so the meaning of a learning rate, from
    one arm to the next. A batch of void alone costs 0.

    Args:
        output: logits (B, L, H, W).
        masks: (B, H, W) ids, 255 = void.
        unary_weight: 0 leaves the second term out.

    Returns:
        "loss" and its parts "loss_unary" and, with a CRF, "loss_crf".
    """
    if output.crf is None:
        unary = cross_entropy(output.unary, masks)
        return {"loss": unary, "loss_unary": unary}
    crf = cross_entropy(output.crf, masks)
    unary = cross_entropy(output.unary, masks)
    loss = (crf + unary_weight * unary) / (1 + unary_weight)
    return {"loss": loss, "loss_crf": crf, "loss_unary": unary}


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over labelled pixels; F.cross_entropy's own mean is 0 / 0 without one."""
    total = F.cross_entropy(logits, masks, ignore_index=VOID, reduction="sum")
    return total / torch.clamp((masks != VOID).sum(), min=1)
