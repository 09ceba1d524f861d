"""How many pixels of a split each label has."""

from __future__ import annotations

import numpy as np
import torch

from data import VOID, CorruptSample, Sample, SegmentationDataset, label_pixels


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


def test_void_and_unreadable_samples_do_not_count() -> None:
    assert label_pixels(Three()).tolist() == [4, 0, 2]
