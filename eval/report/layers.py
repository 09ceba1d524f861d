"""What a gallery card is made of: small pictures, and where two predictions differ most."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.dataset import VOID
from eval.prediction_files import Ids, Picture

OUTLINE = (255, 255, 255)


@dataclass(frozen=True)
class Window:
    """A square part of an image, pixels."""

    top: int
    left: int
    side: int


def label_picture(ids: Ids, palette: Picture) -> str:
    """The labels in their colours as a palette PNG; void and black are clear.

    Black is the usual colour of a background, and would only darken the image.

    Args:
        ids: (H, W) label ids, 255 = void.
        palette: (256, 3) uint8 RGB.
    """
    present = np.unique(ids)
    index = np.searchsorted(present, ids).astype(np.uint8)
    colours = palette[present]
    clear = (present == VOID) | ~colours.any(axis=1)
    return _png(index, colours, np.where(clear, 0, 255))


def outline_picture(ids: Ids) -> str:
    """Where the neighbour to the right or below has another label: one pixel wide, white."""
    outline = np.zeros(ids.shape, dtype=np.uint8)
    outline[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    outline[:-1] |= ids[:-1] != ids[1:]
    return _png(outline, np.array([OUTLINE, OUTLINE], np.uint8), np.array([0, 255]))


def wrong_picture(ids: Ids, truth: Ids) -> str:
    """The pixels that are not as the truth says, without void: a stencil for any colour."""
    wrong = ((ids != truth) & (truth != VOID)).astype(np.uint8)
    return _png(wrong, np.zeros((2, 3), np.uint8), np.array([0, 255]))


def photograph(picture: Picture, quality: int = 80) -> str:
    """An (H, W, 3) picture as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    return _data_uri("webp", buffer)


def most_different(truth: Ids, first: Ids | None, second: Ids | None) -> Window:
    """The square, a quarter of the image's short side, where two predictions differ in most pixels.

    Void pixels do not count. Without a difference, or without both predictions, it is the centre.
    """
    height, width = truth.shape
    side = min(height, width, max(24, min(height, width) // 4))
    if first is None or second is None:
        return Window((height - side) // 2, (width - side) // 2, side)
    differs = (first != second) & (truth != VOID)
    if not differs.any():
        return Window((height - side) // 2, (width - side) // 2, side)
    # Sums over all squares at once, from the sums over all rectangles that start at the corner.
    corner = np.pad(differs.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = corner[side:, side:] - corner[:-side, side:] - corner[side:, :-side]
    sums = sums + corner[:-side, :-side]
    # Of the equally full squares the middle one: it shows most around the difference.
    rows, columns = np.nonzero(sums == sums.max())
    middle = len(rows) // 2
    return Window(int(rows[middle]), int(columns[middle]), side)


def _png(index: Picture, colours: Picture, alpha: npt.NDArray[np.integer]) -> str:
    """A palette PNG as a data URI: (H, W) places in (K, 3) colours with (K,) opacities."""
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=bytes(alpha.astype(np.uint8)))
    return _data_uri("png", buffer)


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
