"""Data sets that lie in a folder: images, each with a mask of ids in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.dataset import (
    VOID,
    CorruptSample,
    LabelSet,
    Sample,
    SegmentationDataset,
    Split,
    check_split,
)
from data.reading import (
    Ids,
    absent,
    by_stem,
    names_in,
    read_ids,
    read_image,
    read_lines,
    require_unique,
    shortened,
)

# From the ids that a file stores to class ids.

NO_CLASS = -1
"""In a table: no file of this data set may hold the id."""

Table = NDArray[np.int64]
"""(256,): stored id -> class id, `VOID`, or `NO_CLASS`."""


def label_table(classes: Mapping[int, int] | int, void: Sequence[int] = (VOID,)) -> Table:
    """Make the table of a data set; every id that is not named is `NO_CLASS`.

    Args:
        classes: stored id -> class id, where several may share a class; or L, for masks that store
            the class ids 0..L-1.
        void: the stored ids that mean no label.
    """
    table = np.full(VOID + 1, NO_CLASS, dtype=np.int64)
    table[list(void)] = VOID
    if isinstance(classes, int):
        classes = {label: label for label in range(classes)}
    for stored, label in classes.items():
        table[stored] = label
    return table


def to_labels(ids: Ids, table: Table, path: Path) -> NDArray[np.int64]:
    """Turn the stored ids (H, W) of the file `path` into class ids.

    Raises:
        CorruptSample: an id that the data set does not know.
    """
    labels: NDArray[np.int64] = table[ids]
    if labels.size and labels.min() == NO_CLASS:
        wrong = np.unique(ids[labels == NO_CLASS]).tolist()
        raise CorruptSample(f"{path} holds the label ids {wrong}; expected {describe(table)}")
    return labels


def describe(table: Table) -> str:
    """Name the ids that a file may hold, as runs: "0..20 or 255 (void)"."""
    known = _runs(np.flatnonzero((table != NO_CLASS) & (table != VOID)).tolist())
    void = _runs(np.flatnonzero(table == VOID).tolist())
    return f"{known} or {void} (void)" if void else known


def _runs(values: list[int]) -> str:
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)


# One image with its mask.


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
            f"{image[0]} x {image[1]}; they must be equal (a photograph is turned as its EXIF data "
            "say: a mask that was drawn over the unturned pixels must be turned, too)"
        )


# One split of a data set. A new data set is a config with `label_set` and `layout` in a file of
# its own, and a line in data/kinds.py.


@dataclass(frozen=True)
class Layout:
    """One split of a data set on disk: which files it has, and what their ids mean.

    Attributes:
        pairs: in order.
        source: what named them, for messages: a list or a folder.
        table: (256,) int64, stored id -> class id.
        published: how many samples the split is known to have, by the name of the edition; empty
            where nothing is published.
    """

    pairs: tuple[Pair, ...]
    source: str
    table: Table
    published: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RootedConfig(ABC):
    """Say where a data set lies and how it is split.

    Attributes:
        root: the folder of the data set.
    """

    kind: ClassVar[str]
    has_void: ClassVar[bool] = False

    root: Path = Path()

    def mask_palette(self) -> NDArray[np.uint8] | None:
        """Return the colours that palette masks are known to have, (256, 3); None for any."""
        return None

    @abstractmethod
    def label_set(self) -> LabelSet:
        """Describe the class ids, from the config alone where no file is needed."""

    @abstractmethod
    def layout(self, split: Split) -> Layout:
        """List the files of a split; whether they exist is checked afterwards.

        Raises:
            FileNotFoundError: the root or a list is absent; the message says which option to pass.
            PermissionError: it may not be read.
            ValueError: a list is empty or malformed.
        """


@dataclass(frozen=True)
class ListedConfig(RootedConfig):
    """A data set with published classes, of which lists name the images.

    Attributes:
        root: the folder of the data set.
        train_list, tune_list, report_list: names of lists, without .txt.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist; the message suggests the nearest name.
    """

    lists: ClassVar[str] = "."

    train_list: str = "train"
    tune_list: str = "val"
    report_list: str = "val"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.label_set()

    def list_of(self, split: Split) -> Path:
        """Return the file that lists the images of a split."""
        return self.root / self.lists / f"{getattr(self, f'{split}_list')}.txt"

    def lines_of(self, split: Split) -> tuple[str, ...]:
        """Read the list of a split."""
        return read_lines(self.list_of(split), f"--data.{split}-list")


def paired(
    images: Path, masks: Path, lines: Sequence[str] | None, source: Path
) -> tuple[Pair, ...]:
    """Pair the images of a folder with the masks of another, NAME.png.

    Args:
        images: the folder of the images.
        masks: the folder of the masks.
        lines: of a list of names; None takes all images, sorted.
        source: the list, for messages.

    Raises:
        ValueError: a line is not a name.
    """
    image_of, mask_of = by_stem(images), by_stem(masks, (".png",))
    names = names_in(lines, source, image_of) if lines is not None else tuple(image_of)
    return tuple(
        Pair(
            name,
            images / image_of.get(name, f"{name}.jpg"),
            masks / mask_of.get(name, f"{name}.png"),
        )
        for name in names
    )


class PairedDataset(SegmentationDataset):
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

    def __init__(self, config: RootedConfig, split: Split) -> None:
        check_split(split)
        layout, labels = config.layout(split), config.label_set()
        self.config = config
        self.split = split
        self.pairs = layout.pairs
        self.table = layout.table
        self.classes = labels.classes
        self.scored = labels.scored
        self.palette = labels.palette
        self.has_void = config.has_void
        self.names = tuple(pair.name for pair in layout.pairs)
        require_unique(self.names, layout.source)
        missing = absent(path for pair in layout.pairs for path in (pair.image, pair.mask)).values()
        if missing:
            raise FileNotFoundError(
                f"{shortened(missing)} {'does' if len(missing) == 1 else 'do'} not exist, but "
                f"{layout.source} names {'it' if len(missing) == 1 else 'them'}; complete the "
                "folder or remove the lines from the list (`python -m data verify` reports all)"
            )

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in split {self.split!r}")
        return read_pair(self.pairs[index], self.table)

    def __repr__(self) -> str:
        return f"PairedDataset(split={self.split!r}, images={len(self)}, {self.config})"
