"""How labels are laid over an image."""

from __future__ import annotations

import numpy as np

from data.palette import voc_palette
from eval.overlay import overlay


def test_overlay_mixes_and_outlines() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    ids = np.array([[0, 0, 1, 1]] * 4)
    mixed = overlay(image, ids, voc_palette(), opacity=0.5)
    assert mixed[0, 0].tolist() == [50, 50, 50]
    assert mixed[0, 1].tolist() == [10, 10, 10]
    assert mixed[0, 3].tolist() == [114, 50, 50]
    assert (image == 100).all()
