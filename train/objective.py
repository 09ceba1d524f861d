"""The training loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add, mul
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from data import VOID
from models import ScaleLogits, SegmenterOutput
from models.layers import subsample_labels
from train.losses.boundary import boundary_weights
from train.losses.class_weights import balanced_weights, class_weights
from train.losses.cross_entropy import cross_entropy
from train.losses.hard_pixels import hard_pixels
from train.losses.lovasz import LovaszClasses, lovasz_softmax


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Attributes:
        unary: weight of the loss on the logits before the CRF, beside 1 on the logits after
            it; the sum is their weighted mean. It keeps the network from leaning on the CRF,
            and from its gradient: at the start of a joint run that is three to four times as
            long as the unary's own and mostly noise (cosine of the two on collage: 0.3).
        label_stride: 8 takes every loss at every eighth pixel alone, as DeepLab v1 and v2 do:
            there the enlarged logits are the network's own. 1 takes it at every pixel.
        class_weights: of the pixels of each class, one number a class; none weighs all alike.
        balance: the weights from the training split instead, see `balanced_weights`: how
            frequent a class is, to the power of -balance.
        boundary_weight: of the pixels near a label edge, beside 1 for the others.
        boundary_radius: how near, in pixels of the image; see `boundary_weights`.
        cross_entropy: weight of the cross-entropy in the loss of each map of logits.
        hard_share: of the labelled pixels, that the cross-entropy is taken over: those where it
            is highest; 1 for all.
        lovasz: weight of Lovász-softmax in the loss of each map; with cross_entropy 0, alone.
        lovasz_classes: "present" in the labels or "all"; see `lovasz_softmax`.
        lovasz_per_image: average it over the images instead of taking the batch as one.
    """

    unary: float = 4.0
    label_stride: Literal[1, 8] = 1
    class_weights: tuple[float, ...] = ()
    balance: float = 0.0
    boundary_weight: float = 1.0
    boundary_radius: int = 3
    cross_entropy: float = 1.0
    hard_share: float = 1.0
    lovasz: float = 0.0
    lovasz_classes: LovaszClasses = "present"
    lovasz_per_image: bool = False

    def __post_init__(self) -> None:
        for name in ("unary", "cross_entropy", "lovasz", "balance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"loss.{name} must be at least 0, got {getattr(self, name)}.")
        if not self.cross_entropy + self.lovasz > 0:
            raise ValueError("one of loss.cross_entropy and loss.lovasz must be above 0.")
        if self.label_stride not in (1, 8):
            raise ValueError(f"loss.label_stride must be 1 or 8, got {self.label_stride}.")
        weights = self.class_weights
        if weights and not (min(weights) >= 0 and max(weights) > 0):
            raise ValueError(
                f"loss.class_weights must be at least 0, and one of them above, got {weights}."
            )
        if weights and self.balance:
            raise ValueError(
                "loss.class_weights and loss.balance say the same twice: give one of them."
            )
        if not self.boundary_weight > 0:
            raise ValueError(f"loss.boundary_weight must be above 0, got {self.boundary_weight}.")
        if self.boundary_radius < 1:
            raise ValueError(
                f"loss.boundary_radius must be at least 1 pixel, got {self.boundary_radius}."
            )
        if not 0 < self.hard_share <= 1:
            raise ValueError(f"loss.hard_share must be in (0, 1], got {self.hard_share}.")


class Target(NamedTuple):
    """What a map of logits is compared with.

    Attributes:
        labels: (B, H, W) ids, 255 = void.
        weights: (B, H, W), 0 where the label is void; none where all pixels weigh alike.
    """

    labels: Tensor
    weights: Tensor | None = None

    def every(self, stride: int) -> Target:
        """Every stride-th pixel, the first included."""
        weights = self.weights
        return Target(
            subsample_labels(self.labels, stride),
            None if weights is None else subsample_labels(weights, stride),
        )

    def padded(self, size: tuple[int, int]) -> Target:
        """At the size (H, W) of the padded image: padding is void."""
        height, width = self.labels.shape[1:]
        padding = (0, size[1] - width, 0, size[0] - height)
        weights = self.weights
        return Target(
            F.pad(self.labels, padding, value=VOID),
            None if weights is None else F.pad(weights, padding),
        )


def loss_terms(output: SegmenterOutput, masks: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The loss after the CRF, and before it.

        loss = (M(crf) + config.unary * M(unary)) / (1 + config.unary)
        M(z) = config.cross_entropy * CE(z) + config.lovasz * Lovász(z)

    without a CRF, M(unary) alone. CE is the mean over the pixels that are not void, or over the
    hardest of them, each with its weight. The weighted mean of the two maps keeps the gradient's
    length, and so the meaning of a learning rate, from one arm to the next. A batch of void alone
    costs 0. The scales of an input pyramid add their own M to M(unary), with equal weights
    (DeepLab v2, section 4.1.2).

    Args:
        output: logits (B, L, H, W).
        masks: (B, H, W) ids, 255 = void.
        config: its terms.

    Returns:
        "loss" and its parts "loss_unary" and, with a CRF, "loss_crf".

    Raises:
        ValueError: `config.class_weights` are not one for each class, or `config.balance` is not
            turned into them yet: `weighed` does that.
    """
    target = Target(masks, pixel_weights(masks, config, num_classes=output.unary.shape[1]))
    unary = unary_term(output, target, config)
    if output.crf is None:
        return {"loss": unary, "loss_unary": unary}
    crf = full_term(output.crf, target, config)
    loss = (crf + config.unary * unary) / (1 + config.unary)
    return {"loss": loss, "loss_crf": crf, "loss_unary": unary}


def unary_term(output: SegmenterOutput, target: Target, config: LossConfig) -> Tensor:
    """The loss of the network's logits and of every scale's."""
    total = full_term(output.unary, target, config)
    for scale in output.scales:
        total = total + map_term(scale.logits, scale_target(scale, target), config)
    return total


def full_term(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """The loss of logits at the size of the image, (B, L, H, W), at `config.label_stride`."""
    stride = config.label_stride
    return map_term(logits[..., ::stride, ::stride], target.every(stride), config)


def map_term(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """The loss of one map of logits, (B, L, h, w), on the grid of its labels."""
    labels, weights = target
    terms: list[Tensor] = []
    if config.cross_entropy > 0 and config.hard_share < 1:
        hard = hard_pixels(logits, labels, config.hard_share, weights)
        terms.append(config.cross_entropy * hard)
    elif config.cross_entropy > 0:
        terms.append(config.cross_entropy * cross_entropy(logits, labels, weights))
    if config.lovasz > 0:
        lovasz = lovasz_softmax(
            logits, labels, classes=config.lovasz_classes, per_image=config.lovasz_per_image
        )
        terms.append(config.lovasz * lovasz)
    return reduce(add, terms)


def scale_target(scale: ScaleLogits, target: Target) -> Target:
    """What the pixels that a scale's logits sit on hold; void where the image was padded."""
    height, width = ((n - 1) * scale.stride + 1 for n in scale.logits.shape[2:])
    return target.padded((height, width)).every(scale.stride)


def pixel_weights(masks: Tensor, config: LossConfig, *, num_classes: int) -> Tensor | None:
    """The weight of every pixel, (B, H, W), 0 where it is void; none where all weigh alike.

    Edges are those of the full mask, also where the loss is taken at every eighth pixel.
    """
    weights: list[Tensor] = []
    if config.balance:
        raise ValueError(
            "loss.balance needs the training split: turn it into class_weights with `weighed`."
        )
    if config.class_weights:
        check_class_weights(config.class_weights, num_classes)
        weights.append(class_weights(masks, config.class_weights))
    if config.boundary_weight != 1:
        weights.append(boundary_weights(masks, config.boundary_weight, config.boundary_radius))
    return reduce(mul, weights) if weights else None


def weighed(config: LossConfig, pixels: Tensor) -> LossConfig:
    """The config with its `balance` turned into `class_weights`.

    Args:
        config: with a balance above 0.
        pixels: of each class in the training split, (L,); see `data.label_pixels`.
    """
    return replace(config, class_weights=balanced_weights(pixels, config.balance), balance=0.0)


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Raise ValueError unless there are none, or one for each class."""
    if weights and len(weights) != num_classes:
        raise ValueError(
            f"loss.class_weights must be one for each of {num_classes} classes, got {len(weights)}."
        )
