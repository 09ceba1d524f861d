"""Where the pixels of a collage come from: the pictures inside the scikit-image package.

Only files that the wheel carries are named (the same ones since 0.22 at least); nothing is
downloaded. Every picture is cut into boxes, and a box belongs to one split, so no pixel of a
picture is ever seen by two splits. The docstrings of `skimage.data` give the origin and the licence
of every picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.dataset import Split

Box = tuple[int, int, int, int]
"""top, left, bottom, right, in pixels of the file; bottom and right are excluded."""

CLASSES = (
    "background",
    "brick",
    "grass",
    "gravel",
    "cat",
    "retina",
    "stars",
    "tissue",
    "page",
)


@dataclass(frozen=True)
class Source:
    """One picture of one class.

    Attributes:
        label: the name of the class, one of `CLASSES`.
        file: its name in the package's folder `skimage/data`.
        shrink: the picture is reduced by this whole factor (block means) before it is used.
        tint: per-channel factor, RGB. Several textures are photographs without colour; a factor
            colours them like their material and leaves their structure alone.
        train, tune, report: the boxes of each split.
    """

    label: str
    file: str
    shrink: int
    tint: tuple[float, float, float]
    train: tuple[Box, ...]
    tune: tuple[Box, ...]
    report: tuple[Box, ...]

    def boxes(self, split: Split) -> tuple[Box, ...]:
        """The boxes from which a split may take pixels."""
        return {"train": self.train, "tune": self.tune, "report": self.report}[split]


def _texture(label: str, file: str, tint: tuple[float, float, float]) -> Source:
    """A homogeneous 512 x 512 texture: the left half trains, the right quarters tune and report."""
    left, upper, lower = (0, 0, 512, 256), (0, 256, 256, 512), (256, 256, 512, 512)
    return Source(label, file, 2, tint, (left,), (upper,), (lower,))


PLAIN = (1.0, 1.0, 1.0)

SOURCES = (
    _texture("background", "moon.png", PLAIN),
    Source(  # the evening sky between the towers
        "background",
        "rocket.jpg",
        1,
        PLAIN,
        train=((0, 90, 180, 305),),
        tune=((0, 355, 130, 440),),
        report=((0, 465, 130, 560),),
    ),
    _texture("brick", "brick.png", (1.45, 0.78, 0.62)),
    _texture("grass", "grass.png", (0.85, 1.1, 0.5)),
    _texture("gravel", "gravel.png", (0.85, 0.98, 1.2)),
    Source(
        "cat",
        "chelsea.png",
        1,
        PLAIN,
        train=((0, 60, 150, 350),),
        tune=((160, 0, 300, 120),),
        report=((160, 140, 290, 270),),
    ),
    Source(
        "retina",
        "retina.jpg",
        4,
        PLAIN,
        train=((250, 250, 1150, 700),),
        tune=((250, 710, 690, 1150),),
        report=((710, 710, 1150, 1150),),
    ),
    Source(
        "stars",
        "hubble_deep_field.jpg",
        2,
        PLAIN,
        train=((0, 0, 872, 500),),
        tune=((0, 500, 436, 1000),),
        report=((436, 500, 872, 1000),),
    ),
    Source(  # the stained glands, without the white tissue between them
        "tissue",
        "ihc.png",
        2,
        PLAIN,
        train=((0, 0, 250, 256), (330, 20, 512, 150)),
        tune=((10, 300, 230, 440),),
        report=((315, 260, 475, 380),),
    ),
    Source(
        "page",
        "page.png",
        1,
        (1.1, 1.1, 1.05),
        train=((0, 0, 191, 190),),
        tune=((0, 192, 95, 384),),
        report=((96, 192, 191, 384),),
    ),
)


@dataclass(frozen=True)
class Patch:
    """The pixels of one box, reduced and tinted.

    Attributes:
        pixels: (h, w, 3) float32, RGB in 0..255.
        mean: (3,) float32, its mean colour.
    """

    pixels: NDArray[np.float32]
    mean: NDArray[np.float32]


@cache
def read_picture(file: str) -> NDArray[np.uint8]:
    """Read a picture that scikit-image ships: (H, W, 3) uint8 RGB (grey ones get three channels).

    Raises:
        FileNotFoundError: the installed scikit-image does not carry the file.
    """
    path = files("skimage") / "data" / file
    if not path.is_file():
        raise FileNotFoundError(
            f"scikit-image should carry the picture {path}, which is absent. The collage uses only "
            "pictures inside the wheel: install an unmodified scikit-image >= 0.22."
        )
    with path.open("rb") as stream, Image.open(stream) as picture:
        return np.asarray(picture.convert("RGB"))


def shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Reduce (H, W, 3) by a whole factor: means of factor x factor blocks, the rest cut off."""
    height, width = (n // factor * factor for n in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(
        height // factor, factor, width // factor, factor, pixels.shape[2]
    )
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means


def read_patches(split: Split) -> tuple[tuple[Patch, ...], ...]:
    """All patches of a split.

    Returns:
        One tuple per class, in the order of `CLASSES`; none is empty.
    """
    patches: dict[str, list[Patch]] = {label: [] for label in CLASSES}
    for source in SOURCES:
        picture = read_picture(source.file)
        for top, left, bottom, right in source.boxes(split):
            # Cut first, reduce after: a block mean must not reach across the border of its box.
            pixels = shrink(picture[top:bottom, left:right], source.shrink)
            tinted = np.minimum(pixels * np.array(source.tint, dtype=np.float32), np.float32(255))
            patches[source.label].append(Patch(tinted, tinted.mean(axis=(0, 1))))
    return tuple(tuple(patches[label]) for label in CLASSES)
