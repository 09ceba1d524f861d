"""Image by image: what a CRF gains, where it harms, and how that depends on the network."""

from __future__ import annotations

import numpy as np

from eval.metrics.confusion import Floats, mean_iou
from eval.metrics.counts import SplitCounts


def gains(before: SplitCounts, after: SplitCounts) -> tuple[Floats, Floats]:
    """The mIoU of every image before the CRF, and how much it changed behind it.

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
