"""The losses of a segmentation, and their sum before and behind the CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from operator import add, mul
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.losses import DenseCrfLoss
from data import VOID
from models import ScaleLogits, SegmenterOutput
from models.layers import shrink, shrink_image, subsample_labels
from runtime import distributed

# The mean over the labelled pixels of all processes.


def labelled_mean(total: Tensor, weight: Tensor) -> Tensor:
    """Divide the sum of a loss over pixels by the sum of their weights over all processes.

        loss = total / (sum of weight over the P processes / P)

    The mean over the processes of these losses, which DistributedDataParallel takes of their
    gradients, is the sum over all pixels of all processes divided by the sum of all weights. The
    mean of each process's own mean would give more to the pixels of a process with few of them.
    Without a labelled pixel anywhere the loss is 0, not 0 / 0.

    Args:
        total: of this process, a scalar.
        weight: of this process, a scalar: the number of labelled pixels, or the sum of their
            weights.
    """
    mean = distributed.mean(weight)
    return total / torch.where(mean > 0, mean, 1)


def precise(logits: Tensor) -> Tensor:
    """Convert logits to at least float32: bfloat16 has three digits, and a loss adds up many."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


# Cross-entropy, each pixel with a weight of its own or all alike.


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute sum_i w_i (-log softmax(z_i)[y_i]) / sum_i w_i, over the labelled pixels i.

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
    """Compute -log softmax(z_i)[y_i] of every pixel, 0 where it is void: (B, H, W)."""
    return F.cross_entropy(precise(logits), labels, ignore_index=VOID, reduction="none")


# Weights of pixels by their class, given or from how frequent the class is.


def class_weights(labels: Tensor, weights: Sequence[float]) -> Tensor:
    """Look up weights[y_i] at every labelled pixel i, 0 where it is void: (B, H, W) float32.

    Args:
        labels: y, (B, H, W) ids, 255 = void.
        weights: of the L classes.
    """
    table = torch.zeros(VOID + 1, device=labels.device)
    table[: len(weights)] = torch.tensor(weights, device=labels.device)
    return table[labels]


def balanced_weights(pixels: Tensor, power: float) -> tuple[float, ...]:
    """Compute w_c = (n_max / n_c) ** power: 1 for the most frequent class, more for the rarer.

    Cross-entropy with these weights learns p(c | x) pi_c ** -power, up to its norm, instead of
    p(c | x): at power 1 as if all classes had been equally frequent, which the class accuracy asks
    for. Mean IoU counts false positives too and asks for less; 1/2 is a usual choice.

    Args:
        pixels: n, (L,), of the training split; a class without any weighs as the rarest that has.
        power: at least 0; 0 weighs all alike.
    """
    counted = pixels.clamp(min=int(pixels[pixels > 0].min())).double()
    return tuple(((counted.max() / counted) ** power).tolist())


# Weights of pixels by their distance from a label edge.


def boundary_weights(labels: Tensor, weight: float, radius: int) -> Tensor:
    """Give `weight` to pixels near a label edge, 1 to the others, 0 to void.

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


# Cross-entropy of the hardest pixels alone: hard example mining.


def hard_pixels(
    logits: Tensor, labels: Tensor, share: float, weights: Tensor | None = None
) -> Tensor:
    """Average cross-entropy, weighted, over the labelled pixels where it is highest.

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


# Lovász-softmax: the Jaccard loss, extended from masks to probabilities.
#
# Berman, Triki and Blaschko, "The Lovász-Softmax Loss: A Tractable Surrogate for the Optimization
# of the Intersection-Over-Union Measure in Neural Networks", CVPR 2018.

LovaszClasses = Literal["present", "all"]


def lovasz_softmax(
    logits: Tensor,
    labels: Tensor,
    *,
    classes: LovaszClasses = "present",
    per_image: bool = False,
) -> Tensor:
    """Average over classes c the Lovász extension of 1 - IoU_c, of every pixel's error.

        m_i = 1 - p_i(c) where y_i = c, else p_i(c),    p = softmax(logits).

    At one-hot p it is the mean of 1 - IoU_c exactly; between, it is piecewise linear in p and the
    tightest convex function through those points. Unlike cross-entropy it weighs a class by its
    union, however few its pixels. Computed in float32 whatever the logits come in.

    Each process takes the loss of its own batch: a Jaccard index does not add up over processes.

    Args:
        logits: (B, L, H, W).
        labels: y, (B, H, W) ids, 255 = void.
        classes: "present" averages over the classes that the labels hold; "all" over all: one
            that is absent costs as much as its surest wrong pixel.
        per_image: the mean of the losses of the images with a labelled pixel, instead of one
            loss over the pixels of the whole batch.

    Returns:
        A scalar; 0 where no pixel is labelled.
    """
    num_classes = logits.shape[1]
    q, ids = precise(logits).softmax(dim=1).flatten(2), labels.flatten(1)
    if not per_image:  # all pixels are one image's
        q, ids = q.transpose(0, 1).reshape(1, num_classes, -1), ids.reshape(1, -1)
    labelled = (ids != VOID)[:, None].expand_as(q)
    foreground = ids[:, None] == torch.arange(num_classes, device=ids.device)[:, None]
    losses = extended_jaccard((foreground.to(q.dtype) - q).abs(), foreground, labelled)

    counted = foreground if classes == "present" else labelled
    of_image = mean_where(losses, counted.any(dim=-1))
    return mean_where(of_image, labelled.any(dim=-1).any(dim=-1))


def extended_jaccard(errors: Tensor, foreground: Tensor, labelled: Tensor) -> Tensor:
    """Compute the Lovász extension of the Jaccard loss of a set of mispredicted pixels.

        sum_k m_(k) (J({1..k}) - J({1..k-1})),    m_(1) >= m_(2) >= ...
        J(M) = |M| / |foreground or M|

    (Berman et al., equation 9). With n the foreground pixels, a the foreground and b the other
    pixels among the first k, J = (a + b) / (n + b), so that the difference is 1 / (n + b) at a
    foreground pixel and (n - a) / ((n + b)(n + b - 1)) at another. Written like this nothing
    cancels: of a million pixels the differences are a millionth, next to J of order one.

    Args:
        errors: m, (..., N), at least 0.
        foreground: (..., N) bool, the pixels of the class.
        labelled: (..., N) bool; the others are left out.

    Returns:
        (...), in [0, 1] where the errors are.
    """
    # Pixels that are left out come last, where they change no difference before them.
    ranked, order = torch.where(labelled, errors, -1).sort(dim=-1, descending=True)
    inside = foreground.gather(-1, order)
    total = (foreground & labelled).sum(dim=-1, keepdim=True)
    missing = total - inside.cumsum(dim=-1)  # n - a
    union = (total + (~inside).cumsum(dim=-1)).to(errors.dtype)  # n + b
    # Without foreground the first pixel is all of the union: J goes from 0 to 1.
    outside = torch.where(union > 1, missing / (union * (union - 1)), 1)
    difference = torch.where(inside, 1 / union, outside)
    return (ranked.clamp(min=0) * difference).sum(dim=-1)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen values along the last axis; 0 where none is."""
    return torch.where(chosen, values, 0).sum(dim=-1) / chosen.sum(dim=-1).clamp(min=1)


# The terms of the training loss. Each is a function of one map of logits, (B, L, h, w), of the
# target on its grid, and of the config; a weight of `LossConfig` turns it on.


class Target(NamedTuple):
    """Hold what a map of logits is compared with.

    Attributes:
        labels: (B, H, W) ids, 255 = void.
        weights: (B, H, W), 0 where the label is void; none where all pixels weigh alike.
    """

    labels: Tensor
    weights: Tensor | None = None

    def every(self, stride: int) -> Target:
        """Take every stride-th pixel, the first included."""
        return Target(*(t if t is None else subsample_labels(t, stride) for t in self))  # type: ignore[arg-type]

    def padded(self, size: tuple[int, int]) -> Target:
        """Pad to the size (H, W) of the padded image with void."""
        height, width = self.labels.shape[1:]
        padding = (0, size[1] - width, 0, size[0] - height)
        weights = self.weights
        return Target(
            F.pad(self.labels, padding, value=VOID),
            None if weights is None else F.pad(weights, padding),
        )


Term = Callable[[Tensor, Target, "LossConfig"], Tensor]


def cross_entropy_term(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """Compute cross-entropy, of the hardest pixels alone where `hard_share` says so."""
    if config.hard_share < 1:
        return hard_pixels(logits, target.labels, config.hard_share, target.weights)
    return cross_entropy(logits, target.labels, target.weights)


def lovasz_term(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """Compute Lovász-softmax, which weighs all pixels alike."""
    return lovasz_softmax(
        logits, target.labels, classes=config.lovasz_classes, per_image=config.lovasz_per_image
    )


# Terms that tie the two maps together. They act where network and CRF are trained together, and
# tell the network about pixels that nobody labelled.

PairTerm = Callable[[SegmenterOutput, Tensor, "LossConfig"], Tensor]


def teacher_term(output: SegmenterOutput, images: Tensor, config: LossConfig) -> Tensor:
    """Compute the cross-entropy of the network against the CRF's marginals as soft targets.

        sum_i w_i sum_l -t_i(l) log softmax(unary_i)[l] / sum_i w_i,   t = softmax(crf), held fixed

    over the pixels where max_l t_i(l) reaches `teacher_confidence`; every labelled and unlabelled
    pixel may be one. With `teacher_balanced` w_i = 1 / n, n the pixels of an image whose t is
    highest at the same label, so that thin things weigh as much as the background, as in the
    seeding loss of Kolesnikov and Lampert, "Seed, Expand and Constrain", ECCV 2016. Else w_i = 1.
    """
    assert output.crf is not None
    target = precise(output.crf.detach()).softmax(1)
    confidence, label = target.max(1)
    weights = (confidence >= config.teacher_confidence).to(target.dtype)
    if config.teacher_balanced:
        flat, labels = weights.flatten(1), label.flatten(1)
        counts = flat.new_zeros(len(flat), target.shape[1]).scatter_add(1, labels, flat)
        weights = (flat / counts.gather(1, labels).clamp(min=1)).view_as(weights)
    losses = -(target * precise(output.unary).log_softmax(1)).sum(1)
    return labelled_mean((weights * losses).sum(), weights.sum())


def dense_crf_term(output: SegmenterOutput, images: Tensor, config: LossConfig) -> Tensor:
    """Compute `crfrnn.losses.DenseCrfLoss` of the network's logits, at half resolution."""
    alpha, beta = config.dense_crf_theta
    loss = DenseCrfLoss(theta_alpha=alpha / 2, theta_beta=beta, normalization="after")
    value: Tensor = loss(shrink(precise(output.unary), 2), shrink_image(images.float(), 2))
    return value


def pair_term(default: float, compute: PairTerm) -> float:
    """Declare the weight of a loss that needs both maps, or the image."""
    declared: Any = field(default=default, metadata={"pair_term": compute})
    return declared  # type: ignore[no-any-return]


def term(default: float, compute: Term) -> float:
    """Declare the weight of a loss. The function and one such line are all that a new one needs."""
    declared: Any = field(default=default, metadata={"term": compute})
    return declared  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LossConfig:
    """The weights of the losses, and of pixels in them.

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
        teacher: weight of `teacher_term`, where network and CRF are trained together.
        teacher_confidence: probability that the CRF must be sure with to teach a pixel.
        teacher_balanced: let every label of an image teach as much, however few its pixels.
        dense_crf: weight of `dense_crf_term`, where network and CRF are trained together.
        dense_crf_theta: its widths, pixels of the image and grey levels.
    """

    unary: float = 4.0
    label_stride: Literal[1, 8] = 1
    class_weights: tuple[float, ...] = ()
    balance: float = 0.0
    boundary_weight: float = 1.0
    boundary_radius: int = 3
    cross_entropy: float = term(1.0, cross_entropy_term)
    hard_share: float = 1.0
    lovasz: float = term(0.0, lovasz_term)
    lovasz_classes: LovaszClasses = "present"
    lovasz_per_image: bool = False
    teacher: float = pair_term(0.0, teacher_term)
    teacher_confidence: float = 0.8
    teacher_balanced: bool = True
    dense_crf: float = pair_term(0.0, dense_crf_term)
    dense_crf_theta: tuple[float, float] = (50.0, 15.0)

    def __post_init__(self) -> None:
        terms = [f.name for f in fields(self) if "term" in f.metadata]
        if not 0 <= self.teacher_confidence < 1:
            raise ValueError(
                f"loss.teacher_confidence must be in [0, 1), got {self.teacher_confidence}."
            )
        pairs = [f.name for f in fields(self) if "pair_term" in f.metadata]
        for name in ("unary", "balance", *terms, *pairs):
            if not getattr(self, name) >= 0:
                raise ValueError(f"loss.{name} must be at least 0, got {getattr(self, name)}.")
        if not any(getattr(self, name) > 0 for name in terms):
            raise ValueError(f"one of loss.{' and loss.'.join(terms)} must be above 0.")
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


def loss_terms(
    output: SegmenterOutput, masks: Tensor, config: LossConfig, images: Tensor | None = None
) -> dict[str, Tensor]:
    """Compute the loss after the CRF, and before it.

        loss = (M(crf) + config.unary * M(unary)) / (1 + config.unary)
               + config.teacher * teacher + config.dense_crf * dense CRF
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
        images: (B, 3, H, W), RGB in 0..255; the terms of the last line need them, and without
            images these are left out.

    Returns:
        "loss" and its parts "loss_unary" and, with a CRF, "loss_crf", "loss_teacher" and
        "loss_dense_crf" where they have a weight.

    Raises:
        ValueError: `config.class_weights` are not one for each class, or `config.balance` is not
            turned into them yet: `weighed` does that.
    """
    target = Target(masks, pixel_weights(masks, config, num_classes=output.unary.shape[1]))
    stride = config.label_stride
    strided = target.every(stride)
    unary = map_loss(output.unary[..., ::stride, ::stride], strided, config)
    for scale in output.scales:
        unary = unary + map_loss(scale.logits, scale_target(scale, target), config)
    if output.crf is None:
        return {"loss": unary, "loss_unary": unary}
    crf = map_loss(output.crf[..., ::stride, ::stride], strided, config)
    loss = (crf + config.unary * unary) / (1 + config.unary)
    parts = {"loss_crf": crf, "loss_unary": unary}
    for f in fields(config) if images is not None else ():
        if "pair_term" in f.metadata and getattr(config, f.name) > 0:
            parts[f"loss_{f.name}"] = f.metadata["pair_term"](output, images, config)
            loss = loss + getattr(config, f.name) * parts[f"loss_{f.name}"]
    return {"loss": loss, **parts}


def map_loss(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """Add up the terms of one map of logits, (B, L, h, w), on the grid of its labels."""
    terms = [
        getattr(config, f.name) * f.metadata["term"](logits, target, config)
        for f in fields(config)
        if "term" in f.metadata and getattr(config, f.name) > 0
    ]
    return reduce(add, terms)  # type: ignore[no-any-return]


def scale_target(scale: ScaleLogits, target: Target) -> Target:
    """Take the labels of the pixels that a scale's logits sit on; void where it was padded."""
    height, width = ((n - 1) * scale.stride + 1 for n in scale.logits.shape[2:])
    return target.padded((height, width)).every(scale.stride)


def pixel_weights(masks: Tensor, config: LossConfig, *, num_classes: int) -> Tensor | None:
    """Compute the weight of every pixel, (B, H, W), 0 for void; none where all weigh alike.

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
    """Turn the `balance` of a config into `class_weights`.

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
