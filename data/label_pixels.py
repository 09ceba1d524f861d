"""How many pixels of a split each label has."""

from __future__ import annotations

import torch
from torch import Tensor

from data.dataset import SegmentationDataset
from data.sample import VOID, CorruptSample


def label_pixels(dataset: SegmentationDataset) -> Tensor:
    """The labelled pixels of each class, (L,) int64; every readable sample is read once."""
    num_classes = len(dataset.classes)
    pixels = torch.zeros(num_classes, dtype=torch.int64)
    for index in range(len(dataset)):
        try:
            mask = dataset[index].mask
        except CorruptSample:
            continue
        pixels += torch.bincount(mask[mask != VOID], minlength=num_classes)
    return pixels
