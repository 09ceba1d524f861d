"""A large image through a network in overlapping windows, stitched to one map.

Windows start on the grid of the network's cells, so a window's logits sit on the pixels that
those of the whole image would sit on. The last window of an axis ends at the border of the image.

Where windows overlap by o pixels, the outer quarter of the overlap counts nothing, because there
a window sees the least of what surrounds it; across the middle half the weight rises linearly
from 0 to 1. At the border of the image, where no other window is, the weight stays 1. So a
network that sees at most o / 4 pixels in every direction gives what it gives on the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def window_starts(size: int, side: int, advance: int, step: int) -> list[int]:
    """Where the windows of one axis begin: multiples of `step`, every pixel covered.

    Args:
        size: of the image, pixels.
        side: of a window, pixels; a window that reaches past the border is cut there.
        advance: from one window to the next, a multiple of `step`, at most `side`.
        step: pixels of a cell of the network.
    """
    last = math.ceil(max(0, size - side) / step) * step
    return [*range(0, last, advance), last]


def taper(start: int, end: int, size: int, overlap: int) -> Tensor:
    """The weight of the pixels start..end - 1 of an axis: see the module. (end - start,).

    Args:
        start: of the window, pixels of the image.
        end: of the window, behind its last pixel.
        size: of the image, pixels.
        overlap: of two neighbouring windows, pixels, at least 1.
    """
    centres = torch.arange(end - start) + 0.5
    inside = torch.full_like(centres, math.inf)  # pixels to the nearest cut that is no border
    if start > 0:
        inside = torch.minimum(inside, centres)
    if end < size:
        inside = torch.minimum(inside, (end - start) - centres)
    return ((inside - overlap / 4) / (overlap / 2)).clamp(0, 1)


def stitched(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, *, window: int, overlap: float, step: int
) -> Tensor:
    """The log of the weighted mean of the windows' softmax: (B, L, H, W).

    Args:
        logits_of: (B, 3, h, w) -> (B, L, h, w) logits.
        image: (B, 3, H, W).
        window: side of a window, pixels; rounded up to whole cells and a pixel.
        overlap: of neighbouring windows, as a share of the side, 0..1.
        step: pixels of a cell: windows begin at its multiples.
    """
    height, width = image.shape[2:]
    side = math.ceil((window - 1) / step) * step + 1
    advance = max(step, math.floor(side * (1 - overlap) / step) * step)
    if side >= max(height, width):
        return logits_of(image)
    total: Tensor | None = None
    weights = image.new_zeros(height, width)
    for top in window_starts(height, side, advance, step):
        bottom = min(top + side, height)
        rows = taper(top, bottom, height, side - advance).to(image.device)
        for left in window_starts(width, side, advance, step):
            right = min(left + side, width)
            columns = taper(left, right, width, side - advance).to(image.device)
            weight = rows[:, None] * columns
            q = logits_of(image[..., top:bottom, left:right]).softmax(1)
            if total is None:
                total = q.new_zeros(*q.shape[:2], height, width)
            total[..., top:bottom, left:right] += weight * q
            weights[top:bottom, left:right] += weight
    assert total is not None  # there is always a window
    return log_probabilities(total / weights)


def log_probabilities(q: Tensor) -> Tensor:
    """log q, finite: a softmax that has rounded to 0 counts as the smallest normal number."""
    return q.clamp_min(torch.finfo(q.dtype).tiny).log()
