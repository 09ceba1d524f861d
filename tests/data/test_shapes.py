from __future__ import annotations

import numpy as np
import pytest
from numpy.random import RandomState
from scipy.ndimage import label

from data.collage import shapes
from data.collage.shapes import SUB, THINNEST, TURN

SIZE = 97
CENTRE = (SIZE * SUB // 2, SIZE * SUB // 2)


@pytest.fixture
def rng() -> RandomState:
    return RandomState(7)


def test_shape(rng):
    masks = [
        shapes.blob(rng, SIZE, CENTRE, 20 * SUB),
        shapes.ring(SIZE, CENTRE, 20 * SUB, 2 * SUB),
        shapes.wheel(rng, SIZE, CENTRE, 20 * SUB, 2 * SUB),
        shapes.fence(rng, SIZE, CENTRE, 30 * SUB, 2 * SUB),
        shapes.arc(rng, SIZE, CENTRE, 30 * SUB, 2 * SUB),
        shapes.limbs(rng, SIZE, CENTRE, 20 * SUB, 2 * SUB),
    ]
    for mask in masks:
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == np.bool_
        assert 0 < mask.sum() < mask.size


def test_spline_weights_are_whole_and_sum_to_1024():
    weights = shapes.spline_weights(SIZE, 5)
    np.testing.assert_array_equal(weights, np.rint(weights))
    # Four weights are rounded down in each row, so less than 4 is lost.
    assert (weights.sum(axis=1) > 1020).all()
    assert (weights.sum(axis=1) <= 1024).all()


def test_noise_equals_the_sum_in_python_integers(rng):
    noise = shapes.smooth_noise(rng, 16, 3)
    values = RandomState(7).randint(-1024, 1025, size=(6, 6), dtype=np.int64).tolist()
    w = [[int(v) for v in row] for row in shapes.spline_weights(16, 3).tolist()]
    expected = [
        [
            sum(w[y][a] * values[a][b] * w[x][b] for a in range(6) for b in range(6)) >> 20
            for x in range(16)
        ]
        for y in range(16)
    ]
    assert noise.tolist() == expected


def test_directions_lie_on_the_circle():
    vectors = np.array([shapes.direction(turn) for turn in range(TURN)])
    # Two coordinates of about 1024, each rounded down by less than 1: the length is off by < 2.
    assert np.abs(np.hypot(*vectors.T) - 1024).max() < 2
    assert len(np.unique(vectors, axis=0)) == TURN


@pytest.mark.parametrize("width", [THINNEST, 2 * SUB, 4 * SUB])
def test_pen_draws_what_lies_within_half_its_width(width):
    start, end = (13, 20), (300, 517)
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    shapes.draw(mask, shapes.line(start, end), width)
    centres = np.arange(SIZE) * SUB + SUB / 2
    y, x = centres[:, None] - start[0], centres[None, :] - start[1]
    d = np.subtract(end, start)
    along = np.clip((y * d[0] + x * d[1]) / (d @ d), 0, 1)
    distance = np.hypot(y - along * d[0], x - along * d[1])
    assert not mask[distance > width / 2 + 1].any()  # points are rounded down by < 1 sub-pixel
    # Points are half a pixel (4 sub-pixels) apart along the longer axis, at most 4 sqrt 2 in all:
    # midway the round pen reaches sqrt(r^2 - 8), less the rounding.
    assert mask[distance < np.sqrt(width * width / 4 - 8) - 1].all()


@pytest.mark.parametrize("turn", range(0, TURN, 5))
def test_the_thinnest_line_has_no_holes(turn):
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    shapes.draw(mask, shapes.line(CENTRE, shapes.step(CENTRE, turn, 40 * SUB)), THINNEST)
    _, pieces = label(mask, structure=np.ones((3, 3)))
    assert pieces == 1


def test_a_thin_arc_is_one_piece(rng):
    for _ in range(20):
        _, pieces = label(
            shapes.arc(rng, 300, (1200, 1200), 700, THINNEST), structure=np.ones((3, 3))
        )
        assert pieces == 1


def test_ring_has_the_area_of_an_annulus():
    mask = shapes.ring(SIZE, CENTRE, 30 * SUB, 3 * SUB)
    # Gauss's circle problem: the error stays below a few times the root of the radius.
    assert abs(mask.sum() - 2 * np.pi * 30 * 3) < 12


def test_drawing_outside_is_clipped():
    mask = np.zeros((8, 8), dtype=np.bool_)
    shapes.draw(mask, shapes.line((-400, -400), (-100, -100)), 4 * SUB)
    assert not mask.any()
    shapes.draw(mask, shapes.line((-400, -400), (400, 400)), 2 * SUB)
    assert mask.diagonal().all()


def test_a_point_is_a_line():
    mask = np.zeros((8, 8), dtype=np.bool_)
    shapes.draw(mask, shapes.line((28, 28), (28, 28)), THINNEST)
    assert np.argwhere(mask).tolist() == [[3, 3]]
