"""The embedded data set: the same bits everywhere, splits that share no pixel, and its shapes."""

from __future__ import annotations

import hashlib
import pickle
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from scipy.ndimage import label

from data import collage
from data.collage import (
    CLASSES,
    SOURCES,
    SUB,
    THINNEST,
    TURN,
    Collage,
    CollageConfig,
    Layer,
    label_map,
    paint,
    read_patches,
)
from data.dataset import Split

SMALL = CollageConfig(num_train=20, num_tune=5, num_report=6)
SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.fixture(scope="module")
def train() -> Collage:
    return Collage(SMALL, "train")


def test_shape(train):
    sample = train[3]
    assert sample.name == "train-00003"
    assert sample.image.shape == (3, 97, 97)
    assert sample.image.dtype == torch.uint8
    assert sample.image.is_contiguous()
    assert sample.mask.shape == (97, 97)
    assert sample.mask.dtype == torch.int64
    for split, count in zip(SPLITS, (20, 5, 6), strict=True):
        dataset = Collage(SMALL, split)
        assert len(dataset) == len(set(dataset.names)) == count
    for size in (16, 33, 200):
        assert Collage(CollageConfig(size=size), "tune")[0].image.shape == (3, size, size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 15),
        ("num_train", 0),
        ("num_tune", 0),
        ("num_report", 0),
        ("seed", 2**32),
        ("min_things", 9),
        ("noise", float("nan")),
    ],
)
def test_a_config_that_makes_no_scene_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        CollageConfig(**{field: value})


def test_an_unknown_split_or_index_is_refused(train):
    with pytest.raises(ValueError, match="train, tune, report; got 'val'"):
        Collage(SMALL, "val")  # type: ignore[arg-type]
    for index in (-1, 20):
        with pytest.raises(IndexError, match="of 20"):
            train[index]


def test_masks_are_the_same_on_every_machine():
    """The bits of a few masks, as an integer computation on frozen random streams gives them."""
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
        torch.testing.assert_close(
            blocks.mean(dim=(0, 2, 4)).flatten(), torch.tensor(means), atol=0.5, rtol=0
        )


def test_a_scene_is_a_pure_function_of_seed_split_and_index(train):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train[7]
    train[2]
    for again in (Collage(CollageConfig(num_train=8), "train"), pickle.loads(pickle.dumps(train))):
        assert torch.equal(first.image, again[7].image)
        assert torch.equal(first.mask, again[7].mask)
    assert torch.equal(torch.get_rng_state(), state)
    scenes = [first, train[1], *(Collage(SMALL, split)[1] for split in SPLITS[1:])]
    scenes.append(Collage(CollageConfig(seed=1), "train")[1])
    assert len({scene.mask.numpy().tobytes() for scene in scenes}) == len(scenes)
    assert len({scene.image.numpy().tobytes() for scene in scenes}) == len(scenes)


def test_noise_changes_the_image_and_not_the_mask(train):
    clean = Collage(CollageConfig(noise=0.0), "train")[4]
    assert torch.equal(clean.mask, train[4].mask)
    difference = clean.image.int() - train[4].image.int()
    # Its deviation is 0.2..1 times 5 grey levels; clipping at 0 and 255 and rounding change little.
    assert 0.8 < difference.double().std() < 5.2


def test_labels_are_class_ids_without_void(train):
    seen = np.unique([train[i].mask.numpy() for i in range(len(train))])
    assert seen.tolist() == list(range(len(train.classes)))
    ground = Collage(CollageConfig(min_things=0, max_things=0), "tune")[1]
    assert len(np.unique(ground.mask.numpy())) == 1


def test_edges_of_the_mask_are_edges_of_the_image(train):
    """What a CRF needs: colours differ more across label boundaries than within labels."""
    across, within = [], []
    for i in range(len(train)):
        sample = train[i]
        step = (sample.image[:, :, 1:].float() - sample.image[:, :, :-1].float()).norm(dim=0)
        boundary = sample.mask[:, 1:] != sample.mask[:, :-1]
        across.append(step[boundary])
        within.append(step[~boundary])
    # Measured 7.1 on report; masks that do not belong to their images would give about 1.
    assert torch.cat(across).mean() > 4 * torch.cat(within).mean()


def test_a_later_layer_covers_an_earlier_one_and_may_cover_nothing():
    """A fence can stand outside the frame, or a thing wholly behind others."""
    whole, nothing = np.ones((20, 20), dtype=np.bool_), np.zeros((20, 20), dtype=np.bool_)
    left = whole.copy()
    left[:, 10:] = False
    assert label_map([Layer(3, whole), Layer(5, left)])[0, 9:11].tolist() == [5, 3]
    layers = [Layer(3, whole), Layer(5, nothing), Layer(2, whole)]
    image = paint(RandomState(0), layers, read_patches("tune"), noise=0.0)
    assert image.shape == (20, 20, 3)
    assert (label_map(layers) == 2).all()


# Where the pixels come from


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_has_patches(split, monkeypatch):
    """Without pooch, which scikit-image downloads with: nothing is fetched."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    collage.read_picture.cache_clear()
    patches = read_patches(split)
    assert len(patches) == len(CLASSES)
    for of_class in patches:
        assert of_class
        for patch in of_class:
            assert patch.pixels.dtype == np.float32
            # Smaller ones would show their mirror images in every scene.
            assert min(patch.pixels.shape[:2]) >= 60
            assert 0 <= patch.pixels.min() <= patch.pixels.max() <= 255


def test_no_pixel_is_seen_by_two_splits():
    for file in {source.file for source in SOURCES}:
        height, width = collage.read_picture(file).shape[:2]
        seen_by = np.zeros((height, width), dtype=np.int64)
        for split in SPLITS:
            mine = np.zeros((height, width), dtype=np.bool_)
            for source in SOURCES:
                for top, left, bottom, right in source.boxes(split) if source.file == file else ():
                    assert 0 <= top < bottom <= height
                    assert 0 <= left < right <= width
                    mine[top:bottom, left:right] = True
            assert mine.any()
            seen_by += mine
        assert seen_by.max() == 1, file


def test_patches_depend_on_the_boxes_of_their_split_only(monkeypatch):
    """The same as above by experiment: destroy the boxes of other splits, nothing changes."""
    before = read_patches("tune")
    read = collage.read_picture

    def damaged(file):
        picture = read(file)
        kept = np.full_like(picture, 77)
        for source in SOURCES:
            for top, left, bottom, right in source.boxes("tune") if source.file == file else ():
                kept[top:bottom, left:right] = picture[top:bottom, left:right]
        return kept

    monkeypatch.setattr(collage, "read_picture", damaged)
    for old, new in zip(before, read_patches("tune"), strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)


def test_pictures_are_shrunk_by_block_means_and_must_be_there():
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    means = collage.shrink(pixels, 2)
    assert means.shape == (1, 2, 3)
    assert means[0, 0].tolist() == [9, 10, 11]  # (0 + 3 + 15 + 18) / 4 and so on
    with pytest.raises(FileNotFoundError, match=r"absent\.png.*scikit-image >= 0\.22"):
        collage.read_picture("absent.png")


# Shapes

SIZE = 97
CENTRE = (SIZE * SUB // 2, SIZE * SUB // 2)


def test_noise_equals_the_sum_in_python_integers():
    noise = collage.smooth_noise(RandomState(7), 16, 3)
    values = RandomState(7).randint(-1024, 1025, size=(6, 6), dtype=np.int64).tolist()
    weights = collage.spline_weights(16, 3)
    np.testing.assert_array_equal(weights, np.rint(weights))
    # Four weights are rounded down in each row, so less than 4 is lost.
    assert (weights.sum(axis=1) > 1020).all()
    assert (weights.sum(axis=1) <= 1024).all()
    w = [[int(v) for v in row] for row in weights.tolist()]
    expected = [
        [
            sum(w[y][a] * values[a][b] * w[x][b] for a in range(6) for b in range(6)) >> 20
            for x in range(16)
        ]
        for y in range(16)
    ]
    assert noise.tolist() == expected


def test_directions_lie_on_the_circle():
    vectors = np.array([collage.direction(turn) for turn in range(TURN)])
    # Two coordinates of about 1024, each rounded down by less than 1: the length is off by < 2.
    assert np.abs(np.hypot(*vectors.T) - 1024).max() < 2
    assert len(np.unique(vectors, axis=0)) == TURN


@pytest.mark.parametrize("width", [THINNEST, 4 * SUB])
def test_pen_draws_what_lies_within_half_its_width(width):
    start, end = (13, 20), (300, 517)
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    collage.draw(mask, collage.line(start, end), width)
    centres = np.arange(SIZE) * SUB + SUB / 2
    y, x = centres[:, None] - start[0], centres[None, :] - start[1]
    d = np.subtract(end, start)
    along = np.clip((y * d[0] + x * d[1]) / (d @ d), 0, 1)
    distance = np.hypot(y - along * d[0], x - along * d[1])
    assert not mask[distance > width / 2 + 1].any()  # points are rounded down by < 1 sub-pixel
    # Points are half a pixel (4 sub-pixels) apart along the longer axis, at most 4 sqrt 2 in all:
    # midway the round pen reaches sqrt(r^2 - 8), less the rounding.
    assert mask[distance < np.sqrt(width * width / 4 - 8) - 1].all()


def test_the_thinnest_line_and_arc_have_no_holes():
    rng = RandomState(7)
    masks = [collage.arc(rng, 300, (1200, 1200), 700, THINNEST) for _ in range(10)]
    for turn in range(0, TURN, 15):
        masks.append(np.zeros((SIZE, SIZE), dtype=np.bool_))
        collage.draw(
            masks[-1], collage.line(CENTRE, collage.step(CENTRE, turn, 40 * SUB)), THINNEST
        )
    for mask in masks:
        _, pieces = label(mask, structure=np.ones((3, 3)))
        assert pieces == 1


def test_ring_has_the_area_of_an_annulus():
    mask = collage.ring(SIZE, CENTRE, 30 * SUB, 3 * SUB)
    # Gauss's circle problem: the error stays below a few times the root of the radius.
    assert abs(mask.sum() - 2 * np.pi * 30 * 3) < 12


def test_drawing_outside_is_clipped_and_a_point_is_a_line():
    mask = np.zeros((8, 8), dtype=np.bool_)
    collage.draw(mask, collage.line((-400, -400), (-100, -100)), 4 * SUB)
    assert not mask.any()
    collage.draw(mask, collage.line((28, 28), (28, 28)), THINNEST)
    assert np.argwhere(mask).tolist() == [[3, 3]]
    collage.draw(mask, collage.line((-400, -400), (400, 400)), 2 * SUB)
    assert mask.diagonal().all()
