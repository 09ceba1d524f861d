"""The folder layout of PASCAL VOC 2012 (segmentation) and SBD, with any list of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data.dataset import LabelSet, Split, label_set_of, voc_palette
from data.paired import Layout, ListedConfig, Pair, label_table
from data.reading import by_stem, name_in, require_folders, two_paths

# Ids 0..20 (Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010).
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

ANIMALS = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""The classes with enough pixels in the animal subset; their mean IoU is called mIoU-7."""

TABLE = label_table(len(CLASSES))
"""Masks hold class ids and 255, in VOC and in SBD."""

PUBLISHED = {
    "train": {"VOC 2012": 1464, "the animal subset": 439, "our copy of the animal subset": 437},
    "val": {"VOC 2012": 1449, "the animal subset": 445},
    "trainval": {"VOC 2012": 2913},
    "train_aug": {"VOC 2012 with SBD": 10582},
    "trainaug": {"VOC 2012 with SBD": 10582},
    "tune": {"the animal subset": 217},
    "report": {"the animal subset": 228},
    "animals_train": {"the animal subset": 439, "our copy of the animal subset": 437},
    "animals_tune": {"the animal subset": 217},
    "animals_report": {"the animal subset": 228},
    "seg11valid": {"VOC 2011, without SBD's train": 736},
}
"""How many images the known lists name; other lists may have any number."""


@dataclass(frozen=True)
class VocConfig(ListedConfig):
    """Say where a data set in the VOC layout lies and how it is split.

    The images are JPEGs and the masks palette PNGs: the index is the class id, 255 is void. The
    defaults are the lists of a copy that holds the animal subset alone; beside all of VOC they
    are animals_train, animals_tune and animals_report (`python -m data prepare voc-animals`). The
    published training with SBD is `train_list="train_aug"` (10,582 images) with `tune_list="val"`
    and `report_list="val"` (1,449): VOC publishes no third split with labels, so whoever tunes on
    val also reports on it, as the papers do.

    An image that has no mask in SegmentationClass is looked for in `extra_masks`, then in `sbd`:
    the mask of VOC wins where both exist, because it keeps the void border of every object.

    Attributes:
        root: the folder that holds JPEGImages, SegmentationClass and ImageSets/Segmentation.
        train_list, tune_list, report_list: names of lists in ImageSets/Segmentation, without .txt,
            or of lists elsewhere in ImageSets with their folder (`SegmentationAug/train_aug`). A
            line is a name, or the paths of an image and a mask below the root.
        extra_masks: a further folder of masks below the root, such as SegmentationClassAug.
        sbd: the folder of SBD that holds cls (*.mat) and img: benchmark_RELEASE/dataset.
    """

    kind: ClassVar[str] = "voc"
    has_void: ClassVar[bool] = True

    root: Path = Path("VOCdevkit/VOC2012")
    tune_list: str = "tune"
    report_list: str = "report"
    extra_masks: str | None = None
    sbd: Path | None = None

    def label_set(self) -> LabelSet:
        """Describe the 21 ids."""
        return label_set_of(CLASSES, self.scored)

    def mask_palette(self) -> NDArray[np.uint8]:
        """Return the colours of the development kit."""
        return voc_palette()

    def list_of(self, split: Split) -> Path:
        """Return the file that lists the images of a split."""
        return list_path(self.root, getattr(self, f"{split}_list"))

    def masks_of(self, split: Split) -> list[Path]:
        """Return the folders in which the mask of an image is looked for, in order."""
        folders = [self.root / "SegmentationClass"]
        if self.extra_masks is not None:
            folders.append(self.root / self.extra_masks)
        if self.sbd is not None:
            folders.append(self.sbd / "cls")
        return folders

    def layout(self, split: Split) -> Layout:
        """Find the images that the list of a split names."""
        extra = () if self.extra_masks is None else (self.extra_masks,)
        require_folders(
            self.root,
            ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", *extra),
            "a folder in the VOC 2012 layout, with JPEGImages, SegmentationClass, "
            "ImageSets/Segmentation directly below it; pass it as --data.root "
            ".../VOCdevkit/VOC2012"
            + (
                "; and the folder of --data.extra-masks: `python -m data prepare voc-trainaug "
                "--masks` makes SegmentationClassAug, and --data.extra-masks None --data.sbd "
                ".../dataset does without"
                if extra
                else ""
            ),
        )
        if self.sbd is not None:
            require_folders(
                self.sbd,
                ("cls",),
                "the folder of SBD with cls/*.mat; pass it as --data.sbd "
                ".../benchmark_RELEASE/dataset",
            )
        # In the order in which they are tried.
        images = [self.root / "JPEGImages", *([] if self.sbd is None else [self.sbd / "img"])]
        masks = self.masks_of(split)
        files = {folder: by_stem(folder, (".png", ".mat")) for folder in masks}
        files |= {folder: by_stem(folder) for folder in images}
        stems = {stem for folder in images for stem in files[folder]}

        def first(folders: list[Path], name: str, otherwise: Path) -> Path:
            places = (f / files[f][name] for f in folders if name in files[f])
            return next(places, otherwise)

        def pair(line: str) -> Pair:
            if paths := two_paths(line):
                # "/JPEGImages/x.jpg /SegmentationClassAug/x.png": below the root, in spite of the /
                image, mask = (self.root / str(path).lstrip("/") for path in paths)
                return Pair(image.stem, image, first(masks[:1], mask.stem, mask))
            name = name_in(line, stems)
            if name is None:
                raise ValueError(
                    f"{path}: the line {line!r} is neither the name of an image nor two paths "
                    "below the root, of an image and its mask"
                )
            return Pair(
                name,
                first(images, name, images[0] / f"{name}.jpg"),
                first(masks, name, masks[0] / f"{name}.png"),
            )

        path = self.list_of(split)
        return Layout(
            pairs=tuple(pair(line) for line in self.lines_of(split)),
            source=f"the list {path}",
            table=TABLE,
            published=PUBLISHED.get(path.stem, {}),
        )


@dataclass(frozen=True)
class VocClicksConfig(VocConfig):
    """VOC with weak labels: train reads masks that are void but at clicks or scribbles.

    tune and report keep their whole masks.

    Attributes:
        train_masks: the folder of the masks of train, below the root; `python -m data prepare
            voc-clicks` makes SegmentationClassClicks. Scribbles are masks of the same kind.
    """

    kind: ClassVar[str] = "voc-clicks"

    train_masks: str = "SegmentationClassClicks"

    def masks_of(self, split: Split) -> list[Path]:
        """Return the folder of weak masks for train, those of VOC for tune and report."""
        if split != "train":
            return super().masks_of(split)
        require_folders(
            self.root,
            (self.train_masks,),
            "the masks of train that `python -m data prepare voc-clicks` makes, or others; pass "
            "their folder below the root as --data.train-masks",
        )
        return [self.root / self.train_masks]


def list_path(root: Path, name: str) -> Path:
    """Return the file of a list, in ImageSets if its name has a folder, else in Segmentation."""
    folder = root / "ImageSets" if "/" in name else root / "ImageSets" / "Segmentation"
    return folder / f"{name}.txt"
