"""One labelled image, as every data set hands it out and every transform returns it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

VOID = 255
"""The id of pixels that have no label: they enter neither a loss nor a score."""


@dataclass(frozen=True)
class Sample:
    """An image with the class of each of its pixels.

    Attributes:
        name: unique within its split; names the files that are written about this image.
        image: (3, H, W) uint8, RGB in 0..255.
        mask: (H, W) int64, class ids, `VOID` where there is no label.
    """

    name: str
    image: Tensor
    mask: Tensor


class CorruptSample(ValueError):
    """A file of one sample cannot be used: truncated, of the wrong size, or with ids of no class.

    Training names such a sample, counts it, and puts another in its place, up to a limit;
    evaluation stops.
    """
