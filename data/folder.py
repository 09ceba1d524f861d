"""Your own images and masks: images/, masks/ and classes.json in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data.dataset import VOID, LabelSet, Split, label_set_of, voc_palette
from data.paired import Layout, RootedConfig, Table, label_table, paired
from data.reading import (
    IMAGE_ENDINGS,
    by_stem,
    file_names,
    read_lines,
    read_text,
    require_folders,
    shortened,
)

_LISTS = ("train.txt", "tune.txt", "report.txt")
_EXAMPLE = '{"names": ["ground", "tree"], "void": 255}'


@dataclass(frozen=True)
class FolderConfig(RootedConfig):
    """Say where the data lies and, without lists, how it is split.

    The folder holds

    - images/NAME.jpg (or .png, .bmp, .tif, .webp),
    - masks/NAME.png, index images (mode P or L) whose values are class ids, drawn over the
      photographs as a viewer shows them (turned as their EXIF data say),
    - classes.json: `{"names": ["ground", "tree"], "void": 255, "colours": [[0, 0, 0], [0, 128, 0]],
      "scored": ["tree"]}`, of which only the names are required; `"ids": [0, 255]` says what the
      masks store for each class, where that is not 0, 1, ...,
    - either all of train.txt, tune.txt and report.txt, a NAME a line, or none of them: then a hash
      of the NAME decides, so that an image stays in its split when others are added.

    Weak labels need nothing else. A mask that is void (255) but at points, clicks or scribbles is a
    mask: give such masks to the images of train.txt, and whole ones to those of tune.txt and
    report.txt. Losses and scores look at labelled pixels alone.

    Attributes:
        root: that folder.
        tune_share, report_share: parts of the images that a hash puts into tune and report, 0..1.

    Raises:
        ValueError: the shares leave nothing to train on.
    """

    kind: ClassVar[str] = "folder"

    root: Path = Path("my_data")
    tune_share: float = 0.15
    report_share: float = 0.15

    def __post_init__(self) -> None:
        shares = (self.tune_share, self.report_share)
        if not (min(shares) > 0 and sum(shares) < 1):
            raise ValueError(
                "tune_share and report_share must be above 0 and sum to less than 1, got "
                f"{self.tune_share} and {self.report_share}"
            )

    def label_set(self) -> LabelSet:
        """Read the names, colours and scored ids of classes.json."""
        return read_classes(self.root / "classes.json")[0]

    def mask_palette(self) -> NDArray[np.uint8] | None:
        """Return the colours of classes.json; None where it has none."""
        palette = self.label_set().palette
        return None if np.array_equal(palette, voc_palette()) else palette

    def layout(self, split: Split) -> Layout:
        """Find the images of a split, in the order of its list or sorted.

        Raises:
            FileNotFoundError: the root, images, masks, classes.json, or one of the lists is absent.
            PermissionError: it may not be read.
            ValueError: classes.json is malformed, names are ambiguous, or the split is empty.
        """
        root = self.root
        require_folders(
            root,
            ("images", "masks"),
            "a folder with images, masks and classes.json directly below it; pass it as "
            "--data.root DIR",
        )
        images, masks = root / "images", root / "masks"
        _check_stems(images)
        present = [name for name in _LISTS if name in file_names(root)]
        if present and len(present) < len(_LISTS):
            raise FileNotFoundError(
                f"{root} holds {', '.join(present)} but not all of {', '.join(_LISTS)}: add the "
                "others, or remove these to split by a hash of the names"
            )
        path = root / f"{split}.txt"
        if present:
            pairs = paired(images, masks, read_lines(path, "images/ and masks/"), path)
        else:
            every = paired(images, masks, None, path)
            pairs = tuple(pair for pair in every if self._split_of(pair.name) == split)
            _check_hashed(root, {pair.name for pair in every})
            if not pairs:
                raise ValueError(
                    f"none of the {len(every)} images falls into {split}: write train.txt, "
                    "tune.txt and report.txt, or raise the shares"
                )
        return Layout(
            pairs=pairs,
            source=f"the list {path}" if present else f"the folder {images}",
            table=read_classes(root / "classes.json")[1],
        )

    def _split_of(self, name: str) -> Split:
        """Decide by a place in 0..1 that depends on the name alone."""
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        if place < self.tune_share:
            return "tune"
        return "report" if place < self.tune_share + self.report_share else "train"


def _check_stems(folder: Path) -> None:
    files: dict[str, str] = {}
    for name in sorted(file_names(folder)):
        stem, ending = Path(name).stem, Path(name).suffix.lower()
        if ending in IMAGE_ENDINGS and files.setdefault(stem, name) != name:
            raise ValueError(
                f"{folder} holds {files[stem]} and {name}, which would share the mask "
                f"{stem}.png: rename or remove one"
            )
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no image: expected files that end in {', '.join(IMAGE_ENDINGS)}"
        )


def _check_hashed(root: Path, images: Container[str]) -> None:
    alone = [name for name in by_stem(root / "masks", (".png",)) if name not in images]
    if alone:
        raise ValueError(
            f"{root / 'masks'} holds masks without an image in {root / 'images'}: "
            f"{shortened(alone)}; add the images or remove the masks"
        )


def read_classes(path: Path) -> tuple[LabelSet, Table]:
    """Read and check classes.json: a list of names, or an object with more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed; the message says where and what is expected.
    """
    try:
        values = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {path}; expected {_EXAMPLE}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected {_EXAMPLE}") from error
    try:
        return _checked({"names": values} if isinstance(values, list) else values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(values: Any) -> tuple[LabelSet, Table]:
    known = ("names", "void", "colours", "scored", "ids")
    if not isinstance(values, dict) or "names" not in values:
        raise ValueError(f"expected an object with names, such as {_EXAMPLE}")
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; expected some of {', '.join(known)}")
    names = _strings("names", values["names"])
    if not names or len(set(names)) != len(names):
        raise ValueError(f"names must be at least one and distinct, got {names}")
    if len(names) > VOID:
        raise ValueError(f"names must be at most {VOID}, got {len(names)}")
    ids = values.get("ids", list(range(len(names))))
    whole = isinstance(ids, list) and all(map(_is_byte, ids)) and len(set(ids)) == len(names)
    if not whole or len(ids) != len(names):
        raise ValueError(f"ids must be {len(names)} different ids of 0..255, got {ids!r}")
    void = values.get("void", None if VOID in ids else VOID)
    if void is not None and (not _is_byte(void) or void in ids):
        raise ValueError(f"void must be an id of 0..255 that is none of the classes, got {void!r}")
    colours = values.get("colours", [])
    whole = isinstance(colours, list) and len(colours) in (0, len(names))
    if not whole or not all(
        isinstance(colour, list) and len(colour) == 3 and all(map(_is_byte, colour))
        for colour in colours
    ):
        raise ValueError(
            f"colours must be {len(names)} times [red, green, blue] of 0..255, got {colours!r}"
        )
    labels = label_set_of(names, _strings("scored", values.get("scored", [])), colours)
    return labels, label_table(
        {stored: label for label, stored in enumerate(ids)}, void=() if void is None else (void,)
    )


def _strings(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{field} must be a list of names, got {value!r}")
    return value


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
