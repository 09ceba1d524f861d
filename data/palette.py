"""The PASCAL VOC colours: one per label id, the same in masks, predictions and figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def voc_palette() -> NDArray[np.uint8]:
    """The colour of every id 0..255, as the VOC development kit defines it.

    Bits 0, 3, 6 of the id become the highest bits of red, bits 1, 4, 7 those of green and bits 2, 5
    those of blue, so neighbouring ids differ strongly (`VOClabelcolormap.m`, VOC 2012 devkit).

    Returns:
        (256, 3) uint8 RGB; row 0 is black, row 255 (void) is (224, 224, 192).
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


def palette_of(colours: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """A data set's own colours, and those of VOC for all further ids.

    Args:
        colours: RGB in 0..255 of the ids 0, 1, ...

    Returns:
        (256, 3) uint8 RGB.
    """
    palette = voc_palette()
    for label, colour in enumerate(colours):
        palette[label] = colour
    return palette
