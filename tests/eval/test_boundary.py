"""Boundary IoU and boundary F against loops over all pairs of pixels, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from eval.metrics.boundary import (
    boundary_f,
    boundary_f_counts,
    boundary_iou,
    boundary_iou_counts,
    mean_boundary_f,
)

VOID = 255
LABELS = 4


def blobs(seed: int, shape: tuple[int, int] = (41, 58)) -> tuple[np.ndarray, np.ndarray]:
    """Truth with void around its objects, and a prediction that misses it by a few pixels."""
    generator = np.random.default_rng(seed)
    heights = [ndimage.gaussian_filter(generator.standard_normal(shape), 5) for _ in range(3)]
    truth = np.argmax(heights, axis=0)
    prediction = np.roll(truth, (2, -1), (0, 1))
    outline = ndimage.minimum_filter(truth, 3) != ndimage.maximum_filter(truth, 3)
    noise = generator.random(shape) < 0.01
    return np.where(outline & (generator.random(shape) < 0.7), VOID, truth), np.where(
        noise, 3, prediction
    )


def brute_region(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a binary mask at a chessboard distance of at most `width` from one outside."""
    framed = np.pad(mask, 1)
    distances = cdist(np.argwhere(framed), np.argwhere(~framed), "chebyshev").min(axis=1)
    region = np.zeros(framed.shape, dtype=bool)
    region[framed] = distances <= width
    return region[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(3))
def test_boundary_iou_is_that_of_all_distances(seed: int) -> None:
    truth, prediction = blobs(seed)
    width = max(1, round(0.02 * math.hypot(*truth.shape)))
    assert width == 1
    for scale in (1, 2):  # the larger image has a band of 3 px
        large = np.kron(truth, np.ones((scale, scale), dtype=int))
        guess = np.kron(prediction, np.ones((scale, scale), dtype=int))
        width = max(1, round(0.02 * math.hypot(*large.shape)))
        counts = boundary_iou_counts(large, guess, LABELS)
        for c in range(LABELS):
            true = brute_region(large == c, width)
            predicted = brute_region((guess == c) & (large != VOID), width)
            assert counts[c].tolist() == [(true & predicted).sum(), (true | predicted).sum()]


def test_boundary_iou_of_a_square_by_hand() -> None:
    # 100 x 100: the band is 3 px wide. A square of 20 has a ring of 20^2 - 14^2 pixels.
    truth = np.zeros((100, 100), dtype=int)
    truth[40:60, 40:60] = 1
    assert boundary_iou_counts(truth, truth, 2)[1].tolist() == [204, 204]
    moved = np.roll(truth, 1, 0)  # the rings share what both hold, row by row
    ring = np.pad(np.zeros((14, 14), dtype=bool), 3, constant_values=True)
    both = (ring[1:] & ring[:-1]).sum()
    assert boundary_iou_counts(truth, moved, 2)[1].tolist() == [both, 408 - both]


def brute_f(truth: np.ndarray, prediction: np.ndarray, c: int) -> list[int]:
    """The four counts of a class by loops."""

    def contour(ids: np.ndarray) -> list[tuple[int, int]]:
        found = []
        for y, x in np.argwhere(ids == c):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < ids.shape[0] and 0 <= u < ids.shape[1] and ids[v, u] != c:
                    found.append((int(y), int(x)))
                    break
        return found

    tolerance = max(1.0, 0.0075 * math.hypot(*truth.shape))
    true, everywhere = contour(truth), contour(prediction)
    predicted = [at for at in everywhere if truth[at] != VOID]

    def close(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
        return sum(any(math.dist(p, o) <= tolerance for o in others) for p in points)

    return [close(predicted, true), len(predicted), close(true, everywhere), len(true)]


@pytest.mark.parametrize("seed", range(3))
def test_boundary_f_is_that_of_all_pairs(seed: int) -> None:
    truth, prediction = blobs(seed)
    counts = boundary_f_counts(truth, prediction, LABELS)
    for c in range(LABELS):
        assert counts[c].tolist() == brute_f(truth, prediction, c)


def test_boundary_f_scores_by_hand() -> None:
    counts = np.array([[3, 4, 1, 2], [0, 4, 0, 0], [0, 0, 0, 0], [0, 5, 0, 5]])
    precision, recall = 0.75, 0.5
    expected = 2 * precision * recall / (precision + recall)
    scores = boundary_f(counts)
    assert scores[:2].tolist() == [pytest.approx(expected, rel=1e-15), 0.0]
    assert np.isnan(scores[2])
    assert scores[3] == 0.0
    # Over two images, a class counts where it is.
    per_image = np.array([[0.5, np.nan], [1.0, 0.25]])
    assert mean_boundary_f(per_image, np.array([[1, 1], [3, 1]])).tolist() == [
        [0.75, 0.25],
        [0.625, 0.25],
    ]


def test_one_class_everywhere_has_no_contour_but_an_inner_region() -> None:
    whole = np.zeros((30, 30), dtype=int)
    assert np.isnan(boundary_f(boundary_f_counts(whole, whole, 2))).all()
    # The frame of the image is a boundary of Boundary IoU, as in the authors' code.
    assert boundary_iou(boundary_iou_counts(whole, whole, 2))[0] == 1.0
    assert boundary_iou_counts(whole, whole, 2)[0, 1] == 30 * 30 - 28 * 28


def test_void_only_counts_nothing() -> None:
    void = np.full((6, 7), VOID)
    assert not boundary_iou_counts(void, np.zeros((6, 7), dtype=int), 2).any()
    assert not boundary_f_counts(void, np.arange(42).reshape(6, 7) % 2, 2).any()
