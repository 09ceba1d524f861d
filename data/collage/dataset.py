"""The embedded data set: an endless supply of composed scenes, cut to the size one asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import RandomState

from data.collage.layout import draw_layers, label_map
from data.collage.painting import paint
from data.collage.sources import CLASSES, read_patches
from data.dataset import SegmentationDataset, Split, check_split
from data.palette import voc_palette
from data.sample import Sample

_STREAM = {"train": 0, "tune": 1, "report": 2}


@dataclass(frozen=True)
class CollageConfig:
    """The collage, as numbers.

    Attributes:
        size: side of the square scenes, pixels.
        num_train, num_tune, num_report: scenes in each split.
        seed: another seed gives other scenes from the same pictures.
        min_things, max_things: how many things lie in front of the backmost layer.
        noise: largest standard deviation of the sensor noise, grey levels of 0..255.

    Raises:
        ValueError: a value that makes no scene; the message names the field.
    """

    size: int = 97
    num_train: int = 4000
    num_tune: int = 100
    num_report: int = 200
    seed: int = 0
    min_things: int = 2
    max_things: int = 5
    noise: float = 5.0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size must be 16..1024 pixels, got {self.size}")
        for field in ("num_train", "num_tune", "num_report"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..2**32 - 1, got {self.seed}")
        if not 0 <= self.min_things <= self.max_things:
            raise ValueError(
                f"expected 0 <= min_things <= max_things, got {self.min_things}, {self.max_things}"
            )
        if not self.noise >= 0:
            raise ValueError(f"noise must be at least 0 grey levels, got {self.noise}")


class Collage(SegmentationDataset):
    """Scenes composed of the pictures that scikit-image ships; nothing is downloaded or stored.

    Scene i of a split is a pure function of (seed, split, i) and the config. Its mask comes from
    integers and frozen random streams alone and has the same bits on every machine; its image is
    the same up to the rounding of floating point and of JPEG decoders. Masks are exact and have no
    void. The splits use disjoint regions of every picture (`data.collage.sources`).

    Args:
        config: sizes, counts, seed.
        split: "train", "tune" or "report".
    """

    def __init__(self, config: CollageConfig, split: Split) -> None:
        check_split(split)
        self.config = config
        self.split = split
        self.classes = CLASSES
        self.scored = tuple(range(len(CLASSES)))
        self.palette = voc_palette()
        self.has_void = False
        counts = {
            "train": config.num_train,
            "tune": config.num_tune,
            "report": config.num_report,
        }
        self.names = tuple(f"{split}-{i:05d}" for i in range(counts[split]))
        self.patches = read_patches(split)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)} in split {self.split!r}")
        config = self.config
        # Two streams, so that how a scene looks can change without moving a boundary.
        key = [config.seed, _STREAM[self.split], index]
        form, look = RandomState([*key, 0]), RandomState([*key, 1])
        layers = draw_layers(form, config.size, len(CLASSES), config.min_things, config.max_things)
        image = paint(look, layers, self.patches, config.noise)
        return Sample(
            name=self.names[index],
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            mask=torch.from_numpy(label_map(layers)),
        )

    def __repr__(self) -> str:
        return f"Collage(split={self.split!r}, scenes={len(self)}, {self.config})"
