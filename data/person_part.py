"""Reading PASCAL-Person-Part: the people of VOC 2010 in six parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

CLASSES = (
    "background",
    "head",
    "torso",
    "upper arms",
    "lower arms",
    "upper legs",
    "lower legs",
)
"""Ids 0..6 (Chen et al., Attention to Scale, CVPR 2016)."""

MASKS = "SegmentationPersonPart"
LISTS = "ImageSets/PersonPart"
"""Below the root, both written by `python -m data prepare person-part`."""

PUBLISHED = {"train": 1716, "val": 1817}


@dataclass(frozen=True)
class PersonPartConfig:
    """Where PASCAL-Person-Part lies and how it is split.

    By default train is the published train (1,716 images) and both tune and report are the
    published val (1,817): there is no third split.

    Attributes:
        root: the VOC2010 folder, with JPEGImages and what prepare derives from the annotations of
            PASCAL-Part: SegmentationPersonPart and ImageSets/PersonPart.
        train_list, tune_list, report_list: names of lists in ImageSets/PersonPart.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist.
    """

    root: Path = Path("VOCdevkit/VOC2010")
    train_list: str = "train"
    tune_list: str = "val"
    report_list: str = "val"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_scored(self.scored, CLASSES)


class PersonPart(PairedDataset[PersonPartConfig]):
    """Photographs (JPEG) with palette masks of the ids 0..6."""

    @staticmethod
    def layout(config: PersonPartConfig, split: Split) -> Layout:
        """The images that the list of a split names.

        Raises:
            FileNotFoundError: the root, a folder of it or the list is absent.
            PermissionError: it may not be read.
            ValueError: a line of the list is not a name.
        """
        root = config.root
        require_folders(
            root,
            ("JPEGImages", MASKS, LISTS),
            f"the VOC2010 folder, with JPEGImages, {MASKS}, {LISTS} directly below it, the last "
            "two from `python -m data prepare person-part`; pass it as --data.root "
            ".../VOCdevkit/VOC2010",
        )
        chosen = {
            "train": config.train_list,
            "tune": config.tune_list,
            "report": config.report_list,
        }[split]
        path = root / LISTS / f"{chosen}.txt"
        names = require_names(read_lines(path, f"--data.{split}-list"), path)
        return Layout(
            pairs=tuple(
                Pair(name, root / "JPEGImages" / f"{name}.jpg", root / MASKS / f"{name}.png")
                for name in names
            ),
            source=f"the list {path}",
            classes=CLASSES,
            scored=scored_ids(config.scored, CLASSES),
            table=label_table({label: label for label in range(len(CLASSES))}),
            published={"PASCAL-Person-Part": PUBLISHED[chosen]} if chosen in PUBLISHED else {},
        )
