"""Reading the folder layout of PASCAL VOC 2012 (segmentation) and SBD, with any list of images."""

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
    scored_ids,
)

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Ids 0..20 (Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010)."""

ANIMALS = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""The classes with enough pixels in the animal subset; their mean IoU is called mIoU-7."""

TABLE = label_table({label: label for label in range(len(CLASSES))})
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


MORE_MASKS = (
    "; and the folder of --data.extra-masks: `python -m data prepare voc-trainaug --masks` makes "
    "SegmentationClassAug, and --data.extra-masks None --data.sbd .../dataset does without"
)


@dataclass(frozen=True)
class VocConfig:
    """Where a data set in the VOC layout lies and how it is split.

    The defaults are the lists of a copy that holds the animal subset alone; beside all of VOC they
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
        scored: names of the classes whose IoU is averaged; empty for all.
        extra_masks: a further folder of masks below the root, such as SegmentationClassAug.
        sbd: the folder of SBD that holds cls (*.mat) and img: benchmark_RELEASE/dataset.

    Raises:
        ValueError: a scored class does not exist; the message suggests the nearest name.
    """

    root: Path = Path("VOCdevkit/VOC2012")
    train_list: str = "train"
    tune_list: str = "tune"
    report_list: str = "report"
    scored: tuple[str, ...] = ()
    extra_masks: str | None = None
    sbd: Path | None = None

    def __post_init__(self) -> None:
        check_scored(self.scored, CLASSES)


class Voc(PairedDataset[VocConfig]):
    """Photographs (JPEG) with palette masks (PNG): the index is the class id, 255 is void."""

    @staticmethod
    def layout(config: VocConfig, split: Split) -> Layout:
        """The images that the list of a split names.

        Raises:
            FileNotFoundError: the root, a folder of it, SBD, or the list is absent.
            PermissionError: it may not be read.
            ValueError: a line of the list is neither a name nor two paths.
        """
        extra = () if config.extra_masks is None else (config.extra_masks,)
        require_folders(
            config.root,
            ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", *extra),
            "a folder in the VOC 2012 layout, with JPEGImages, SegmentationClass, "
            "ImageSets/Segmentation directly below it; pass it as --data.root "
            ".../VOCdevkit/VOC2012" + (MORE_MASKS if extra else ""),
        )
        if config.sbd is not None:
            require_folders(
                config.sbd,
                ("cls",),
                "the folder of SBD with cls/*.mat; pass it as --data.sbd "
                ".../benchmark_RELEASE/dataset",
            )
        chosen = {
            "train": config.train_list,
            "tune": config.tune_list,
            "report": config.report_list,
        }[split]
        path = list_path(config.root, chosen)
        lines = read_lines(path, f"--data.{split}-list")
        files = _Files(config)
        return Layout(
            pairs=tuple(files.pair(line, path) for line in lines),
            source=f"the list {path}",
            classes=CLASSES,
            scored=scored_ids(config.scored, CLASSES),
            table=TABLE,
            has_void=True,
            published=PUBLISHED.get(Path(chosen).name, {}),
        )


def list_path(root: Path, name: str) -> Path:
    """The file of a list, in ImageSets/Segmentation, or in ImageSets if its name has a folder."""
    folder = root / "ImageSets" if "/" in name else root / "ImageSets" / "Segmentation"
    return folder / f"{name}.txt"


class _Files:
    """Where the image and the mask of a name lie, from one listing of every folder."""

    def __init__(self, config: VocConfig) -> None:
        self.root = config.root
        self.official = config.root / "SegmentationClass"
        # In the order in which they are tried.
        self.images = [config.root / "JPEGImages"]
        self.masks = [(self.official, ".png")]
        if config.extra_masks is not None:
            self.masks.append((config.root / config.extra_masks, ".png"))
        if config.sbd is not None:
            self.images.append(config.sbd / "img")
            self.masks.append((config.sbd / "cls", ".mat"))
        folders = [*self.images, *(folder for folder, _ in self.masks)]
        self.present = {folder: file_names(folder) for folder in folders}

    def pair(self, line: str, path: Path) -> Pair:
        """The files that a line of the list `path` means."""
        words = line.split()
        if len(words) == 1 and "/" not in words[0]:
            name = words[0]
            images = [folder / f"{name}.jpg" for folder in self.images]
            masks = [folder / f"{name}{ending}" for folder, ending in self.masks]
            return Pair(name, self._present(images, images[0]), self._present(masks, masks[0]))
        if len(words) == 2 and all("/" in word for word in words):
            # "/JPEGImages/x.jpg /SegmentationClassAug/x.png": below the root, in spite of the /.
            image, mask = (self.root / word.lstrip("/") for word in words)
            return Pair(image.stem, image, self._present([self.official / mask.name], mask))
        raise ValueError(
            f"{path}: the line {line!r} is neither the name of an image nor two paths below the "
            "root, of an image and its mask"
        )

    def _present(self, candidates: list[Path], otherwise: Path) -> Path:
        there = (path for path in candidates if path.name in self.present[path.parent])
        return next(there, otherwise)
