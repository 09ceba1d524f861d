"""Reading the folder layout of PASCAL VOC 2012 (segmentation), with any list of images."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.dataset import SegmentationDataset, Split, check_split
from data.palette import voc_palette
from data.sample import VOID, Sample

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


@dataclass(frozen=True)
class VocConfig:
    """Where a data set in the VOC layout lies and how it is split.

    Attributes:
        root: the folder that holds JPEGImages, SegmentationClass and ImageSets/Segmentation.
        train_list, tune_list, report_list: names of lists in ImageSets/Segmentation, without .txt.
        scored: names of the classes whose IoU is averaged; empty for all.

    Raises:
        ValueError: a scored class does not exist; the message suggests the nearest name.
    """

    root: Path = Path("VOCdevkit/VOC2012")
    train_list: str = "train"
    tune_list: str = "tune"
    report_list: str = "report"
    scored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.scored:
            if name not in CLASSES:
                near = get_close_matches(name, CLASSES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected some of {CLASSES}"
                raise ValueError(f"scored: there is no class {name!r}; {hint}")
        if len(set(self.scored)) != len(self.scored):
            raise ValueError(f"scored names a class twice: {self.scored}")


class Voc(SegmentationDataset):
    """Photographs (JPEG) with palette masks (PNG): the index is the class id, 255 is void.

    Construction checks that every file of the list exists, so that nothing is missed in the middle
    of a run; sizes and ids are checked as each mask is read.

    Args:
        config: the folder and the lists.
        split: "train", "tune" or "report".

    Raises:
        FileNotFoundError: the root, the list, or an image or mask of the list is absent.
        ValueError: the list is empty or names an image twice.
    """

    def __init__(self, config: VocConfig, split: Split) -> None:
        check_split(split)
        self.config = config
        self.split = split
        self.classes = CLASSES
        self.scored = tuple(sorted(CLASSES.index(name) for name in config.scored or CLASSES))
        self.palette = voc_palette()
        self.has_void = True
        _check_root(config.root)
        lists = {
            "train": config.train_list,
            "tune": config.tune_list,
            "report": config.report_list,
        }
        self.names = _read_list(config.root, lists[split], option=f"--data.{split}-list")
        for name in self.names:
            for path in (self.image_path(name), self.mask_path(name)):
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} does not exist, but the list {lists[split]!r} names {name!r}; "
                        "complete the folder or remove the line from the list"
                    )

    def image_path(self, name: str) -> Path:
        """The photograph of a sample."""
        return self.config.root / "JPEGImages" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        """The mask of a sample."""
        return self.config.root / "SegmentationClass" / f"{name}.png"

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its mask.

        Raises:
            IndexError: there is no such sample.
            ValueError: the mask is not an index image, has another size than its image, or holds an
                id that is neither a class nor void; the message names the file.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in split {self.split!r}")
        name = self.names[index]
        with Image.open(self.image_path(name)) as picture:
            image = np.array(picture.convert("RGB"))
        mask = _read_mask(self.mask_path(name))
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{self.mask_path(name)} is {mask.shape[0]} x {mask.shape[1]} (H x W), its image "
                f"{self.image_path(name)} is {image.shape[0]} x {image.shape[1]}; "
                "they must be equal"
            )
        return Sample(
            name=name,
            image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            mask=torch.from_numpy(mask),
        )

    def __repr__(self) -> str:
        return f"Voc(split={self.split!r}, images={len(self)}, {self.config})"


def _check_root(root: Path) -> None:
    below = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    missing = [name for name in below if not (root / name).is_dir()]
    if missing:
        found = "lacks " + ", ".join(missing) if root.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"the data root {root} {found}. Expected a folder in the VOC 2012 layout, with "
            f"{', '.join(below)} directly below it; pass it as "
            "--data.root .../VOCdevkit/VOC2012"
        )


def _read_list(root: Path, name: str, option: str) -> tuple[str, ...]:
    folder = root / "ImageSets" / "Segmentation"
    path = folder / f"{name}.txt"
    if not path.is_file():
        present = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(f"there is no list {path}; lists there: {present}; see {option}")
    names = tuple(path.read_text(encoding="utf-8").split())
    if not names:
        raise ValueError(f"the list {path} is empty; expected one image name a line")
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"the list {path} names an image twice: {', '.join(twice)}")
    return names


def _read_mask(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(path) as picture:
        # Converting a palette image to RGB and back loses the ids, so other modes are refused.
        if picture.mode not in ("P", "L"):
            raise ValueError(
                f"{path} has mode {picture.mode}; expected an index image (mode P, or L) whose "
                "pixel values are class ids, as SegmentationClass of VOC holds"
            )
        mask = np.array(picture, dtype=np.int64)
    wrong = sorted(set(np.unique(mask).tolist()) - set(range(len(CLASSES))) - {VOID})
    if wrong:
        raise ValueError(
            f"{path} holds the label ids {wrong}; expected 0..{len(CLASSES) - 1} or {VOID} (void)"
        )
    return mask
