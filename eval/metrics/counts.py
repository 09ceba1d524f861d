"""Store what was counted on every image of a split: every score of any of its images follows.

A file of it, counts-SPLIT.npz, holds sparse int64 confusion matrices, one for every image and
every ring between two trimap widths. Summing the rings up to a width gives that band, summing all
of them the image's confusion matrix.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from eval.metrics.boundary import Band
from runtime.files import whole_file

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[Any]  # (B, N): how often each of B resamples takes each of N images

FORMAT = 1


@dataclass(frozen=True)
class SplitCounts:
    """The counts of N images of a split with L classes and W trimap widths.

    Attributes:
        names: of the images, unique.
        classes: names, the position is the id.
        scored: ids whose scores are averaged to the headline.
        widths: of the trimap bands, pixels, ascending.
        band: where the bands lie, see `eval.metrics.boundary`.
        rings: (N, (W + 1) L L) int64, sparse: pixels by ring, truth and prediction. Ring k lies
            between the widths k - 1 and k; the last one beyond all of them.
        boundary: (N, L, 2) int64, see `boundary.boundary_iou_counts`.
        contours: (N, L, 4) int64, see `boundary.boundary_f_counts`.
        likelihood: (N, 2) float64: sums of -log p(truth) and of the Brier score; NaN where there
            were no probabilities.
        bins: (N, 15, 3) float64, see `calibration.CalibrationCounts`; zeros likewise.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    scored: tuple[int, ...]
    widths: tuple[int, ...]
    band: Band
    rings: csr_array
    boundary: Counts
    contours: Counts
    likelihood: Floats
    bins: Floats

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def confusions(self) -> Counts:
        """(N, L, L): the confusion matrix of every image, rows = truth."""
        return self.within(self.widths[-1], beyond=True)

    def within(self, width: int, *, beyond: bool = False) -> Counts:
        """(N, L, L): the confusion matrix of every image within the band of a width, pixels.

        Args:
            width: one of `widths`.
            beyond: also count what lies beyond all bands.

        Raises:
            ValueError: the width was not counted.
        """
        if width not in self.widths:
            raise ValueError(f"no trimap width of {width} px: counted were {self.widths}.")
        rings = self.widths.index(width) + 1 + int(beyond)
        cells = len(self.classes) ** 2
        shape = (len(self), cells)
        taken = self.rings[:, : rings * cells].tocoo()
        folded = csr_array((taken.data, (taken.coords[0], taken.coords[1] % cells)), shape=shape)
        return np.asarray(folded.toarray()).reshape(len(self), *(len(self.classes),) * 2)

    def all_once(self) -> Weights:
        """(1, N) ones: the weights of the data set itself."""
        return np.ones((1, len(self)), dtype=np.int64)

    def of(self, names: Sequence[str]) -> SplitCounts:
        """Select these images, in this order.

        Raises:
            KeyError: one of them was not counted.
        """
        position = {name: k for k, name in enumerate(self.names)}
        rows = np.array([position[name] for name in names], dtype=np.int64)
        return SplitCounts(
            tuple(names),
            self.classes,
            self.scored,
            self.widths,
            self.band,
            self.rings[rows],
            self.boundary[rows],
            self.contours[rows],
            self.likelihood[rows],
            self.bins[rows],
        )

    def save(self, path: Path) -> None:
        """Write whole or not at all."""
        rings = self.rings.tocoo()
        with whole_file(path) as file:
            np.savez_compressed(
                file,
                format=FORMAT,
                names=np.array(self.names),
                classes=np.array(self.classes),
                scored=np.array(self.scored),
                widths=np.array(self.widths),
                band=self.band,
                image=rings.coords[0].astype(np.int32),
                cell=rings.coords[1].astype(np.int32),
                pixels=rings.data.astype(np.int64),
                boundary=self.boundary,
                contours=self.contours,
                likelihood=self.likelihood,
                bins=self.bins,
            )

    @classmethod
    def load(cls, path: Path) -> SplitCounts:
        """Load the counts of a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or of another format.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no counts at {path}: expected a file that `train` wrote.")
        damaged = f"{path} is damaged: expected the counts of a split. Score the run again."
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                stored = {key: file[key] for key in file.files}
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise ValueError(damaged) from error
        if "format" in stored and int(stored["format"]) != FORMAT:
            raise ValueError(
                f"{path} has counts of format {stored['format']}, this version reads {FORMAT}: "
                "score the run again."
            )
        try:
            cells = (len(stored["widths"]) + 1) * len(stored["classes"]) ** 2
            coordinates = stored["image"], stored["cell"]
            shape = (len(stored["names"]), cells)
            return cls(
                tuple(map(str, stored["names"])),
                tuple(map(str, stored["classes"])),
                tuple(map(int, stored["scored"])),
                tuple(map(int, stored["widths"])),
                "void" if stored["band"] == "void" else "edge",
                csr_array((stored["pixels"], coordinates), shape=shape),
                stored["boundary"],
                stored["contours"],
                stored["likelihood"],
                stored["bins"],
            )
        except KeyError as error:
            raise ValueError(damaged) from error


def joined(parts: Sequence[SplitCounts], order: Sequence[str]) -> SplitCounts:
    """Join the counts of several sets of images.

    Args:
        parts: at least one, of the same classes, scored ids, widths and band.
        order: names of all the images, as the result lists them.

    Raises:
        ValueError: an image is in two parts.
    """
    names = [name for part in parts for name in part.names]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"scored more than once: {', '.join(twice[:5])}")
    first = parts[0]
    whole = SplitCounts(
        tuple(names),
        first.classes,
        first.scored,
        first.widths,
        first.band,
        csr_array(vstack([part.rings for part in parts])),
        np.concatenate([part.boundary for part in parts]),
        np.concatenate([part.contours for part in parts]),
        np.concatenate([part.likelihood for part in parts]),
        np.concatenate([part.bins for part in parts]),
    )
    known = set(names)
    return whole.of([name for name in order if name in known])
