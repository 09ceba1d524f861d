"""What lies near boundaries: trimap bands, Boundary IoU and boundary F, by loops and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from eval.metrics.boundary import (
    NEVER,
    band_distance,
    boundary_f,
    boundary_f_counts,
    boundary_iou,
    boundary_iou_counts,
    mean_boundary_f,
)

VOID = 255
LABELS = 4


def random_mask(seed: int, shape: tuple[int, int] = (17, 23), *, void: bool) -> np.ndarray:
    """Blocks of labels 0..3, with a few void pixels when asked."""
    generator = np.random.default_rng(seed)
    mask = generator.integers(0, 4, size=(shape[0] // 4 + 1, shape[1] // 4 + 1))
    mask = mask.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    if void:
        mask[generator.random(shape) < 0.01] = VOID
        mask[3, 5] = VOID
    return mask.astype(np.int64)


def blobs(seed: int, shape: tuple[int, int] = (30, 41)) -> tuple[np.ndarray, np.ndarray]:
    """Truth with void around its objects, and a prediction that misses it by a few pixels."""
    generator = np.random.default_rng(seed)
    heights = [ndimage.gaussian_filter(generator.standard_normal(shape), 5) for _ in range(3)]
    truth = np.argmax(heights, axis=0)
    prediction = np.roll(truth, (2, -1), (0, 1))
    prediction[generator.random(shape) < 0.01] = 3
    outline = ndimage.minimum_filter(truth, 3) != ndimage.maximum_filter(truth, 3)
    return np.where(outline & (generator.random(shape) < 0.7), VOID, truth), prediction


def test_void_band_is_the_authors_dilation_in_any_layout() -> None:
    mask = random_mask(0, void=True)
    void = mask == VOID
    distance = band_distance(mask, "void")
    for width in (1, 2, 3, 7, 40):
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=bool)
        expected = ndimage.binary_dilation(void, square) & ~void
        np.testing.assert_array_equal(distance <= width, expected)
    np.testing.assert_array_equal(band_distance(mask.T, "void"), distance.T)


@pytest.mark.parametrize("void", [False, True])
def test_edge_band_is_the_distance_to_another_label(void: bool) -> None:
    mask = random_mask(7, (11, 13), void=void)
    rows, columns = np.indices(mask.shape)
    expected = np.full(mask.shape, NEVER)  # void pixels are in no band
    for i, j in np.argwhere(mask != VOID):
        steps = np.maximum(abs(rows - i), abs(columns - j))[mask != mask[i, j]]
        expected[i, j] = steps.min()
    np.testing.assert_array_equal(band_distance(mask, "edge"), expected)


def test_no_boundary_is_an_empty_band() -> None:
    bands: tuple[tuple[np.ndarray, Any], ...] = (
        (random_mask(2, void=False), "void"),
        (np.full((5, 5), 3), "edge"),
        (np.full((5, 5), VOID), "void"),
        (np.full((1, 1), 2), "edge"),
    )
    assert all((band_distance(mask, band) == NEVER).all() for mask, band in bands)
    with pytest.raises(ValueError, match=r"non-empty \(H, W\) mask, got shape"):
        band_distance(np.zeros((0, 4), dtype=np.int64), "void")
    with pytest.raises(ValueError, match="'void' or 'edge', got 'both'"):
        band_distance(np.zeros((2, 2), dtype=np.int64), "both")  # type: ignore[arg-type]


def brute_region(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a binary mask at a chessboard distance of at most `width` from one outside."""
    framed = np.pad(mask, 1)
    distances = cdist(np.argwhere(framed), np.argwhere(~framed), "chebyshev").min(axis=1)
    region = np.zeros(framed.shape, dtype=bool)
    region[framed] = distances <= width
    return region[1:-1, 1:-1]


@pytest.mark.parametrize("scale", [1, 2])  # bands of 1 and 2 px
def test_boundary_iou_is_that_of_all_distances(scale: int) -> None:
    truth, prediction = (np.kron(x, np.ones((scale, scale), dtype=int)) for x in blobs(0))
    width = max(1, round(0.02 * math.hypot(*truth.shape)))
    assert width == scale
    counts = boundary_iou_counts(truth, prediction, LABELS)
    for c in range(LABELS):
        true = brute_region(truth == c, width)
        predicted = brute_region((prediction == c) & (truth != VOID), width)
        assert counts[c].tolist() == [(true & predicted).sum(), (true | predicted).sum()]


def brute_f(truth: np.ndarray, prediction: np.ndarray, c: int) -> list[int]:
    """The four counts of a class by loops."""

    def contour(ids: np.ndarray) -> list[tuple[int, int]]:
        framed = np.pad(ids, 1, mode="edge")
        found = []
        for y, x in np.argwhere(ids == c):
            around = framed[y, x + 1], framed[y + 2, x + 1], framed[y + 1, x], framed[y + 1, x + 2]
            if any(label != c for label in around):
                found.append((int(y), int(x)))
        return found

    tolerance = max(1.0, 0.0075 * math.hypot(*truth.shape))
    true, everywhere = contour(truth), contour(prediction)
    predicted = [at for at in everywhere if truth[at] != VOID]

    def close(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> int:
        return sum(any(math.dist(p, o) <= tolerance for o in others) for p in points)

    return [close(predicted, true), len(predicted), close(true, everywhere), len(true)]


@pytest.mark.parametrize("scale", [1, 4])  # within 1 and 1.5 px
def test_boundary_f_is_that_of_all_pairs(scale: int) -> None:
    truth, prediction = (np.kron(x, np.ones((scale, scale), dtype=int)) for x in blobs(1))
    counts = boundary_f_counts(truth, prediction, LABELS)
    for c in range(LABELS):
        assert counts[c].tolist() == brute_f(truth, prediction, c)


def test_boundary_f_scores_by_hand() -> None:
    counts = np.array([[3, 4, 1, 2], [0, 4, 0, 0], [0, 0, 0, 0], [0, 5, 0, 5]])
    precision, recall = 0.75, 0.5
    expected = 2 * precision * recall / (precision + recall)
    scores = boundary_f(counts)
    assert scores[[0, 1, 3]].tolist() == [pytest.approx(expected, rel=1e-15), 0.0, 0.0]
    assert np.isnan(scores[2])
    # Over two images, a class counts where it is.
    per_image = np.array([[0.5, np.nan], [1.0, 0.25]])
    means = mean_boundary_f(per_image, np.array([[1, 1], [3, 1]])).tolist()
    assert means == [[0.75, 0.25], [0.625, 0.25]]


def test_one_class_everywhere_has_an_inner_region_alone_and_void_has_nothing() -> None:
    whole = np.zeros((30, 30), dtype=int)
    assert np.isnan(boundary_f(boundary_f_counts(whole, whole, 2))).all()
    # The frame of the image is a boundary of Boundary IoU, as in the authors' code.
    counts = boundary_iou_counts(whole, whole, 2)
    assert boundary_iou(counts)[0] == 1.0
    assert counts[0, 1] == 30 * 30 - 28 * 28
    void, prediction = np.full((6, 7), VOID), np.arange(42).reshape(6, 7) % 2
    assert not boundary_iou_counts(void, prediction, 2).any()
    assert not boundary_f_counts(void, prediction, 2).any()
