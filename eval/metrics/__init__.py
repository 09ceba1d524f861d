"""Scores of a segmentation: counted on every image, summed over any set of them."""

from __future__ import annotations

from eval.metrics.bootstrap import Bootstrap, Interval
from eval.metrics.confusion import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from eval.metrics.counts import SplitCounts, joined
from eval.metrics.scorer import TRIMAP_WIDTHS, Scorer
from eval.metrics.scores import SHOWN_WIDTHS, gains, harm_rate, score_named, scores

__all__ = [
    "SHOWN_WIDTHS",
    "TRIMAP_WIDTHS",
    "Bootstrap",
    "Interval",
    "Scorer",
    "SplitCounts",
    "confusion_matrix",
    "gains",
    "harm_rate",
    "iou_per_class",
    "joined",
    "mean_iou",
    "pixel_accuracy",
    "score_named",
    "scores",
]
