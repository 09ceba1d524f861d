"""Describe a data set: samples, classes, palettes, and the pixels of each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

VOID = 255
"""The id of pixels that have no label: they enter neither a loss nor a score."""


@dataclass(frozen=True)
class Sample:
    """An image with the class of each of its pixels.

    Attributes:
        name: unique within its split; names the files that are written about this image.
        image: (3, H, W) uint8, RGB in 0..255.
        mask: (H, W) int64, class ids, `VOID` where there is no label.
    """

    name: str
    image: Tensor
    mask: Tensor

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image as (H, W, 3), for whoever draws."""
        return np.ascontiguousarray(self.image.permute(1, 2, 0).numpy())


class CorruptSample(ValueError):
    """A file of one sample cannot be used: truncated, of the wrong size, or with ids of no class.

    Training names such a sample, counts it, and puts another in its place, up to a limit;
    evaluation stops.
    """


# Class ids: their names, colours and scores, and labels drawn over their image.

Ids = NDArray[np.integer[Any]]
Picture = NDArray[np.uint8]


def voc_palette() -> NDArray[np.uint8]:
    """Compute the colour of every id 0..255, as the VOC development kit defines it.

    Bits 0, 3, 6 of the id become the highest bits of red, bits 1, 4, 7 those of green and bits 2, 5
    those of blue, so neighbouring ids differ strongly (`VOClabelcolormap.m`, VOC 2012 devkit).

    Returns:
        (256, 3) uint8 RGB; row 0 is black, row 255 (void) is (224, 224, 192).
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


@dataclass(frozen=True)
class LabelSet:
    """The meaning of class ids; the attributes are those of `SegmentationDataset`."""

    classes: tuple[str, ...]
    scored: tuple[int, ...]
    palette: NDArray[np.uint8]


def label_set_of(
    classes: Sequence[str],
    scored: Sequence[str] = (),
    colours: Sequence[Sequence[int]] = (),
) -> LabelSet:
    """Describe the ids of a data set.

    Args:
        classes: the name of every id.
        scored: names of the classes whose IoU is averaged; empty for all.
        colours: RGB in 0..255 of the ids 0, 1, ...; further ids have the colours of VOC.

    Raises:
        ValueError: a scored class does not exist or is named twice.
    """
    ids = sorted(classes.index(choose("scored class", name, classes)) for name in scored or classes)
    if len(set(ids)) != len(ids):
        raise ValueError(f"scored names a class twice: {scored}")
    palette = voc_palette()
    palette[: len(colours)] = np.reshape(np.array(colours, dtype=np.uint8), (-1, 3))
    return LabelSet(tuple(classes), tuple(ids), palette)


def labels_to_dict(labels: LabelSet) -> dict[str, Any]:
    """Write a label set as plain values, as a classes.json holds them."""
    return {
        "names": list(labels.classes),
        "scored": [labels.classes[label] for label in labels.scored],
        "colours": labels.palette[: len(labels.classes)].tolist(),
    }


def labels_from_dict(values: Mapping[str, Any]) -> LabelSet:
    """Make the label set that `labels_to_dict` wrote."""
    return label_set_of(values["names"], values["scored"], values["colours"])


def outline(ids: Ids) -> NDArray[np.bool_]:
    """Mark, one pixel wide, where the neighbour to the right or below has another label."""
    marked = np.zeros(ids.shape, dtype=np.bool_)
    marked[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    marked[:-1] |= ids[:-1] != ids[1:]
    return marked


def overlay(image: Picture, ids: Ids, palette: Picture, opacity: float = 0.55) -> Picture:
    """Draw an image seen through its labels' colours, with their outlines nearly opaque.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) label ids.
        palette: (256, 3) uint8 RGB.
        opacity: of the colours, 0..1.
    """
    alpha = np.where(outline(ids), 0.9, opacity)[..., None]
    mixed = (1 - alpha) * image + alpha * palette[ids]
    return np.asarray(mixed.round(), dtype=np.uint8)


def choose(what: str, word: str, choices: Iterable[str]) -> str:
    """Return the word if it is one of the choices.

    Args:
        what: the word names, for the message.
        word: to be looked up.
        choices: all words that are known.

    Raises:
        ValueError: it is not; the message has the choices, and the nearest.
    """
    known = list(choices)
    if word in known:
        return word
    near = get_close_matches(word, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {word!r}: choose one of {', '.join(known)}.{hint}")


# One split of a data set.

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
    """Raise ValueError unless `split` is train, tune or report."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}")


def label_pixels(dataset: SegmentationDataset) -> Tensor:
    """Count the labelled pixels of each class, (L,) int64, in every readable sample."""
    num_classes = len(dataset.classes)
    pixels = torch.zeros(num_classes, dtype=torch.int64)
    for index in range(len(dataset)):
        try:
            mask = dataset[index].mask
        except CorruptSample:
            continue
        pixels += torch.bincount(mask[mask != VOID], minlength=num_classes)
    return pixels
