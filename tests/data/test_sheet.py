from __future__ import annotations

import pytest
import torch

from data import Collage, CollageConfig, Sample, Voc, VocConfig
from data.palette import voc_palette
from data.sheet import contact_sheet, overlay


def test_shape():
    sheet = contact_sheet(Collage(CollageConfig(), "train"), count=5, columns=3, cell=50)
    assert sheet.size == (3 * (2 * 50 + 4) + 4, 2 * (50 + 4) + 4)


@pytest.mark.parametrize("field", ["count", "columns", "cell"])
def test_numbers_below_one_are_refused(field):
    numbers = {"count": 1, "columns": 1, "cell": 1, field: 0}
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        contact_sheet(Collage(CollageConfig(), "train"), **numbers)


def test_overlay_by_hand():
    image = torch.full((3, 1, 3), 100, dtype=torch.uint8)
    sample = Sample("s", image, torch.tensor([[0, 1, 255]]))
    mixed = overlay(sample, voc_palette(), opacity=0.5)
    # Half of 100 and half of black, of (128, 0, 0), and of white (177.5 rounds to even).
    assert mixed[0].tolist() == [[50, 50, 50], [114, 50, 50], [178, 178, 178]]


def test_small_data_sets_and_other_shapes(tiny_voc):
    sheet = contact_sheet(Voc(VocConfig(root=tiny_voc.root), "train"), count=9, columns=4, cell=20)
    assert sheet.size == (2 * 44 + 4, 24 + 4)
