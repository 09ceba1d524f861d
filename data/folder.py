"""Your own images and masks: images/, masks/ and classes.json in one folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data.dataset import VOID, LabelSet, Split, label_set_of
from data.paired import Layout, Pair, RootedConfig, Table, label_table
from data.reading import file_names, read_lines, require_folders, require_names, shortened

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LISTS = ("train.txt", "tune.txt", "report.txt")
_EXAMPLE = '{"names": ["ground", "tree"], "void": 255}'


@dataclass(frozen=True)
class FolderConfig(RootedConfig):
    """Where the data lies and, without lists, how it is split.

    The folder holds

    - images/NAME.jpg (or .png, .bmp, .tif, .webp),
    - masks/NAME.png, index images (mode P or L) whose values are class ids,
    - classes.json: `{"names": ["ground", "tree"], "void": 255, "colours": [[0, 0, 0], [0, 128, 0]],
      "scored": ["tree"]}`, of which only the names are required,
    - either all of train.txt, tune.txt and report.txt, a NAME a line, or none of them: then a hash
      of the NAME decides, so that an image stays in its split when others are added.

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
        _, table = read_classes(root / "classes.json")
        images = _images(root / "images")
        present = [name for name in _LISTS if name in file_names(root)]
        if present and len(present) < len(_LISTS):
            raise FileNotFoundError(
                f"{root} holds {', '.join(present)} but not all of {', '.join(_LISTS)}: add the "
                "others, or remove these to split by a hash of the names"
            )
        if present:
            path = root / f"{split}.txt"
            source = f"the list {path}"
            names = require_names(read_lines(path, "images/ and masks/"), path)
        else:
            source = f"the folder {root / 'images'}"
            names = tuple(name for name in images if self._split_of(name) == split)
            _check_hashed(root, images, names, split)
        return Layout(
            pairs=tuple(
                Pair(
                    name=name,
                    image=root / "images" / images.get(name, f"{name}.jpg"),
                    mask=root / "masks" / f"{name}.png",
                )
                for name in names
            ),
            source=source,
            table=table,
        )

    def _split_of(self, name: str) -> Split:
        """Decide by a place in 0..1 that depends on the name alone."""
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        if place < self.tune_share:
            return "tune"
        return "report" if place < self.tune_share + self.report_share else "train"


def _images(folder: Path) -> dict[str, str]:
    images: dict[str, str] = {}
    for name in sorted(file_names(folder)):
        path = Path(name)
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        if path.stem in images:
            raise ValueError(
                f"{folder} holds {images[path.stem]} and {name}, which would share the mask "
                f"{path.stem}.png: rename or remove one"
            )
        images[path.stem] = name
    if not images:
        raise FileNotFoundError(
            f"{folder} holds no image: expected files that end in {', '.join(IMAGE_ENDINGS)}"
        )
    return images


def _check_hashed(root: Path, images: dict[str, str], names: tuple[str, ...], split: str) -> None:
    stems = {Path(name).stem for name in file_names(root / "masks") if name.endswith(".png")}
    alone = sorted(stems - images.keys())
    if alone:
        raise ValueError(
            f"{root / 'masks'} holds masks without an image in {root / 'images'}: "
            f"{shortened(alone)}; add the images or remove the masks"
        )
    if not names:
        raise ValueError(
            f"none of the {len(images)} images falls into {split}: write train.txt, tune.txt and "
            "report.txt, or raise the shares"
        )


def read_classes(path: Path) -> tuple[LabelSet, Table]:
    """Read and check classes.json: a list of names, or an object with more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed; the message says where and what is expected.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {path}; expected {_EXAMPLE}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected {_EXAMPLE}") from error
    try:
        return _checked({"names": values} if isinstance(values, list) else values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(values: Any) -> tuple[LabelSet, Table]:
    known = ("names", "void", "colours", "scored")
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
    void = values.get("void", VOID)
    if not _is_byte(void) or void < len(names):
        raise ValueError(
            f"void must be an id of {len(names)}..255, beyond those of the classes; got {void!r}"
        )
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
    return labels, label_table(len(names), void=(void,))


def _strings(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{field} must be a list of names, got {value!r}")
    return value


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
