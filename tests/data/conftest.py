from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.layouts import write_folder, write_image, write_lines, write_mask, write_sbd


class TinyVoc:
    """A VOC layout of a few small images, to be damaged by tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)

    def add(self, name: str, mask: np.ndarray) -> None:
        write_image(self.image(name), *mask.shape)
        write_mask(self.mask(name), mask)

    def image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def write_list(self, name: str, *lines: str) -> None:
        write_lines(self.root / "ImageSets" / "Segmentation" / f"{name}.txt", *lines)


@pytest.fixture
def tiny_voc(tmp_path: Path) -> TinyVoc:
    """Two images, `a` of 5 x 7 and `b` of 6 x 4 (H x W), both in the list train; a in tune."""
    tiny = TinyVoc(tmp_path / "VOC2012")
    a = np.zeros((5, 7), dtype=np.uint8)
    a[1:3, 2:5], a[4], a[0, 0] = 8, 20, 255
    tiny.add("a", a)
    tiny.add("b", np.full((6, 4), 15, dtype=np.uint8))
    tiny.write_list("train", "a", "b")
    tiny.write_list("tune", "a")
    return tiny


@pytest.fixture
def tiny_sbd(tmp_path: Path) -> Path:
    """SBD beside `tiny_voc`: a (also of VOC, here all 1) and c (5 x 6, all 2), with its image."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    write_sbd(root / "cls" / "a.mat", np.full((5, 7), 1))
    write_sbd(root / "cls" / "c.mat", np.full((5, 6), 2))
    write_image(root / "img" / "c.jpg", 5, 6)
    write_lines(root / "train.txt", "a", "c")
    write_lines(root / "val.txt", "b")
    return root


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of one's own images."""
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"
