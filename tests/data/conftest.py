from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.palette import voc_palette


class TinyVoc:
    """A VOC layout of a few small images, to be damaged by tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)

    def add(self, name: str, mask: np.ndarray) -> None:
        rng = np.random.default_rng(len(name))
        image = rng.integers(0, 256, size=(*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(image).save(self.image(name))
        palette = Image.fromarray(mask.astype(np.uint8)).convert("P")
        # convert("P") of a grey image keeps its values as indices.
        palette.putpalette(voc_palette().tobytes())
        palette.save(self.mask(name))

    def image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def write_list(self, name: str, *lines: str) -> None:
        path = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


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
