"""What every data set offers to training and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from data.sample import Sample

Split = Literal["train", "tune", "report"]
"""Fit on train, choose every hyper-parameter on tune, score on report once per finished run."""


class SegmentationDataset(Dataset[Sample], ABC):
    """A finite, ordered split of labelled images.

    Reading is pure: `dataset[i]` is the same sample each time, in any order and any process.

    Attributes:
        classes: the name of every class id, so `len(classes)` is L.
        scored: the ids whose IoU is averaged to the headline mIoU, ascending.
        palette: (256, 3) uint8 RGB, the colour of every id.
        names: the name of every sample, in order and unique.
        has_void: whether the masks mark object borders as void, so that trimaps follow them.
    """

    classes: tuple[str, ...]
    scored: tuple[int, ...]
    palette: NDArray[np.uint8]
    names: tuple[str, ...]
    has_void: bool

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`, 0 <= index < len(self).

        Raises:
            IndexError: there is no such sample (which also ends a plain `for` over the data set).
        """


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is one of the three."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}")
