"""Scores near the outlines: trimap mIoU and Boundary IoU."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from data.dataset import VOID
from eval.metrics.confusion import Floats, mean_of_present, ratio

# The trimap band: how far each pixel is from an object boundary.
#
# Trimap scores look only at the pixels near a boundary, where a CRF earns its keep. The rule is
# that of the DeepLab authors' evaluation script (`MyVOCevalsegBoundary.m`): the band of width w
# is
#
#     dilate(mask == void, square of side 2w + 1) and mask != void
#
# A square structuring element means chessboard distance, so one distance map holds every band:
# pixel i is in the band of width w exactly when its distance to the nearest void pixel is at most
# w.
#
# Masks that come without void (synthetic scenes, CamVid-like data) get the same idea around the
# edges between labels. Which of the two rules applies is a property of the data set, never of one
# image: an image without void in a data set that uses void has no boundary and so an empty band.

Band = Literal["void", "edge"]

NEVER = int(np.iinfo(np.int32).max)
"""The distance of a pixel that belongs to no band, however wide."""


def band_distance(mask: npt.NDArray[np.integer], band: Band) -> npt.NDArray[np.int32]:
    """Compute the smallest width at which each pixel belongs to the trimap band.

    Args:
        mask: (H, W) label ids, 255 = void.
        band: "void": chessboard distance to the nearest void pixel. "edge": chessboard distance to
            the nearest pixel of another label, so that a pixel at a label edge has distance 1 on
            either side; void counts as another label here.

    Returns:
        (H, W) int32, pixels, at least 1. Void pixels, and pixels of an image that has no boundary
        under the rule, are `NEVER`: they are in no band.

    Raises:
        ValueError: the mask is not a non-empty (H, W) array, or the rule has another name.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"expected a non-empty (H, W) mask, got shape {mask.shape}")
    void = mask == VOID
    if band == "void":
        distance = _chessboard_distance(void)
    elif band == "edge":
        distance = _chessboard_distance(_touches_another_label(mask))
        # The nearest pixel of another label is one step beyond the nearest pixel that touches one.
        distance[distance != NEVER] += 1
    else:
        raise ValueError(f"expected the band rule 'void' or 'edge', got {band!r}")
    distance[void] = NEVER
    return distance


def _chessboard_distance(target: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Distance of every pixel to the nearest true one, `NEVER` when there is none."""
    if not target.any():
        return np.full(target.shape, NEVER, dtype=np.int32)
    distance: npt.NDArray[np.int32] = ndimage.distance_transform_cdt(~target, metric="chessboard")
    return distance.astype(np.int32)


def _touches_another_label(mask: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels with a different label among their eight neighbours."""
    lowest = ndimage.minimum_filter(mask, size=3, mode="nearest")
    highest = ndimage.maximum_filter(mask, size=3, mode="nearest")
    return np.asarray(lowest != highest)


# How well the contours of the classes fit: Boundary IoU and the boundary F-score.
#
# Both return counts that add up over images, so that a score can be had of any set of them.

Ids = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]

BOUNDARY_IOU_WIDTH = 0.02  # of the image's diagonal, as in the paper
CONTOUR_TOLERANCE = 0.0075  # of the diagonal, as Csurka et al. and the BSDS benchmark take it


def boundary_iou_counts(truth: Ids, prediction: Ids, num_classes: int) -> Counts:
    """Intersection and union of the inner boundary regions of every class.

    The region of class c is { pixels of c at most d from a pixel that is not of c }, d = 2 % of
    the diagonal, at least 1 px, what lies outside of the image being of no class. Distances are
    chessboard's: the authors' code erodes with a 3 x 3 square d times. Void pixels of the truth
    are of no class in truth and prediction alike.

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.

    Args:
        truth: (H, W) ids, 255 = void.
        prediction: (H, W) ids.
        num_classes: L.

    Returns:
        (L, 2) pixels: intersection, union.
    """
    width = max(1, round(BOUNDARY_IOU_WIDTH * math.hypot(*truth.shape)))
    at_truth = _inner_region(truth, width)
    at_prediction = _inner_region(np.where(truth == VOID, VOID, prediction), width)
    same = truth == prediction
    both = np.bincount(truth[at_truth & at_prediction & same], minlength=num_classes)
    true, predicted = (
        np.bincount(ids[region], minlength=num_classes)
        for ids, region in ((truth, at_truth), (prediction, at_prediction))
    )
    return np.stack([both, true + predicted - both], axis=1).astype(np.int64)


def boundary_f_counts(truth: Ids, prediction: Ids, num_classes: int) -> Counts:
    """Contour pixels of every class, and how many of them the other contour comes close to.

    The contour of class c is its pixels with one of another class among their four neighbours.
    Close is within 0.75 % of the diagonal, Euclidean, at least 1 px. Void: predicted contours on it
    are not wrong, and a true contour beside it is found by what is predicted on it.

    Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013.

    Args:
        truth: (H, W) ids, 255 = void.
        prediction: (H, W) ids.
        num_classes: L.

    Returns:
        (L, 4) pixels: predicted and close to a true one, predicted, true and close to a predicted
        one, true.
    """
    tolerance = max(1.0, CONTOUR_TOLERANCE * math.hypot(*truth.shape))
    true_contours = _contours(truth)
    predicted_contours = _contours(prediction)
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    for c in np.union1d(np.unique(truth[true_contours]), np.unique(prediction[predicted_contours])):
        if c == VOID:
            continue
        true = np.argwhere(true_contours & (truth == c))
        everywhere = predicted_contours & (prediction == c)
        predicted = np.argwhere(everywhere & (truth != VOID))
        counts[c] = (
            _num_close(predicted, true, tolerance),
            len(predicted),
            _num_close(true, np.argwhere(everywhere), tolerance),
            len(true),
        )
    return counts


def boundary_iou(counts: npt.NDArray[Any]) -> Floats:
    """Boundary IoU of every class: (..., L, 2) counts -> (..., L), NaN where there is none."""
    return ratio(counts[..., 0], counts[..., 1])


def boundary_f(counts: npt.NDArray[Any]) -> Floats:
    """Per image and class 2 P R / (P + R): (..., L, 4) counts -> (..., L).

    A class that only one of the two has scores 0, one that neither has is NaN.
    """
    precision = ratio(counts[..., 0], counts[..., 1])
    recall = ratio(counts[..., 2], counts[..., 3])
    found = np.nan_to_num(precision) + np.nan_to_num(recall)
    score = np.where(found > 0, ratio(2 * np.nan_to_num(precision * recall), found), 0.0)
    return np.where(counts[..., 1] + counts[..., 3] > 0, score, np.nan)


def mean_boundary_f(per_image: Floats, weights: npt.NDArray[Any]) -> Floats:
    """Mean over the images that have the class, of every class: (N, L), (B, N) -> (B, L)."""
    present = ~np.isnan(per_image)
    return ratio(weights @ np.where(present, per_image, 0.0), weights @ present)


def mean_over(values: Floats, scored: tuple[int, ...]) -> Floats:
    """Mean over the scored classes that have a value: (..., L) -> (...)."""
    return mean_of_present(values[..., list(scored)])


def _inner_region(ids: Ids, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of any class at most `width` from a pixel of another, or from beyond the image."""
    framed = np.pad(ids, 1, constant_values=VOID)
    return (band_distance(framed, "edge") <= width)[1:-1, 1:-1]


def _contours(ids: Ids) -> npt.NDArray[np.bool_]:
    """Pixels with another id among their four neighbours; beyond the image there is none."""
    cross = ndimage.generate_binary_structure(2, 1)
    lowest = ndimage.minimum_filter(ids, footprint=cross, mode="nearest")
    highest = ndimage.maximum_filter(ids, footprint=cross, mode="nearest")
    return np.asarray(lowest != highest)


def _num_close(points: Counts, others: Counts, tolerance: float) -> int:
    """Count the (n, 2) points that have one of (m, 2) others within the tolerance, pixels."""
    if not len(points) or not len(others):
        return 0
    nearest, _ = KDTree(others).query(points, distance_upper_bound=tolerance + 1e-9)
    return int(np.isfinite(nearest).sum())
