"""Scores from counts: mIoU, accuracy, boundary scores, calibration, harm rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.dataset import VOID
from eval.metrics.boundary import boundary_f, boundary_iou, mean_boundary_f, mean_over
from eval.metrics.confusion import (
    Floats,
    Matrices,
    class_accuracy,
    foreground_miou,
    frequency_weighted_iou,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    ratio,
)
from eval.metrics.counts import SplitCounts, Weights

# Image by image: what a CRF gains, where it harms, and how that depends on the network.


def gains(before: SplitCounts, after: SplitCounts) -> tuple[Floats, Floats]:
    """Compute the mIoU of every image before the CRF, and how much it changed behind it.

    Args:
        before: of the network alone.
        after: of the CRF behind it, on the same images.

    Returns:
        (N,) and (N,), NaN for images without a scored class.

    Raises:
        ValueError: other images.
    """
    if before.names != after.names:
        raise ValueError("expected the counts of the same images in one order.")
    strength = mean_iou(before.confusions, before.scored)
    return strength, mean_iou(after.confusions, after.scored) - strength


def harm_rate(before: SplitCounts, after: SplitCounts) -> float | None:
    """Share of the images whose mIoU the CRF lowers, however little; None without an image."""
    _, gained = gains(before, after)
    counted = gained[~np.isnan(gained)]
    return float((counted < 0).mean()) if counted.size else None


# What probabilities are worth: negative log-likelihood, Brier score, calibration error.
#
# Sums over the labelled pixels of an image, which add up over images.

NUM_BINS = 15  # of confidence, equally wide, as in Guo et al.


class CalibrationCounts(NamedTuple):
    """The sums of one image, or of N stacked.

    Attributes:
        nll: sum of -log p(truth).
        brier: sum over pixels and labels of (p(l) - [l = truth])^2.
        bins: (15, 3) by confidence max_l p(l): pixels, right ones, sum of the confidence.
    """

    nll: npt.NDArray[np.float64]
    brier: npt.NDArray[np.float64]
    bins: npt.NDArray[np.float64]


def calibration_counts(logits: Tensor, mask: Tensor) -> CalibrationCounts:
    """Sum up one image.

    Args:
        logits: (L, H, W), of any scale that softmax makes probabilities of.
        mask: (H, W) ids, 255 = void.
    """
    logits = logits.float()
    log_sum = logits.logsumexp(0)  # Z below: p(l) = exp(logits_l) / Z
    labelled = mask != VOID
    truth = torch.where(labelled, mask, 0).to(logits.device)
    at_truth = logits.gather(0, truth[None])[0] - log_sum
    sum_of_squares = (logits * 2).logsumexp(0) - 2 * log_sum  # log sum_l p(l)^2
    highest, label = logits.max(0)
    # From here on one number a pixel, summed in float64.
    nll, brier, confidence, right = (
        values.cpu()[labelled].double()
        for values in (
            -at_truth,
            sum_of_squares.exp() - 2 * at_truth.exp() + 1,
            (highest - log_sum).exp(),
            label == truth,
        )
    )
    number = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1  # bins (k, k + 1] / 15
    bins = torch.stack(
        [
            torch.bincount(number, minlength=NUM_BINS).double(),
            torch.bincount(number, right, NUM_BINS),
            torch.bincount(number, confidence, NUM_BINS),
        ],
        dim=1,
    )
    return CalibrationCounts(
        np.asarray(nll.sum().item()), np.asarray(brier.sum().item()), bins.numpy()
    )


def num_pixels(bins: Floats) -> Floats:
    """Count the pixels: (..., 15, 3) -> (...)."""
    return np.asarray(bins[..., 0].sum(-1))


def expected_calibration_error(bins: Floats) -> Floats:
    """sum_b |right_b - confidence_b| / pixels, (..., 15, 3) -> (...), in 0..1.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5.
    """
    return ratio(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), num_pixels(bins))


# The scores of a split, by name, from what was counted on its images.
#
# Every score is a function of counts and weights, (B, N) -> (B,): weights of one give the score
# of the data set, the weights of resampled images its sampling distribution (see `bootstrap`).

Score = Callable[[SplitCounts, Weights], Floats]

SHOWN_WIDTHS = ("1", "2", "3", "5", "10", "20", "40")
"""Of the forty trimap widths, pixels, those that tables and logs show."""


def score_named(name: str, within: str | None = None) -> Score:
    """Find a score by its name: `score_named("miou")`, `score_named("trimap_miou", "3")`.

    Args:
        name: a key of `SCORES` or `TRIMAP_SCORES`, or "iou_per_class".
        within: the trimap's width in pixels, or the class's name.

    Raises:
        KeyError: there is no score of that name.
    """
    if within is None:
        return SCORES[name]
    if name == "iou_per_class":
        return lambda counts, weights: class_iou(counts, weights, within)
    banded = TRIMAP_SCORES[name]
    return lambda counts, weights: banded(
        weighted(counts.within(int(within)), weights), counts.scored
    )


def weighted(per_image: Matrices, weights: Weights) -> Matrices:
    """Sum over the images: (N, ...), (B, N) -> (B, ...). Exact below 2^53."""
    flat = per_image.reshape(len(per_image), -1).astype(np.float64)
    return (weights.astype(np.float64) @ flat).reshape(len(weights), *per_image.shape[1:])


def class_iou(counts: SplitCounts, weights: Weights, name: str) -> Floats:
    """IoU of one class by its name."""
    return iou_per_class(weighted(counts.confusions, weights))[..., counts.classes.index(name)]


def _of_confusion(score: Callable[[Matrices, tuple[int, ...]], Floats]) -> Score:
    return lambda counts, weights: score(weighted(counts.confusions, weights), counts.scored)


def _boundary_iou(counts: SplitCounts, weights: Weights) -> Floats:
    return mean_over(boundary_iou(weighted(counts.boundary, weights)), counts.scored)


def _boundary_f(counts: SplitCounts, weights: Weights) -> Floats:
    return mean_over(mean_boundary_f(boundary_f(counts.contours), weights), counts.scored)


def _likelihood(column: int) -> Score:
    return lambda counts, weights: ratio(
        weighted(counts.likelihood[:, column], weights),
        weighted(num_pixels(counts.bins), weights),
    )


def _ece(counts: SplitCounts, weights: Weights) -> Floats:
    return expected_calibration_error(weighted(counts.bins, weights))


SCORES: dict[str, Score] = {
    "miou": _of_confusion(mean_iou),
    "foreground_miou": _of_confusion(lambda confusion, _: foreground_miou(confusion)),
    "fwiou": _of_confusion(lambda confusion, _: frequency_weighted_iou(confusion)),
    "pixel_accuracy": _of_confusion(lambda confusion, _: pixel_accuracy(confusion)),
    "class_accuracy": _of_confusion(class_accuracy),
    "boundary_iou": _boundary_iou,
    "boundary_f": _boundary_f,
    "nll": _likelihood(0),
    "brier": _likelihood(1),
    "ece": _ece,
}

TRIMAP_SCORES: dict[str, Callable[[Matrices, tuple[int, ...]], Floats]] = {
    "trimap_miou": mean_iou,
    "trimap_foreground_miou": lambda confusion, _: foreground_miou(confusion),
    "trimap_accuracy": lambda confusion, _: pixel_accuracy(confusion),
    "trimap_class_accuracy": class_accuracy,
}


def scores(counts: SplitCounts) -> dict[str, Any]:
    """Compute all scores of a split, ready for JSON.

    Returns:
        Those of `SCORES`, in 0..1 but for nll (nats) and brier (0..2); those of `TRIMAP_SCORES` by
        width as a string; `iou_per_class` by name, `trimap_band`, `confusion` (rows = truth),
        `reliability` (15 bins: pixels, accuracy, confidence) and `images` (name, miou and
        pixel_accuracy of each). A score with nothing to count is None.

    Raises:
        ValueError: no image was scored.
    """
    if not len(counts):
        raise ValueError("no image was scored; call update for every image of the split first")
    once = counts.all_once()
    size = len(counts.classes)
    # A band is the sum of the rings up to its width; the last ring lies beyond all bands.
    *bands, confusion = counts.rings.sum(axis=0).reshape(-1, size, size).cumsum(axis=0)
    return {
        **{name: _number(score(counts, once)[0]) for name, score in SCORES.items()},
        "iou_per_class": {
            name: _number(iou)
            for name, iou in zip(counts.classes, iou_per_class(confusion), strict=True)
        },
        **{
            name: dict(
                zip(
                    map(str, counts.widths),
                    map(_number, banded(np.stack(bands), counts.scored)),
                    strict=True,
                )
            )
            for name, banded in TRIMAP_SCORES.items()
        },
        "trimap_band": counts.band,
        "confusion": confusion.tolist(),
        "reliability": _reliability(counts.bins.sum(axis=0)),
        "images": per_image(counts),
    }


def per_image(counts: SplitCounts) -> list[dict[str, Any]]:
    """Name, mIoU over the scored classes of the image, and pixel accuracy of every image."""
    mious = mean_iou(counts.confusions, counts.scored)
    accuracies = pixel_accuracy(counts.confusions)
    return [
        {"name": name, "miou": _number(miou), "pixel_accuracy": _number(accuracy)}
        for name, miou, accuracy in zip(counts.names, mious, accuracies, strict=True)
    ]


def _reliability(bins: Floats) -> list[dict[str, float | None]]:
    accuracy, confidence = ratio(bins[:, 1], bins[:, 0]), ratio(bins[:, 2], bins[:, 0])
    return [
        {"pixels": float(n), "accuracy": _number(a), "confidence": _number(c)}
        for n, a, c in zip(bins[:, 0], accuracy, confidence, strict=True)
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
