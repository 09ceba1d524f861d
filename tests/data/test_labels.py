"""From stored ids to labels, and their counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data import VOID, CorruptSample, Sample, SegmentationDataset, label_pixels
from data.reading import check_scored, describe, label_table, scored_ids, to_labels

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
    names = ("0", "1", "2")

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise CorruptSample("1.png: truncated")
        mask = [[0, 0], [0, VOID]] if index == 0 else [[0, 2], [2, VOID]]
        return Sample(str(index), torch.zeros(3, 2, 2, dtype=torch.uint8), torch.tensor(mask))


def test_void_and_unreadable_samples_do_not_count():
    assert label_pixels(Three()).tolist() == [4, 0, 2]
