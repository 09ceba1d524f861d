"""What a card shows: labels, outlines and errors as pictures, and where it is enlarged."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.palette import voc_palette
from eval.report.layers import (
    Window,
    label_picture,
    most_different,
    outline_picture,
    photograph,
    wrong_picture,
)


def opened(uri: str, kind: str = "png") -> Any:
    head, _, body = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def rgba(uri: str) -> Any:
    return np.asarray(opened(uri).convert("RGBA"))


def test_window_covers_the_difference() -> None:
    truth = np.zeros((60, 100), dtype=np.int64)
    first, second = truth.copy(), truth.copy()
    second[40:46, 70:80] = 1
    window = most_different(truth, first, second)
    assert window.side == 24
    assert window.top <= 40
    assert window.top + 24 >= 46
    assert window.left <= 70
    assert window.left + 24 >= 80
    # The difference lies in the middle of it, not in a corner.
    assert abs(window.left + 12 - 75) <= 2


def test_window_ignores_void_and_stays_inside() -> None:
    truth = np.zeros((30, 30), dtype=np.int64)
    truth[:10] = 255
    first, second = np.zeros_like(truth), np.zeros_like(truth)
    second[:10] = 1
    assert most_different(truth, first, second) == Window(3, 3, 24)
    second[29, 29] = 1
    window = most_different(truth, first, second)
    assert window.top + window.side == window.left + window.side == 30


def test_window_without_predictions_is_the_centre() -> None:
    assert most_different(np.zeros((5, 9), dtype=np.int64), None, None) == Window(0, 2, 5)


@pytest.mark.parametrize("void", [0, 7])
def test_labels_have_their_colours_and_void_and_black_are_clear(void: int) -> None:
    palette = voc_palette()
    ids = np.array([[0, 15, 255], [20, 15, 255]])
    ids[:, 2] = 255 if void else 0
    pixels = rgba(label_picture(ids, palette))
    assert pixels[0, 1].tolist() == [*palette[15], 255]
    assert pixels[1, 0].tolist() == [*palette[20], 255]
    assert pixels[0, 0, 3] == pixels[0, 2, 3] == pixels[1, 2, 3] == 0


def test_labels_are_a_palette_picture_of_few_bytes() -> None:
    ids = np.zeros((375, 500), dtype=np.int64)
    ids[100:200, 100:300] = 8
    uri = label_picture(ids, voc_palette())
    assert opened(uri).mode == "P"
    assert len(uri) < 1000


def test_outline_is_where_the_next_pixel_differs() -> None:
    ids = np.array([[0, 0, 1, 1]] * 3)
    assert (rgba(outline_picture(ids))[..., 3] > 0).tolist() == [[False, True, False, False]] * 3


def test_wrong_pixels_leave_void_out() -> None:
    truth = np.array([[1, 1, 255, 0]])
    wrong = wrong_picture(np.array([[1, 0, 0, 1]]), truth)
    assert (rgba(wrong)[..., 3] > 0).tolist() == [[False, True, False, True]]


def test_photograph_holds_the_picture() -> None:
    picture = np.full((7, 5, 3), 200, dtype=np.uint8)
    assert opened(photograph(picture, quality=90), "webp").size == (5, 7)
