"""Reading COCO with its labels reduced to the classes of VOC, for pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.dataset import Split
from data.reading import (
    Layout,
    Pair,
    PairedDataset,
    check_scored,
    file_names,
    label_table,
    read_lines,
    require_folders,
    require_names,
    scored_ids,
)
from data.voc import CLASSES

# Lin et al., Microsoft COCO, ECCV 2014: the category of every class of VOC, in the order of VOC.
_CATEGORIES = {
    "aeroplane": 5,
    "bicycle": 2,
    "bird": 16,
    "boat": 9,
    "bottle": 44,
    "bus": 6,
    "car": 3,
    "cat": 17,
    "chair": 62,
    "cow": 21,
    "diningtable": 67,
    "dog": 18,
    "horse": 19,
    "motorbike": 4,
    "person": 1,
    "pottedplant": 64,
    "sheep": 20,
    "sofa": 63,
    "train": 7,
    "tvmonitor": 72,
}

# The pixel maps of Caesar et al., COCO-Stuff, CVPR 2018 hold category - 1: things in 0..90, stuff
# in 91..181, 255 where nothing is labelled. What VOC does not know is background.
TABLE = label_table(
    dict.fromkeys(range(182), 0)
    | {category - 1: CLASSES.index(name) for name, category in _CATEGORIES.items()}
)

PUBLISHED = {"train2017": 118287, "val2017": 5000}


@dataclass(frozen=True)
class CocoConfig:
    """Where COCO lies and how it is split.

    By default train is train2017 (118,287 images) and both tune and report are val2017 (5,000).

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

    root: Path = Path("coco")
    lists: str | None = None
    train_folder: str = "train2017"
    tune_folder: str = "val2017"
    report_folder: str = "val2017"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_scored(self.scored, CLASSES)


class Coco(PairedDataset[CocoConfig]):
    """Photographs (JPEG) with grey masks, reduced to the 21 ids of VOC as they are read."""

    @staticmethod
    def layout(config: CocoConfig, split: Split) -> Layout:
        """The images of a split, sorted, or in the order of their list.

        Raises:
            FileNotFoundError: the root, a folder of it or the list is absent.
            PermissionError: it may not be read.
            ValueError: a line of the list is not a name.
        """
        chosen = {
            "train": config.train_folder,
            "tune": config.tune_folder,
            "report": config.report_folder,
        }[split]
        images = config.root / "images" / chosen
        masks = config.root / "stuffthingmaps" / chosen
        require_folders(
            config.root,
            (f"images/{chosen}", f"stuffthingmaps/{chosen}"),
            "the folder of COCO, with images/{train2017,val2017} and "
            "stuffthingmaps/{train2017,val2017} below it; pass it as --data.root .../coco",
        )
        if config.lists is None:
            source = f"the folder {images}"
            names = tuple(sorted(n[:-4] for n in file_names(images) if n.endswith(".jpg")))
            if not names:
                raise FileNotFoundError(f"no image {images}/*.jpg; unpack {chosen}.zip there")
        else:
            path = config.root / config.lists / f"{chosen}.txt"
            source = f"the list {path}"
            names = require_names(read_lines(path, "--data.lists"), path)
        known = config.lists is None and chosen in PUBLISHED
        return Layout(
            pairs=tuple(Pair(n, images / f"{n}.jpg", masks / f"{n}.png") for n in names),
            source=source,
            classes=CLASSES,
            scored=scored_ids(config.scored, CLASSES),
            table=TABLE,
            published={"COCO 2017": PUBLISHED[chosen]} if known else {},
        )
