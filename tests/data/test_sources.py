from __future__ import annotations

import sys
from typing import get_args

import numpy as np
import pytest

from data.collage import sources
from data.collage.sources import CLASSES, SOURCES
from data.dataset import Split

SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.mark.parametrize("split", SPLITS)
def test_shape(split):
    patches = sources.read_patches(split)
    assert len(patches) == len(CLASSES) >= 8
    for of_class in patches:
        assert of_class
        for patch in of_class:
            assert patch.pixels.dtype == np.float32
            # Smaller ones would show their mirror images in every scene.
            assert min(patch.pixels.shape[:2]) >= 60
            assert 0 <= patch.pixels.min() <= patch.pixels.max() <= 255


def test_a_picture_that_is_not_shipped_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"absent\.png.*scikit-image >= 0\.22"):
        sources.read_picture("absent.png")


def test_block_means_by_hand():
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    means = sources.shrink(pixels, 2)
    assert means.shape == (1, 2, 3)
    assert means[0, 0].tolist() == [9, 10, 11]  # (0 + 3 + 15 + 18) / 4 and so on


def test_no_pixel_is_seen_by_two_splits():
    pictures = {source.file for source in SOURCES}
    for file in pictures:
        height, width = sources.read_picture(file).shape[:2]
        seen_by = np.zeros((height, width), dtype=np.int64)
        for split in SPLITS:
            mine = np.zeros((height, width), dtype=np.bool_)
            for source in SOURCES:
                if source.file == file:
                    for top, left, bottom, right in source.boxes(split):
                        assert 0 <= top < bottom <= height
                        assert 0 <= left < right <= width
                        mine[top:bottom, left:right] = True
            assert mine.any()
            seen_by += mine
        assert seen_by.max() == 1, file


def test_patches_depend_on_the_boxes_of_their_split_only(monkeypatch):
    """The same as above by experiment: destroy the boxes of other splits, nothing changes."""
    before = sources.read_patches("tune")
    read = sources.read_picture

    def damaged(file):
        picture = read(file).copy()
        keep = np.zeros(picture.shape[:2], dtype=np.bool_)
        for source in SOURCES:
            if source.file == file:
                for top, left, bottom, right in source.boxes("tune"):
                    keep[top:bottom, left:right] = True
        picture[~keep] = 77
        return picture

    monkeypatch.setattr(sources, "read_picture", damaged)
    after = sources.read_patches("tune")
    for old, new in zip(before, after, strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)


def test_nothing_can_be_downloaded(monkeypatch):
    """pooch is what scikit-image downloads with: forbidding it leaves the collage whole."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    sources.read_picture.cache_clear()
    assert all(sources.read_patches("train"))
