"""Segmentation scores of a data set: mean IoU, pixel accuracy, and both inside trimap bands.

Every number comes from a confusion matrix. The data set's IoU of class c is

    IoU_c = C[c, c] / (sum_j C[c, j] + sum_i C[i, c] - C[c, c]),    C[truth, prediction]

with C summed over all images first. The mean of per-image IoUs is another quantity, and published
VOC numbers are not that. Void pixels (id 255) are never counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from data.sample import VOID
from eval.trimap import Band, band_distance

Counts = npt.NDArray[np.int64]

TRIMAP_WIDTHS = (1, 2, 3, 5, 10, 20, 40)


class Scorer:
    """Adds up predictions at native image size and reports the scores of the whole data set.

    Args:
        classes: names, the position is the id.
        scored: ids whose IoU is averaged to the headline mean IoU; all ids enter the confusion.
        trimap_widths: band widths in pixels, ascending.
        band: where the trimap bands lie, see `eval.trimap`; one rule for the whole data set.

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
        # One slice per band that ends at a width, and a last one for the pixels beyond all bands.
        self._rings: Counts = np.zeros(
            (len(trimap_widths) + 1, len(classes), len(classes)), dtype=np.int64
        )
        self._images: list[dict[str, Any]] = []
        self._names: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"Scorer(classes={len(self.classes)}, scored={self.scored}, "
            f"trimap_widths={self.trimap_widths}, band={self.band!r}, images={len(self._images)})"
        )

    def update(self, name: str, prediction: Tensor, mask: Tensor) -> None:
        """Score one image.

        Args:
            name: the image's name, once per scorer.
            prediction: (H, W) integer ids of the classes, on any device.
            mask: (H, W) integer ids of the classes, or 255 for void.

        Raises:
            ValueError: shapes that differ, ids outside the classes, or a name seen before.
            TypeError: ids that are not integers.
        """
        if name in self._names:
            raise ValueError(f"image {name!r} was scored before; every image counts once")
        if prediction.ndim != 2 or prediction.shape != mask.shape:
            raise ValueError(
                f"{name}: expected a prediction of the mask's own (H, W), got prediction "
                f"{tuple(prediction.shape)} and mask {tuple(mask.shape)}; score at native image "
                "size, never on crops or resized masks"
            )
        truth = _ids(f"{name}: mask", mask, len(self.classes), void_allowed=True)
        predicted = _ids(f"{name}: prediction", prediction, len(self.classes), void_allowed=False)
        rings = self._count(truth, predicted)
        self._rings += rings
        confusion = rings.sum(axis=0)
        self._images.append(
            {
                "name": name,
                "miou": mean_iou(confusion, self.scored),
                "pixel_accuracy": pixel_accuracy(confusion),
            }
        )
        self._names.add(name)

    def result(self) -> dict[str, Any]:
        """The scores of all images so far, ready for JSON.

        Returns:
            `miou`, `pixel_accuracy`, `iou_per_class` (by name), `trimap_miou` and
            `trimap_accuracy` (by width as a string), `trimap_band`, `confusion` (rows = truth) and
            `images` (name, miou and pixel_accuracy of each). Scores lie in 0..1. A score with
            nothing to count (a class in neither truth nor prediction, an empty band) is None.

        Raises:
            ValueError: no image was scored.
        """
        if not self._images:
            raise ValueError("no image was scored; call update for every image of the split first")
        bands = np.cumsum(self._rings, axis=0)
        confusion = bands[-1]
        by_width = {
            str(width): band for width, band in zip(self.trimap_widths, bands[:-1], strict=True)
        }
        return {
            "miou": mean_iou(confusion, self.scored),
            "pixel_accuracy": pixel_accuracy(confusion),
            "iou_per_class": dict(zip(self.classes, iou_per_class(confusion), strict=True)),
            "trimap_miou": {width: mean_iou(band, self.scored) for width, band in by_width.items()},
            "trimap_accuracy": {width: pixel_accuracy(band) for width, band in by_width.items()},
            "trimap_band": self.band,
            "confusion": confusion.tolist(),
            "images": [dict(image) for image in self._images],
        }

    def _count(self, truth: Counts, predicted: Counts) -> Counts:
        """(W + 1, L, L) pixels by ring, truth and prediction: all bands from one histogram."""
        num_rings, num_classes, _ = self._rings.shape
        distance = band_distance(truth, self.band)
        ring = np.searchsorted(np.asarray(self.trimap_widths), distance)
        cell = (ring * num_classes + truth) * num_classes + predicted
        counts = np.bincount(cell[truth != VOID], minlength=self._rings.size)
        return counts.reshape(num_rings, num_classes, num_classes)


def merged(scorers: Sequence[Scorer], order: Sequence[str]) -> Scorer:
    """One scorer of the images of several, as if it had seen them all.

    Args:
        scorers: of the same classes, scored ids and widths, each of other images.
        order: names of the images as the result lists them.

    Raises:
        ValueError: two of them scored an image of the same name.
    """
    first = scorers[0]
    whole = Scorer(first.classes, first.scored, first.trimap_widths, first.band)
    for scorer in scorers:
        twice = whole._names & scorer._names
        if twice:
            raise ValueError(f"scored more than once: {', '.join(sorted(twice)[:5])}")
        whole._rings += scorer._rings
        whole._images += scorer._images
        whole._names |= scorer._names
    position = {name: k for k, name in enumerate(order)}
    whole._images.sort(key=lambda image: position[image["name"]])
    return whole


def iou_per_class(confusion: Counts) -> list[float | None]:
    """Intersection over union of every class.

    Args:
        confusion: (L, L) pixel counts, rows = truth, columns = prediction.

    Returns:
        L values in 0..1; None for a class in neither the truth nor the prediction.
    """
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return [int(b) / int(e) if e else None for b, e in zip(both, either, strict=True)]


def mean_iou(confusion: Counts, scored: Sequence[int]) -> float | None:
    """Mean IoU of the scored classes that occur in truth or prediction, None when none occurs.

    Pixels of the other classes still count against a scored class that was predicted there.
    """
    ious = iou_per_class(confusion)
    present = [iou for c in scored if (iou := ious[c]) is not None]
    return sum(present) / len(present) if present else None


def pixel_accuracy(confusion: Counts) -> float | None:
    """Share of the counted pixels, of all classes, that are right; None without a pixel."""
    total = int(confusion.sum())
    return int(np.trace(confusion)) / total if total else None


def _ids(what: str, ids: Tensor, num_classes: int, *, void_allowed: bool) -> Counts:
    """The ids as an int64 array, after a check of their type and range."""
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
