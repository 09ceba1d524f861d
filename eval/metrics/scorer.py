"""Counts what a segmentation scores on every image of a split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from torch import Tensor

from data.dataset import VOID
from eval.metrics.boundary import Band, band_distance, boundary_f_counts, boundary_iou_counts
from eval.metrics.counts import SplitCounts
from eval.metrics.scores import NUM_BINS, CalibrationCounts, calibration_counts

Counts = npt.NDArray[np.int64]

TRIMAP_WIDTHS = tuple(range(1, 41))  # as the DeepLab authors' script


class _Image(NamedTuple):
    name: str
    cells: Counts  # of (ring, truth, prediction) that hold pixels
    pixels: Counts  # how many
    boundary: Counts
    contours: Counts
    calibration: CalibrationCounts


class Scorer:
    """Counts predictions at native image size, one image after the other.

    Args:
        classes: names, the position is the id.
        scored: ids whose scores are averaged to the headline; all ids enter the confusion.
        trimap_widths: band widths in pixels, ascending.
        band: where the trimap bands lie, see `eval.metrics.boundary`; one rule for the data set.

    Raises:
        ValueError: no class, scored ids outside the classes or repeated, or widths that do
            not ascend.
    """

    def __init__(
        self,
        classes: Sequence[str],
        scored: Sequence[int],
        trimap_widths: Sequence[int] = TRIMAP_WIDTHS,
        band: Band = "void",
    ) -> None:
        if not classes:
            raise ValueError("expected at least one class name, got none")
        outside = [c for c in scored if not 0 <= c < len(classes)]
        if not scored or outside or len(set(scored)) != len(scored):
            raise ValueError(
                f"expected distinct scored ids within 0..{len(classes) - 1}, got {tuple(scored)}"
            )
        ascending = all(a < b for a, b in pairwise(trimap_widths))
        if not trimap_widths or trimap_widths[0] < 1 or not ascending:
            raise ValueError(
                f"expected ascending trimap widths of at least 1 px, got {tuple(trimap_widths)}"
            )
        self.classes = tuple(classes)
        self.scored = tuple(scored)
        self.trimap_widths = tuple(trimap_widths)
        self.band: Band = band
        self._images: dict[str, _Image] = {}

    def __repr__(self) -> str:
        return (
            f"Scorer(classes={len(self.classes)}, scored={self.scored}, "
            f"trimap_widths={self.trimap_widths}, band={self.band!r}, images={len(self._images)})"
        )

    def update(
        self, name: str, prediction: Tensor, mask: Tensor, logits: Tensor | None = None
    ) -> None:
        """Count one image.

        Args:
            name: the image's name, once per scorer.
            prediction: (H, W) integer ids of the classes, on any device.
            mask: (H, W) integer ids of the classes, or 255 for void.
            logits: (L, H, W) of the prediction, for its likelihood and calibration.

        Raises:
            ValueError: shapes that differ, ids outside the classes, or a name seen before.
            TypeError: ids that are not integers.
        """
        if name in self._images:
            raise ValueError(f"image {name!r} was scored before; every image counts once")
        if prediction.ndim != 2 or prediction.shape != mask.shape:
            raise ValueError(
                f"{name}: expected a prediction of the mask's own (H, W), got prediction "
                f"{tuple(prediction.shape)} and mask {tuple(mask.shape)}; score at native image "
                "size, never on crops or resized masks"
            )
        size = len(self.classes)
        if logits is not None and logits.shape != (size, *mask.shape):
            raise ValueError(
                f"{name}: expected logits {(size, *mask.shape)}, got {tuple(logits.shape)}"
            )
        truth = _ids(f"{name}: mask", mask, size, void_allowed=True)
        predicted = _ids(f"{name}: prediction", prediction, size, void_allowed=False)
        pixels = self._rings(truth, predicted)
        cells = pixels.nonzero()[0]
        self._images[name] = _Image(
            name,
            cells,
            pixels[cells],
            boundary_iou_counts(truth, predicted, size),
            boundary_f_counts(truth, predicted, size),
            _UNKNOWN if logits is None else calibration_counts(logits, mask.cpu()),
        )

    def counts(self) -> SplitCounts:
        """Everything counted so far."""
        images = list(self._images.values())
        size = len(self.classes)
        cells = (len(self.trimap_widths) + 1) * size**2
        starts = np.cumsum([0, *(len(image.cells) for image in images)])
        empty = np.zeros(0, dtype=np.int64)
        rings = csr_array(
            (
                np.concatenate([empty, *(image.pixels for image in images)]),
                np.concatenate([empty, *(image.cells for image in images)]),
                starts,
            ),
            shape=(len(images), cells),
        )
        calibration = [image.calibration for image in images]
        return SplitCounts(
            names=tuple(self._images),
            classes=self.classes,
            scored=self.scored,
            widths=self.trimap_widths,
            band=self.band,
            rings=rings,
            boundary=_stacked([image.boundary for image in images], (size, 2), np.int64),
            contours=_stacked([image.contours for image in images], (size, 4), np.int64),
            likelihood=_stacked(
                [np.stack([c.nll, c.brier]) for c in calibration], (2,), np.float64
            ),
            bins=_stacked([c.bins for c in calibration], (NUM_BINS, 3), np.float64),
        )

    def _rings(self, truth: Counts, predicted: Counts) -> Counts:
        """((W + 1) L L,) pixels by ring, truth and prediction: all bands from one histogram."""
        size = len(self.classes)
        distance = band_distance(truth, self.band)
        ring = np.searchsorted(np.asarray(self.trimap_widths), distance)
        cell = (ring * size + truth) * size + predicted
        length = (len(self.trimap_widths) + 1) * size**2
        return np.bincount(cell[truth != VOID], minlength=length)


_UNKNOWN = CalibrationCounts(np.asarray(np.nan), np.asarray(np.nan), np.zeros((NUM_BINS, 3)))


def _stacked(parts: list[Any], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """(N, ...), also of no image."""
    return np.stack(parts).astype(dtype) if parts else np.zeros((0, *shape), dtype)


def _ids(what: str, ids: Tensor, num_classes: int, *, void_allowed: bool) -> Counts:
    """Convert ids to an int64 array, after a check of their type and range."""
    if ids.is_floating_point() or ids.is_complex():
        raise TypeError(f"{what}: expected integer ids, got {ids.dtype}; take the argmax first")
    array: Counts = ids.detach().cpu().numpy().astype(np.int64)
    wrong = (array < 0) | (array >= num_classes)
    if void_allowed:
        wrong &= array != VOID
    if wrong.any():
        void = f" or {VOID} (void)" if void_allowed else ""
        found = ", ".join(str(i) for i in np.unique(array[wrong])[:5])
        raise ValueError(f"{what}: expected ids 0..{num_classes - 1}{void}, got {found}")
    return array
