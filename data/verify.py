"""Reading a whole split once, so that a bad file is found before a training run finds it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data.dataset import SegmentationDataset
from data.sample import VOID


@dataclass(frozen=True)
class Census:
    """What a split holds.

    Attributes:
        samples: how many.
        smallest, largest: the smallest and the largest side of any image, pixels.
        shares: per class id, its part of the labelled pixels, 0..1.
        images: per class id, the number of images that show it.
        void: part of all pixels without a label, 0..1.
    """

    samples: int
    smallest: int
    largest: int
    shares: tuple[float, ...]
    images: tuple[int, ...]
    void: float


def take_census(dataset: SegmentationDataset) -> Census:
    """Read every sample of a split and count.

    Raises:
        ValueError: a file is malformed (see `Voc.__getitem__`), or no pixel has a label.
    """
    pixels = torch.zeros(VOID + 1, dtype=torch.int64)
    images = torch.zeros(VOID + 1, dtype=torch.int64)
    sides: list[int] = []
    for i in range(len(dataset)):
        sample = dataset[i]
        count = torch.bincount(sample.mask.flatten(), minlength=VOID + 1)
        pixels += count
        images += count > 0
        sides.extend(sample.mask.shape)
    total, void = int(pixels.sum()), int(pixels[VOID])
    if void == total:
        raise ValueError(f"no pixel of {dataset} has a label")
    labels = range(len(dataset.classes))
    return Census(
        samples=len(dataset),
        smallest=min(sides),
        largest=max(sides),
        shares=tuple(int(pixels[label]) / (total - void) for label in labels),
        images=tuple(int(images[label]) for label in labels),
        void=void / total,
    )
