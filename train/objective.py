"""The training loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID
from models import ScaleLogits, SegmenterOutput
from models.resize import subsample_labels


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Attributes:
        unary: weight of the loss on the logits before the CRF, beside 1 on the logits after
            it; the sum is their weighted mean. It keeps the network from leaning on the CRF,
            and from its gradient: at the start of a joint run that is three to four times as
            long as the unary's own and mostly noise (cosine of the two on collage: 0.3).
    """

    unary: float = 4.0

    def __post_init__(self) -> None:
        if not self.unary >= 0:
            raise ValueError(f"loss.unary must be at least 0, got {self.unary}.")


def loss_terms(output: SegmenterOutput, masks: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Pixel-wise cross-entropy after the CRF, and before it.

        loss = (CE(crf) + config.unary * CE(unary)) / (1 + config.unary)

    each averaged over the pixels that are not void; without a CRF, CE(unary) alone. The
    weighted mean keeps the gradient's length, and so the meaning of a learning rate, from
    one arm to the next. A batch of void alone costs 0. The scales of an input pyramid add
    their own cross-entropy to CE(unary), with equal weights (DeepLab v2, section 4.1.2).

    Args:
        output: logits (B, L, H, W).
        masks: (B, H, W) ids, 255 = void.
        config: its terms.

    Returns:
        "loss" and its parts "loss_unary" and, with a CRF, "loss_crf".
    """
    if output.crf is None:
        unary = unary_term(output, masks)
        return {"loss": unary, "loss_unary": unary}
    crf = cross_entropy(output.crf, masks)
    unary = unary_term(output, masks)
    loss = (crf + config.unary * unary) / (1 + config.unary)
    return {"loss": loss, "loss_crf": crf, "loss_unary": unary}


def unary_term(output: SegmenterOutput, masks: Tensor) -> Tensor:
    """Cross-entropy of the network's logits and of every scale's."""
    total = cross_entropy(output.unary, masks)
    for scale in output.scales:
        total = total + cross_entropy(scale.logits.float(), scale_labels(scale, masks))
    return total


def scale_labels(scale: ScaleLogits, masks: Tensor) -> Tensor:
    """The labels of the pixels that a scale's logits sit on; void where the image was padded."""
    sides = [(n - 1) * scale.stride + 1 for n in scale.logits.shape[2:]]
    padding = (0, sides[1] - masks.shape[2], 0, sides[0] - masks.shape[1])
    return subsample_labels(F.pad(masks, padding, value=VOID), scale.stride)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over labelled pixels; F.cross_entropy's own mean is 0 / 0 without one."""
    total = F.cross_entropy(logits, masks, ignore_index=VOID, reduction="sum")
    return total / torch.clamp((masks != VOID).sum(), min=1)
