"""The trimap band: how far each pixel is from an object boundary.

Trimap scores look only at the pixels near a boundary, where a CRF earns its keep. The rule is that
of the DeepLab authors' evaluation script (`MyVOCevalsegBoundary.m`): the band of width w is

    dilate(mask == void, square of side 2w + 1) and mask != void

A square structuring element means chessboard distance, so one distance map holds every band: pixel
i is in the band of width w exactly when its distance to the nearest void pixel is at most w.

Masks that come without void (synthetic scenes, CamVid-like data) get the same idea around the edges
between labels. Which of the two rules applies is a property of the data set, never of one image:
an image without void in a data set that uses void has no boundary and so an empty band.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from data.dataset import VOID

Band = Literal["void", "edge"]

NEVER = int(np.iinfo(np.int32).max)
"""The distance of a pixel that belongs to no band, however wide."""


def band_distance(mask: npt.NDArray[np.integer], band: Band) -> npt.NDArray[np.int32]:
    """The smallest width at which each pixel belongs to the trimap band.

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
