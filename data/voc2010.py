"""Two labellings of VOC 2010: PASCAL-Context and PASCAL-Person-Part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data.dataset import LabelSet, Split, label_set_of
from data.paired import Layout, ListedConfig, Table, label_table, paired
from data.reading import require_folders


@dataclass(frozen=True)
class Voc2010Config(ListedConfig):
    """Other masks and lists beside the photographs of VOC 2010.

    Both tune and report are the published val by default: there is no third split.

    Attributes:
        root: the VOC2010 folder.
    """

    edition: ClassVar[str]
    masks: ClassVar[str]
    origin: ClassVar[str]
    published: ClassVar[Mapping[str, int]]

    root: Path = Path("VOCdevkit/VOC2010")

    @abstractmethod
    def table(self) -> Table:
        """Map stored ids to class ids."""

    def layout(self, split: Split) -> Layout:
        """Find the images that the list of a split names."""
        below = ("JPEGImages", self.masks, self.lists)
        require_folders(
            self.root,
            below,
            f"the VOC2010 folder, with {', '.join(below)} directly below it, the last two from "
            f"{self.origin}; pass it as --data.root .../VOCdevkit/VOC2010",
        )
        path = self.list_of(split)
        known = path.stem in self.published
        images, masks = self.root / "JPEGImages", self.root / self.masks
        return Layout(
            pairs=paired(images, masks, self.lines_of(split), path),
            source=f"the list {path}",
            table=self.table(),
            published={self.edition: self.published[path.stem]} if known else {},
        )


# The 59 classes that Mottaghi et al., The Role of Context, CVPR 2014 evaluate, in the alphabetical
# order (and by the names) in which mmsegmentation's conversion numbers them 1..59; 0 is the rest.
CONTEXT_CLASSES = (
    "background",
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle",
    "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow",
    "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass", "ground",
    "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate", "platform",
    "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow", "sofa",
    "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip


@dataclass(frozen=True)
class PascalContextConfig(Voc2010Config):
    """PASCAL-Context: VOC 2010 labelled everywhere, 59 classes or 60 with the background.

    By default train is the published train (4,998 images) and both tune and report are the
    published val (5,105).

    Attributes:
        root: the VOC2010 folder, with the layout of mmsegmentation: JPEGImages,
            SegmentationClassContext, ImageSets/SegmentationContext.
        train_list, tune_list, report_list: names of lists in ImageSets/SegmentationContext.
        classes: 59 makes the background void, as DeepLab v2 does; 60 keeps it as class 0.

    Raises:
        ValueError: a scored class does not exist, or classes is neither.
    """

    kind: ClassVar[str] = "pascal-context"
    edition: ClassVar[str] = "PASCAL-Context"
    masks: ClassVar[str] = "SegmentationClassContext"
    lists: ClassVar[str] = "ImageSets/SegmentationContext"
    origin: ClassVar[str] = "mmsegmentation's converter"
    published: ClassVar[Mapping[str, int]] = {"train": 4998, "val": 5105}

    classes: Literal[59, 60] = 59

    def __post_init__(self) -> None:
        if self.classes not in (59, 60):
            raise ValueError(f"classes must be 59 or 60, got {self.classes}")
        super().__post_init__()

    def label_set(self) -> LabelSet:
        """Describe the 59 or 60 ids."""
        return label_set_of(CONTEXT_CLASSES[60 - self.classes :], self.scored)

    def table(self) -> Table:
        """Map the stored 0..59; the background is void where it is no class."""
        first = 60 - self.classes
        return label_table(
            {label + first: label for label in range(self.classes)}, void=(*range(first), 255)
        )


PART_CLASSES = (
    "background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs",
)  # fmt: skip
"""Ids 0..6 (Chen et al., Attention to Scale, CVPR 2016)."""


@dataclass(frozen=True)
class PersonPartConfig(Voc2010Config):
    """PASCAL-Person-Part: the people of VOC 2010 in six parts.

    By default train is the published train (1,716 images) and both tune and report are the
    published val (1,817).

    Attributes:
        root: the VOC2010 folder, with JPEGImages and what prepare derives from the annotations of
            PASCAL-Part: SegmentationPersonPart and ImageSets/PersonPart.
        train_list, tune_list, report_list: names of lists in ImageSets/PersonPart.
    """

    kind: ClassVar[str] = "person-part"
    edition: ClassVar[str] = "PASCAL-Person-Part"
    masks: ClassVar[str] = "SegmentationPersonPart"
    lists: ClassVar[str] = "ImageSets/PersonPart"
    origin: ClassVar[str] = "`python -m data prepare person-part`"
    published: ClassVar[Mapping[str, int]] = {"train": 1716, "val": 1817}

    def label_set(self) -> LabelSet:
        """Describe the 7 ids."""
        return label_set_of(PART_CLASSES, self.scored)

    def table(self) -> Table:
        """Map the stored 0..6."""
        return label_table(len(PART_CLASSES))
