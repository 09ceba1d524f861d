"""Reading anyone's own data: images/, masks/ and classes.json in one folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data.dataset import Split
from data.folder_classes import FolderClasses, read_classes
from data.labels import Table, label_table, scored_ids
from data.listing import file_names, read_lines, require_folders, require_names, shortened
from data.paired import Layout, Pair, PairedDataset
from data.palette import palette_of

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
