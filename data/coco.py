"""COCO with its labels reduced to the classes of VOC, for pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data.dataset import LabelSet, Split, label_set_of
from data.paired import Layout, RootedConfig, label_table, paired
from data.reading import read_lines, require_folders
from data.voc import CLASSES

# Lin et al., Microsoft COCO, ECCV 2014: the category of every class of VOC, in the order of VOC.
_CATEGORIES = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)

# The pixel maps of Caesar et al., COCO-Stuff, CVPR 2018 hold category - 1: things in 0..90, stuff
# in 91..181, 255 where nothing is labelled. What VOC does not know is background.
TABLE = label_table(
    dict.fromkeys(range(182), 0)
    | {category - 1: label for label, category in enumerate(_CATEGORIES, start=1)}
)

PUBLISHED = {"train2017": 118287, "val2017": 5000}


@dataclass(frozen=True)
class CocoConfig(RootedConfig):
    """Say where COCO lies and how it is split.

    By default train is train2017 (118,287 images) and both tune and report are val2017 (5,000).
    The grey masks are reduced to the 21 ids of VOC as they are read.

    Attributes:
        root: the folder that holds images/{train2017,val2017} and the pixel maps of COCO-Stuff,
            stuffthingmaps/{train2017,val2017}, both as they are unpacked.
        lists: a folder below the root with lists of names, FOLDER.txt for every folder of images;
            `python -m data prepare coco` writes voc_lists, which leaves out the images that show
            little of the classes of VOC. None takes every image.
        train_folder, tune_folder, report_folder: folders of images and stuffthingmaps.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist.
    """

    kind: ClassVar[str] = "coco"

    root: Path = Path("coco")
    lists: str | None = None
    train_folder: str = "train2017"
    tune_folder: str = "val2017"
    report_folder: str = "val2017"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.label_set()

    def label_set(self) -> LabelSet:
        """Describe the 21 ids of VOC."""
        return label_set_of(CLASSES, self.scored)

    def layout(self, split: Split) -> Layout:
        """Find the images of a split, sorted, or in the order of their list."""
        chosen = getattr(self, f"{split}_folder")
        require_folders(
            self.root,
            (f"images/{chosen}", f"stuffthingmaps/{chosen}"),
            "the folder of COCO, with images/{train2017,val2017} and "
            "stuffthingmaps/{train2017,val2017} below it; pass it as --data.root .../coco",
        )
        images, masks = self.root / "images" / chosen, self.root / "stuffthingmaps" / chosen
        path = self.root / (self.lists or "") / f"{chosen}.txt"
        lines = None if self.lists is None else read_lines(path, "--data.lists")
        pairs = paired(images, masks, lines, path)
        if not pairs:
            raise FileNotFoundError(f"no image {images}/*.jpg; unpack {chosen}.zip there")
        known = self.lists is None and chosen in PUBLISHED
        return Layout(
            pairs=pairs,
            source=f"the folder {images}" if self.lists is None else f"the list {path}",
            table=TABLE,
            published={"COCO 2017": PUBLISHED[chosen]} if known else {},
        )
