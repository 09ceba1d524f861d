"""Reading PASCAL-Context: VOC 2010 labelled everywhere, 59 classes or 60 with the background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.dataset import Split
from data.reading import (
    Layout,
    Pair,
    PairedDataset,
    check_scored,
    label_table,
    read_lines,
    require_folders,
    require_names,
    scored_ids,
)

# The 59 classes that Mottaghi et al., The Role of Context, CVPR 2014 evaluate, in the alphabetical
# order (and by the names) in which mmsegmentation's conversion numbers them 1..59; 0 is the rest.
CLASSES = (
    "background",
    *[
        "aeroplane",
        "bag",
        "bed",
        "bedclothes",
        "bench",
        "bicycle",
        "bird",
        "boat",
        "book",
        "bottle",
        "building",
        "bus",
        "cabinet",
        "car",
        "cat",
        "ceiling",
        "chair",
        "cloth",
        "computer",
        "cow",
        "cup",
        "curtain",
        "dog",
        "door",
        "fence",
        "floor",
        "flower",
        "food",
        "grass",
        "ground",
        "horse",
        "keyboard",
        "light",
        "motorbike",
        "mountain",
        "mouse",
        "person",
        "plate",
        "platform",
        "pottedplant",
        "road",
        "rock",
        "sheep",
        "shelves",
        "sidewalk",
        "sign",
        "sky",
        "snow",
        "sofa",
        "table",
        "track",
        "train",
        "tree",
        "truck",
        "tvmonitor",
        "wall",
        "water",
        "window",
        "wood",
    ],
)

PUBLISHED = {"train": 4998, "val": 5105}


@dataclass(frozen=True)
class PascalContextConfig:
    """Where PASCAL-Context lies and how it is split.

    By default train is the published train (4,998 images) and both tune and report are the
    published val (5,105): there is no third split.

    Attributes:
        root: the VOC2010 folder, with the layout of mmsegmentation: JPEGImages,
            SegmentationClassContext, ImageSets/SegmentationContext.
        classes: 59 makes the background void, as DeepLab v2 does; 60 keeps it as class 0.
        train_list, tune_list, report_list: names of lists in ImageSets/SegmentationContext.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist, or classes is neither.
    """

    root: Path = Path("VOCdevkit/VOC2010")
    classes: Literal[59, 60] = 59
    train_list: str = "train"
    tune_list: str = "val"
    report_list: str = "val"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.classes not in (59, 60):
            raise ValueError(f"classes must be 59 or 60, got {self.classes}")
        check_scored(self.scored, CLASSES[60 - self.classes :])


class PascalContext(PairedDataset[PascalContextConfig]):
    """Photographs (JPEG) with grey or palette masks of the ids 0..59."""

    @staticmethod
    def layout(config: PascalContextConfig, split: Split) -> Layout:
        """The images that the list of a split names.

        Raises:
            FileNotFoundError: the root, a folder of it or the list is absent.
            PermissionError: it may not be read.
            ValueError: a line of the list is not a name.
        """
        root = config.root
        require_folders(
            root,
            ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext"),
            "a folder with JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext "
            "directly below it, as mmsegmentation's converter leaves it; pass it as --data.root "
            ".../VOCdevkit/VOC2010",
        )
        chosen = {
            "train": config.train_list,
            "tune": config.tune_list,
            "report": config.report_list,
        }[split]
        path = root / "ImageSets" / "SegmentationContext" / f"{chosen}.txt"
        names = require_names(read_lines(path, f"--data.{split}-list"), path)
        first = 60 - config.classes
        classes = CLASSES[first:]
        return Layout(
            pairs=tuple(
                Pair(
                    name=name,
                    image=root / "JPEGImages" / f"{name}.jpg",
                    mask=root / "SegmentationClassContext" / f"{name}.png",
                )
                for name in names
            ),
            source=f"the list {path}",
            classes=classes,
            scored=scored_ids(config.scored, classes),
            table=label_table(
                {label + first: label for label in range(len(classes))},
                void=(*range(first), 255),
            ),
            published={"PASCAL-Context": PUBLISHED[chosen]} if chosen in PUBLISHED else {},
        )
