"""The embedded data set: the same bits everywhere, splits that share no pixel, and its shapes."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from data import collage
from data.collage import CLASSES, SOURCES, Collage, CollageConfig, read_patches
from data.dataset import Split

SMALL = CollageConfig(num_train=20, num_tune=5, num_report=6)
SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.fixture(scope="module")
def train() -> Collage:
    return Collage(SMALL, "train")


def test_shape(train):
    sample = train[3]
    assert sample.name == "train-00003"
    assert (sample.image.shape, sample.image.dtype) == ((3, 97, 97), torch.uint8)
    assert (sample.mask.shape, sample.mask.dtype) == ((97, 97), torch.int64)
    with pytest.raises(ValueError, match="train, tune, report; got 'val'"):
        Collage(SMALL, "val")  # type: ignore[arg-type]
    for index in (-1, 20):
        with pytest.raises(IndexError, match="of 20"):
            train[index]
    assert [len(set(Collage(SMALL, split).names)) for split in SPLITS] == [20, 5, 6]


@pytest.mark.parametrize("values", [{"size": 15}, {"min_things": 9}, {"noise": float("nan")}])
def test_a_config_that_makes_no_scene_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        CollageConfig(**values)


def test_masks_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for split in SPLITS:
        dataset = Collage(SMALL, split)
        for i in range(5):
            digest.update(dataset[i].mask.numpy().astype(np.uint8).tobytes())
    assert digest.hexdigest() == "7fbd46fa48ea53a344152a452951b4866e678ef08b9519bbdd5810c19333cdf8"


def test_images_are_the_same_on_every_machine(train):
    """Means of a 3 x 3 division of two scenes, rows first, averaged over RGB.

    Rounding and the JPEG decoder change single pixels by a few grey levels and these means of a
    thousand pixels by far less than the 0.5 allowed; any other scene is off by tens.
    """
    expected = [
        [33.2, 76.3, 132.3, 34.3, 60.5, 119.0, 141.6, 128.9, 148.2],
        [67.3, 34.3, 31.3, 64.5, 69.3, 36.5, 65.9, 140.0, 92.6],
    ]
    for i, means in enumerate(expected):
        blocks = train[i].image[:, :96, :96].float().reshape(3, 3, 32, 3, 32)
        found = blocks.mean(dim=(0, 2, 4)).flatten()
        torch.testing.assert_close(found, torch.tensor(means), atol=0.5, rtol=0)


def test_a_scene_is_a_pure_function_of_seed_split_and_index(train):
    state = torch.get_rng_state()
    first = train[7]
    train[2]
    for again in (Collage(CollageConfig(num_train=8), "train"), pickle.loads(pickle.dumps(train))):
        assert torch.equal(first.image, again[7].image)
        assert torch.equal(first.mask, again[7].mask)
    assert torch.equal(torch.get_rng_state(), state)
    scenes = [first, *(Collage(SMALL, split)[1] for split in SPLITS)]
    scenes.append(Collage(CollageConfig(seed=1), "train")[1])
    assert len({scene.mask.numpy().tobytes() for scene in scenes}) == len(scenes)


def boxes(file: str, split: Split) -> Iterator[tuple[slice, slice]]:
    for source in SOURCES:
        for top, left, bottom, right in source.boxes(split) if source.file == file else ():
            yield slice(top, bottom), slice(left, right)


def test_every_class_has_patches_which_nothing_fetches(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)  # with which scikit-image downloads
    collage.read_picture.cache_clear()
    for patches in map(read_patches, SPLITS):
        assert len(patches) == len(CLASSES)
        assert all(patches)
        # smaller ones would show their mirror images
        assert all(min(patch.pixels.shape[:2]) >= 60 for one in patches for patch in one)
    with pytest.raises(FileNotFoundError, match=r"absent\.png.*scikit-image >= 0\.22"):
        collage.read_picture("absent.png")


def test_no_pixel_is_seen_by_two_splits(monkeypatch):
    before, read = read_patches("tune"), collage.read_picture
    for file in {source.file for source in SOURCES}:
        seen_by = np.zeros(read(file).shape[:2], dtype=np.int64)
        for split in SPLITS:
            mine = np.zeros_like(seen_by)
            for box in boxes(file, split):
                mine[box] = 1
            seen_by += mine
        assert seen_by.max() == 1, file

    def without_other_boxes(file):
        picture = read(file)
        kept = np.full_like(picture, 77)
        for box in boxes(file, "tune"):
            kept[box] = picture[box]
        return kept

    monkeypatch.setattr(collage, "read_picture", without_other_boxes)
    for old, new in zip(before, read_patches("tune"), strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
