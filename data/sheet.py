"""A contact sheet: many samples of a data set in one picture, each beside its mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.dataset import SegmentationDataset
from data.sample import VOID, Sample

Picture = NDArray[np.uint8]


def overlay(sample: Sample, palette: Picture, opacity: float = 0.6) -> Picture:
    """The image under the colours of its labels; void is white.

    Args:
        sample: with mask ids in 0..255.
        palette: (256, 3) uint8 RGB.
        opacity: of the colours, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = sample.image.permute(1, 2, 0).numpy()
    mask = sample.mask.numpy()
    colours = np.where((mask == VOID)[:, :, None], np.uint8(255), palette[mask])
    mixed: Picture = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
    return mixed


def contact_sheet(dataset: SegmentationDataset, count: int, columns: int, cell: int) -> Image.Image:
    """The first samples of a data set, row by row; a cell is an image and its overlay.

    Args:
        dataset: what to show.
        count: how many samples; fewer where the data set is smaller.
        columns: samples in a row.
        cell: side of the square that an image is fitted into, pixels.

    Raises:
        ValueError: count, columns or cell is below 1.
    """
    for name, value in (("count", count), ("columns", columns), ("cell", cell)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    count = min(count, len(dataset))
    columns = min(columns, count)
    gap = 4
    rows = -(-count // columns)
    width, height = columns * (2 * cell + gap) + gap, rows * (cell + gap) + gap
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    for i in range(count):
        sample = dataset[i]
        left, top = i % columns * (2 * cell + gap) + gap, i // columns * (cell + gap) + gap
        photograph = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        labelled = Image.fromarray(overlay(sample, dataset.palette))
        factor = cell / max(photograph.size)
        size = (max(1, round(photograph.width * factor)), max(1, round(photograph.height * factor)))
        sheet.paste(photograph.resize(size, Image.Resampling.BICUBIC), (left, top))
        # Nearest: a mixed colour would look like another class.
        sheet.paste(labelled.resize(size, Image.Resampling.NEAREST), (left + cell, top))
    return sheet
