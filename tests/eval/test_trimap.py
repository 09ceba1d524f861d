"""The trimap band against the rule written with a dilation, and against brute force."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from eval.metrics.trimap import NEVER, band_distance

Mask = npt.NDArray[np.int64]


def random_mask(seed: int, shape: tuple[int, int] = (17, 23), *, void: bool) -> Mask:
    """Blobs of labels 0..3, with a few void pixels when asked."""
    generator = np.random.default_rng(seed)
    mask = generator.integers(0, 4, size=(shape[0] // 4 + 1, shape[1] // 4 + 1))
    mask = mask.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    if void:
        mask[generator.random(shape) < 0.01] = 255
        mask[3, 5] = 255
    return mask.astype(np.int64)


def test_shape_and_type() -> None:
    distance = band_distance(random_mask(0, void=True), "void")
    assert distance.shape == (17, 23)
    assert distance.dtype == np.int32
    assert distance.min() >= 1


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4)])
def test_refuses_what_is_not_a_mask(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"non-empty \(H, W\) mask, got shape"):
        band_distance(np.zeros(shape, dtype=np.int64), "void")


def test_refuses_another_rule() -> None:
    with pytest.raises(ValueError, match="'void' or 'edge', got 'both'"):
        band_distance(random_mask(0, void=True), "both")  # type: ignore[arg-type]


def test_void_band_by_hand() -> None:
    mask = np.zeros((3, 6), dtype=np.int64)
    mask[1, 1] = 255
    expected = [
        [1, 1, 1, 2, 3, 4],
        [1, NEVER, 1, 2, 3, 4],
        [1, 1, 1, 2, 3, 4],
    ]
    assert band_distance(mask, "void").tolist() == expected


def test_edge_band_by_hand() -> None:
    mask = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]])
    assert band_distance(mask, "edge").tolist() == [[3, 2, 1, 1, 1], [3, 2, 1, 1, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_void_band_is_the_authors_dilation(seed: int) -> None:
    mask = random_mask(seed, void=True)
    void = mask == 255
    distance = band_distance(mask, "void")
    for width in range(1, 41):
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=bool)
        expected = ndimage.binary_dilation(void, square) & ~void
        np.testing.assert_array_equal(distance <= width, expected)


@pytest.mark.parametrize("void", [False, True])
def test_edge_band_is_the_distance_to_another_label(void: bool) -> None:
    mask = random_mask(7, (11, 13), void=void)
    rows, columns = np.indices(mask.shape)
    expected = np.full(mask.shape, NEVER)
    for i, j in np.ndindex(*mask.shape):
        if mask[i, j] != 255:
            steps = np.maximum(abs(rows - i), abs(columns - j))[mask != mask[i, j]]
            expected[i, j] = steps.min()
    np.testing.assert_array_equal(band_distance(mask, "edge"), expected)


@pytest.mark.parametrize("band", ["void", "edge"])
def test_void_pixels_are_in_no_band(band: str) -> None:
    mask = random_mask(1, void=True)
    distance = band_distance(mask, band)  # type: ignore[arg-type]
    assert (distance[mask == 255] == NEVER).all()


@pytest.mark.parametrize(
    ("mask", "band"),
    [
        (random_mask(2, void=False), "void"),
        (np.full((5, 5), 3), "edge"),
        (np.full((5, 5), 255), "void"),
        (np.full((1, 1), 2), "edge"),
    ],
    ids=["no void", "one label", "only void", "one pixel"],
)
def test_no_boundary_is_an_empty_band(mask: Mask, band: str) -> None:
    assert (band_distance(mask, band) == NEVER).all()  # type: ignore[arg-type]


def test_non_contiguous_mask() -> None:
    mask = random_mask(3, void=True)
    expected = band_distance(mask, "void").T
    np.testing.assert_array_equal(band_distance(mask.T, "void"), expected)
