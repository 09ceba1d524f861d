"""Reading CamVid as SegNet publishes it: 480 x 360 frames, 11 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.dataset import Split, palette_of
from data.reading import (
    Layout,
    Pair,
    PairedDataset,
    by_stem,
    check_scored,
    label_table,
    read_lines,
    require_folders,
    scored_ids,
)

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""Ids 0..10 (Badrinarayanan et al., SegNet, TPAMI 2017); 11 is void."""

COLOURS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)

TABLE = label_table({label: label for label in range(len(CLASSES))}, void=(11,))
PUBLISHED = {"train": 367, "val": 101, "test": 233}


@dataclass(frozen=True)
class CamVidConfig:
    """Where CamVid lies and how it is split.

    By default train, tune and report are the published train, val and test.

    Attributes:
        root: the folder that holds train, trainannot, train.txt and so on.
        train_list, tune_list, report_list: names of lists in the root, without .txt. A line is the
            path of a frame and the path of its mask, of which the last folder and the name count:
            the lists of the SegNet tutorial hold paths of its authors' machine. Frames may be .png
            or .jpg, whatever the list says.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist.
    """

    root: Path = Path("CamVid")
    train_list: str = "train"
    tune_list: str = "val"
    report_list: str = "test"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_scored(self.scored, CLASSES)


class CamVid(PairedDataset[CamVidConfig]):
    """Frames of drives through Cambridge with grey masks of ids."""

    @staticmethod
    def layout(config: CamVidConfig, split: Split) -> Layout:
        """The frames that the list of a split names.

        Raises:
            FileNotFoundError: the root or the list is absent.
            PermissionError: it may not be read.
            ValueError: a line of the list is not two paths.
        """
        require_folders(
            config.root,
            (),
            "CamVid in the layout of SegNet, with train, trainannot, train.txt, val, valannot, "
            "val.txt, test, testannot, test.txt directly below it; pass it as --data.root "
            ".../CamVid",
        )
        chosen = {
            "train": config.train_list,
            "tune": config.tune_list,
            "report": config.report_list,
        }[split]
        path = config.root / f"{chosen}.txt"
        frames: dict[str, dict[str, str]] = {}
        pairs = []
        for line in read_lines(path, f"--data.{split}-list"):
            words = [PurePosixPath(word.rstrip(";")) for word in line.split()]
            if len(words) != 2 or any(not word.parent.name for word in words):
                raise ValueError(
                    f"{path}: the line {line!r} is not two paths, of a frame and of its mask, each "
                    "with its folder"
                )
            image, mask = words
            folder = image.parent.name
            if folder not in frames:
                frames[folder] = by_stem(config.root / folder, (".jpg", ".png"))
            name = frames[folder].get(image.stem, image.name)
            pairs.append(
                Pair(
                    name=image.stem,
                    image=config.root / folder / name,
                    mask=config.root / mask.parent.name / mask.name,
                )
            )
        published = {"SegNet": PUBLISHED[chosen]} if chosen in PUBLISHED else {}
        return Layout(
            pairs=tuple(pairs),
            source=f"the list {path}",
            classes=CLASSES,
            scored=scored_ids(config.scored, CLASSES),
            table=TABLE,
            published=published,
            palette=palette_of(COLOURS),
        )
