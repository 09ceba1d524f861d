"""Scores of confusion matrices: counts in, shares out.

A confusion matrix has the truth in its rows, C[truth, prediction]. Every function takes any number
of leading axes, (..., L, L) -> (...), so that one image, a data set and a thousand resamples of it
are scored by the same lines. A score with nothing to count is NaN.

The mean IoU of a data set comes from the sum of its images' matrices. The mean of per-image IoUs
is another quantity, and published VOC numbers are not that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data import VOID

Matrices = npt.NDArray[Any]  # (..., L, L): int64 counts, or float64 where they are weighted
Floats = npt.NDArray[np.float64]


def confusion_matrix(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count the pixels of every (truth, prediction), (L, L); void pixels do not count."""
    labelled = truth != VOID
    cells = truth[labelled].astype(np.int64) * num_classes + predicted[labelled]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_per_class(confusion: Matrices) -> Floats:
    """C[c, c] / (sum_j C[c, j] + sum_i C[i, c] - C[c, c]) of every class, (..., L) in 0..1.

    NaN for a class in neither the truth nor the prediction.
    """
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(both, confusion.sum(-1) + confusion.sum(-2) - both)


def mean_iou(confusion: Matrices, scored: Sequence[int]) -> Floats:
    """Mean IoU of the scored classes that occur in truth or prediction, (...).

    Pixels of the other classes still count against a scored class that was predicted there.
    """
    return mean_of_present(iou_per_class(confusion)[..., list(scored)])


def foreground_miou(confusion: Matrices) -> Floats:
    """Mean IoU of label 0 and of all other labels taken as one, (...).

    With label 0 the background it leaves out which object a pixel shows, which no CRF decides and
    two trainings rarely agree on: seeds differ less by it than by mIoU.
    """
    merged = np.zeros((*confusion.shape[:-2], 2, 2), confusion.dtype)
    merged[..., 0, 0] = confusion[..., 0, 0]
    merged[..., 0, 1] = confusion[..., 0, 1:].sum(-1)
    merged[..., 1, 0] = confusion[..., 1:, 0].sum(-1)
    merged[..., 1, 1] = confusion[..., 1:, 1:].sum((-2, -1))
    return mean_iou(merged, (0, 1))


def frequency_weighted_iou(confusion: Matrices) -> Floats:
    """IoU of all classes, each weighted by its share of the true pixels, (...).

    Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, section 5.
    """
    share = ratio(confusion.sum(-1), confusion.sum((-2, -1))[..., None])
    iou = iou_per_class(confusion)
    weighted = np.where(share > 0, share * iou, 0.0).sum(-1)  # an absent class has no IoU
    return np.where(np.isnan(share).all(-1), np.nan, weighted)


def pixel_accuracy(confusion: Matrices) -> Floats:
    """Share of the counted pixels, of all classes, that are right, (...)."""
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def class_accuracy(confusion: Matrices, scored: Sequence[int]) -> Floats:
    """Mean, over the scored classes that occur in the truth, of their share of right pixels."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return mean_of_present(ratio(right, confusion.sum(-1))[..., list(scored)])


def ratio(part: Matrices, whole: Matrices) -> Floats:
    """Part over whole, NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0))


def mean_of_present(values: Floats) -> Floats:
    """Mean along the last axis of what is not NaN; NaN where all of it is."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))
