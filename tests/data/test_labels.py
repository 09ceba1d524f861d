"""From stored ids to labels, their counts, and their colours on a sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data import (
    VOID,
    Collage,
    CollageConfig,
    CorruptSample,
    Sample,
    SegmentationDataset,
    Voc,
    VocConfig,
    label_pixels,
)
from data.dataset import voc_palette
from data.reading import check_scored, describe, label_table, scored_ids, to_labels
from data.verify import contact_sheet, overlay

TABLE = label_table({0: 0, 1: 1, 2: 2, 7: 0}, void=(11, 255))


def test_table_by_hand():
    ids = np.array([[0, 1, 2], [7, 11, 255]], dtype=np.uint8)
    labels = to_labels(ids, TABLE, Path("m.png"))
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0, 1, 2], [0, 255, 255]]
    with pytest.raises(CorruptSample, match=r"m\.png holds the label ids \[3, 254\]; expected"):
        to_labels(np.array([[3, 3, 254, 0]], dtype=np.uint8), TABLE, Path("m.png"))
    assert describe(TABLE) == "0..2, 7 or 11, 255 (void)"
    assert describe(label_table({0: 0}, void=())) == "0"


def test_scored_classes():
    classes = ("dog", "cat", "horse")
    assert scored_ids((), classes) == (0, 1, 2)
    assert scored_ids(("horse", "dog"), classes) == (0, 2)
    with pytest.raises(ValueError, match="no class 'hrose'; did you mean 'horse'"):
        check_scored(("cat", "hrose"), classes)
    with pytest.raises(ValueError, match="no class 'qqq'; expected some of"):
        check_scored(("qqq",), classes)
    with pytest.raises(ValueError, match="twice"):
        check_scored(("cat", "cat"), classes)


class Three(SegmentationDataset):
    """Two samples of 2 x 2 pixels, and one between them that cannot be read."""

    classes = ("a", "b", "c")
    scored = (0, 1, 2)
    palette = np.zeros((256, 3), dtype=np.uint8)
    names = ("0", "1", "2")
    has_void = True

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise CorruptSample("1.png: truncated")
        masks = {0: [[0, 0], [0, VOID]], 2: [[0, 2], [2, VOID]]}
        image = torch.zeros(3, 2, 2, dtype=torch.uint8)
        return Sample(self.names[index], image, torch.tensor(masks[index]))


def test_void_and_unreadable_samples_do_not_count():
    assert label_pixels(Three()).tolist() == [4, 0, 2]


def test_overlay_by_hand():
    image = torch.full((3, 1, 3), 100, dtype=torch.uint8)
    sample = Sample("s", image, torch.tensor([[0, 1, 255]]))
    mixed = overlay(sample, voc_palette(), opacity=0.5)
    # Half of 100 and half of black, of (128, 0, 0), and of white (177.5 rounds to even).
    assert mixed[0].tolist() == [[50, 50, 50], [114, 50, 50], [178, 178, 178]]


def test_a_sheet_has_a_cell_for_each_sample(tiny_voc):
    collage = Collage(CollageConfig(), "train")
    sheet = contact_sheet(collage, count=5, columns=3, cell=50)
    assert sheet.size == (3 * (2 * 50 + 4) + 4, 2 * (50 + 4) + 4)
    voc = Voc(VocConfig(root=tiny_voc.root), "train")
    assert contact_sheet(voc, count=9, columns=4, cell=20).size == (2 * 44 + 4, 24 + 4)
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        contact_sheet(collage, count=1, columns=0, cell=1)
