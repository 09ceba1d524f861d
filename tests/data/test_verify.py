from __future__ import annotations

import numpy as np
import pytest

from data import Voc, VocConfig
from data.verify import take_census


def test_counts_by_hand(tiny_voc):
    census = take_census(Voc(VocConfig(root=tiny_voc.root), "train"))
    assert (census.samples, census.smallest, census.largest) == (2, 4, 7)
    # a: 35 pixels, 1 void, 6 cat, 7 tv monitor; b: 24 person.
    assert census.void == 1 / 59
    assert census.shares[8] == 6 / 58
    assert census.shares[15] == 24 / 58
    assert sum(census.images) == 4
    assert census.images[20] == 1
    assert sum(census.shares) == pytest.approx(1)  # the order of adding, in float64


def test_a_bad_file_is_found(tiny_voc):
    tiny_voc.add("b", np.full((6, 4), 33, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"b\.png"):
        take_census(Voc(VocConfig(root=tiny_voc.root), "train"))


def test_a_split_without_labels_is_refused(tiny_voc):
    tiny_voc.add("b", np.full((6, 4), 255, dtype=np.uint8))
    tiny_voc.write_list("report", "b")
    with pytest.raises(ValueError, match="no pixel"):
        take_census(Voc(VocConfig(root=tiny_voc.root), "report"))
