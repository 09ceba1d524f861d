"""Writing tiny copies of public data sets, to be read and damaged by tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data.dataset import voc_palette

NOBODY = 65534


def write_image(path: Path, height: int, width: int) -> None:
    """A photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).save(path)


def write_mask(path: Path, ids: np.ndarray) -> None:
    """An index image in the colours of VOC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # convert("P") of a grey image keeps its values as indices.
    picture = Image.fromarray(ids.astype(np.uint8)).convert("P")
    picture.putpalette(voc_palette().tobytes())
    picture.save(path)


def write_sbd(path: Path, ids: np.ndarray) -> None:
    """A mask as the folder cls of SBD holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": ids.astype(np.uint8), "CategoriesPresent": [1]}})


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut a file off, as an interrupted copy does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def write_pair(image: Path, mask: Path, ids: np.ndarray) -> None:
    """A photograph and its mask, of the size of the ids (H, W)."""
    write_image(image, *ids.shape)
    write_mask(mask, ids)


def write_camvid(root: Path) -> None:
    """Two frames in train, one in val, one in test, 4 x 6, with an 11 in the first corner."""
    frames = {"train": ("f1", "f2"), "val": ("f3",), "test": ("f4",)}
    for split, names in frames.items():
        for k, name in enumerate(names):
            ids = np.full((4, 6), k)
            ids[0, 0], ids[3, 5] = 11, 10
            write_pair(root / split / f"{name}.png", root / f"{split}annot" / f"{name}.png", ids)
        lines = [f"{split}/{name}.png {split}annot/{name}.png" for name in names]
        write_lines(root / f"{split}.txt", *lines)


def write_cityscapes(root: Path) -> None:
    """One image in each of two cities of train and in one of val, 2 x 17: the label ids 0..33."""
    for split, cities in {"train": ("ulm", "aachen"), "val": ("lindau",)}.items():
        for city in cities:
            name = f"{city}_000000_000019"
            write_pair(
                root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
                root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png",
                np.arange(34).reshape(2, 17),
            )


def write_pascal_context(root: Path) -> None:
    """One image in train and one in val, 6 x 10: the ids 0..59."""
    ids = np.arange(60).reshape(6, 10)
    write_voc2010(root, "SegmentationClassContext", "SegmentationContext", ids)


def write_person_part(root: Path) -> None:
    """One image in train and one in val, 1 x 8: the ids 0..6 and void."""
    ids = np.array([[0, 1, 2, 3, 4, 5, 6, 255]])
    write_voc2010(root, "SegmentationPersonPart", "PersonPart", ids)


def write_voc2010(root: Path, masks: str, lists: str, ids: np.ndarray) -> None:
    for split, name in (("train", "2008_000001"), ("val", "2008_000002")):
        write_pair(root / "JPEGImages" / f"{name}.jpg", root / masks / f"{name}.png", ids)
        write_lines(root / "ImageSets" / lists / f"{split}.txt", name)


def write_coco(root: Path) -> None:
    """Two images in train2017 and one in val2017, 13 x 14: the ids 0..180 and 255."""
    names = {"train2017": ("000000000009", "000000000025"), "val2017": ("000000000139",)}
    ids = np.arange(182).reshape(13, 14)
    ids[12, 13] = 255
    for folder, members in names.items():
        for name in members:
            mask = root / "stuffthingmaps" / folder / f"{name}.png"
            write_pair(root / "images" / folder / f"{name}.jpg", mask, ids)


def write_folder(root: Path, count: int = 40) -> None:
    """Images n00, n01, ... of 3 x 4 in two classes, half of them PNG, without lists."""
    for k in range(count):
        ids = np.full((3, 4), k % 2)
        ids[0, k % 4] = 255
        ending = "png" if k % 2 else "JPG"
        write_image(root / "images" / f"n{k:02d}.{ending}", 3, 4)
        write_mask(root / "masks" / f"n{k:02d}.png", ids)
    (root / "classes.json").write_text('["ground", "tree"]', encoding="utf-8")


LAYOUTS = {
    "camvid": write_camvid,
    "cityscapes": write_cityscapes,
    "coco": write_coco,
    "folder": write_folder,
    "pascal-context": write_pascal_context,
    "person-part": write_person_part,
}
