"""Data sets that are a list of images, each with a mask in a file beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.dataset import SegmentationDataset, Split, check_split
from data.labels import Table, to_labels
from data.listing import absent, require_unique, shortened
from data.palette import voc_palette
from data.reading import read_ids, read_image
from data.sample import CorruptSample, Sample

C = TypeVar("C")


@dataclass(frozen=True)
class Pair:
    """An image and its mask, listed but not read.

    Attributes:
        name: of the sample, unique within its split.
        image: the file of the photograph.
        mask: the file of the ids.
    """

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """One split of a data set on disk: which files it has, and what their ids mean.

    Attributes:
        pairs: in order.
        source: what named them, for messages: a list or a folder.
        classes: the name of every class id.
        scored: the ids whose IoU is averaged.
        table: (256,) int64, stored id -> class id.
        has_void: see `SegmentationDataset`.
        published: how many samples the split is known to have, by the name of the edition; empty
            where nothing is published.
        palette: (256, 3) uint8 RGB, the colour of every class id.
    """

    pairs: tuple[Pair, ...]
    source: str
    classes: tuple[str, ...]
    scored: tuple[int, ...]
    table: Table
    has_void: bool = False
    published: Mapping[str, int] = field(default_factory=dict)
    palette: NDArray[np.uint8] = field(default_factory=voc_palette)


def read_pair(pair: Pair, table: Table) -> Sample:
    """Read, map and check one sample.

    Raises:
        CorruptSample: a file is truncated or no image, the mask is a colour image, has another size
            than its image, or holds an id of no class; the message names the file.
        OSError: a file cannot be opened.
    """
    image = read_image(pair.image)
    labels = to_labels(read_ids(pair.mask), table, pair.mask)
    check_size(pair, image.shape[:2], labels.shape)
    # One copy, planar and writable; Pillow's own memory is neither.
    planar = np.array(image.transpose(2, 0, 1), order="C")
    return Sample(name=pair.name, image=torch.from_numpy(planar), mask=torch.from_numpy(labels))


def check_size(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Raise CorruptSample unless image and mask have the same (H, W)."""
    if image != mask:
        raise CorruptSample(
            f"{pair.mask} is {mask[0]} x {mask[1]} (H x W), its image {pair.image} is "
            f"{image[0]} x {image[1]}; they must be equal (a rotation noted in the image's EXIF "
            "data is not applied)"
        )


class PairedDataset(SegmentationDataset, Generic[C]):
    """Photographs with masks of ids, read one by one.

    Construction checks that every file exists, so that nothing is missed in the middle of a run,
    with one listing a folder; contents are checked as each sample is read.

    Args:
        config: where the files lie and which of them.
        split: "train", "tune" or "report".

    Raises:
        FileNotFoundError: the root, a list, an image or a mask is absent.
        PermissionError: one of them may not be read.
        ValueError: a list is empty or names an image twice.
    """

    def __init__(self, config: C, split: Split) -> None:
        check_split(split)
        layout = self.layout(config, split)
        self.config = config
        self.split = split
        self.pairs = layout.pairs
        self.table = layout.table
        self.classes = layout.classes
        self.scored = layout.scored
        self.palette = layout.palette
        self.has_void = layout.has_void
        self.names = tuple(pair.name for pair in layout.pairs)
        require_unique(self.names, layout.source)
        missing = absent(path for pair in layout.pairs for path in (pair.image, pair.mask))
        if missing:
            raise FileNotFoundError(
                f"{shortened(missing)} {'does' if len(missing) == 1 else 'do'} not exist, but "
                f"{layout.source} names {'it' if len(missing) == 1 else 'them'}; complete the "
                "folder or remove the lines from the list (`python -m data verify` reports all)"
            )

    @staticmethod
    @abstractmethod
    def layout(config: C, split: Split) -> Layout:
        """List the files of a split; whether they exist is checked afterwards.

        Raises:
            FileNotFoundError: the root or a list is absent; the message says which option to pass.
            PermissionError: it may not be read.
            ValueError: a list is empty or malformed.
        """

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its mask.

        Raises:
            IndexError: there is no such sample.
            CorruptSample: see `read_pair`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in split {self.split!r}")
        return read_pair(self.pairs[index], self.table)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(split={self.split!r}, images={len(self)}, {self.config})"
