"""Labels in their colours over the image that they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Picture = npt.NDArray[np.uint8]


def overlay(image: Picture, ids: Ids, palette: Picture, opacity: float = 0.55) -> Picture:
    """The image seen through its labels' colours, with the labels' outlines in full colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) label ids.
        palette: (256, 3) uint8 RGB.
        opacity: of the colours, 0..1.
    """
    colours = palette[ids]
    # One pixel wide: where the neighbour to the right or below has another label.
    outline = np.zeros(ids.shape, dtype=np.bool_)
    outline[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outline[:-1] |= ids[:-1] != ids[1:]
    alpha = np.where(outline, 0.9, opacity)[..., None]
    mixed = (1 - alpha) * image + alpha * colours
    return np.asarray(mixed.round(), dtype=np.uint8)
