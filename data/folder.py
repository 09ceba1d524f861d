"""Your own images and masks in folders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import VOID, Split, palette_of
from data.reading import (
    Layout,
    Pair,
    PairedDataset,
    Table,
    check_scored,
    file_names,
    label_table,
    read_lines,
    require_folders,
    require_names,
    scored_ids,
    shortened,
)

# The file that names the classes of a user's own data.

_EXAMPLE = '{"names": ["ground", "tree"], "void": 255}'


@dataclass(frozen=True)
class FolderClasses:
    """What classes.json says.

    Attributes:
        names: of the class ids 0, 1, ...
        void: the id of pixels without a label, as the masks store it.
        colours: RGB in 0..255 of every class, or none for those of VOC.
        scored: names of the classes whose IoU is averaged; empty for all.
    """

    names: tuple[str, ...]
    void: int
    colours: tuple[tuple[int, int, int], ...]
    scored: tuple[str, ...]


def read_classes(path: Path) -> FolderClasses:
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


def _checked(values: Any) -> FolderClasses:
    known = ("names", "void", "colours", "scored")
    if not isinstance(values, dict) or "names" not in values:
        raise ValueError(f"expected an object with names, such as {_EXAMPLE}")
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; expected some of {', '.join(known)}")
    names = _strings("names", values["names"])
    if not names or len(set(names)) != len(names):
        raise ValueError(f"names must be at least one and distinct, got {list(names)}")
    if len(names) > VOID:
        raise ValueError(f"names must be at most {VOID}, got {len(names)}")
    void = values.get("void", VOID)
    if not _is_byte(void) or void < len(names):
        raise ValueError(
            f"void must be an id of {len(names)}..255, beyond those of the classes; got {void!r}"
        )
    colours = values.get("colours", [])
    whole = isinstance(colours, list) and len(colours) in (0, len(names))
    if not whole or not all(_is_colour(colour) for colour in colours):
        raise ValueError(
            f"colours must be {len(names)} times [red, green, blue] of 0..255, got {colours!r}"
        )
    scored = _strings("scored", values.get("scored", []))
    check_scored(scored, names)
    return FolderClasses(names, void, tuple((r, g, b) for r, g, b in colours), scored)


def _strings(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{field} must be a list of names, got {value!r}")
    return tuple(value)


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_byte(v) for v in value)


# Reading anyone's own data: images/, masks/ and classes.json in one folder.

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LISTS = ("train.txt", "tune.txt", "report.txt")


@dataclass(frozen=True)
class FolderConfig:
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


class Folder(PairedDataset[FolderConfig]):
    """Images with index masks, under classes that a file names."""

    @staticmethod
    def layout(config: FolderConfig, split: Split) -> Layout:
        """The images of a split, in the order of its list or sorted.

        Raises:
            FileNotFoundError: the root, images, masks, classes.json, or one of the lists is absent.
            PermissionError: it may not be read.
            ValueError: classes.json is malformed, names are ambiguous, or the split is empty.
        """
        root = config.root
        require_folders(
            root,
            ("images", "masks"),
            "a folder with images, masks and classes.json directly below it; pass it as "
            "--data.root DIR",
        )
        classes = read_classes(root / "classes.json")
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
            names = tuple(name for name in images if _split_of(name, config) == split)
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
            classes=classes.names,
            scored=scored_ids(classes.scored, classes.names),
            table=_table(classes),
            palette=palette_of(classes.colours),
        )


def _table(classes: FolderClasses) -> Table:
    return label_table({i: i for i in range(len(classes.names))}, void=(classes.void,))


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


def _split_of(name: str, config: FolderConfig) -> Split:
    """A place in 0..1 that depends on the name alone decides."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if place < config.tune_share:
        return "tune"
    return "report" if place < config.tune_share + config.report_share else "train"
