from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data import CorruptSample
from data.labels import describe, label_table, to_labels

TABLE = label_table({0: 0, 1: 1, 2: 2, 7: 0}, void=(11, 255))


def test_table_by_hand():
    ids = np.array([[0, 1, 2], [7, 11, 255]], dtype=np.uint8)
    labels = to_labels(ids, TABLE, Path("m.png"))
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0, 1, 2], [0, 255, 255]]


def test_ids_of_no_class_are_listed():
    ids = np.array([[3, 3, 254, 0]], dtype=np.uint8)
    with pytest.raises(CorruptSample, match=r"m\.png holds the label ids \[3, 254\]; expected"):
        to_labels(ids, TABLE, Path("m.png"))


def test_the_ids_in_words():
    assert describe(TABLE) == "0..2, 7 or 11, 255 (void)"
    assert describe(label_table({0: 0}, void=())) == "0"
