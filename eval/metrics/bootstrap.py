"""Intervals by resampling the images: how much of a difference is the choice of the test images.

One set of resamples serves every score of every arm, so differences are paired by image: an image
that is hard for all arms cancels. With several seeds a score is the mean over the seeds, all of
them scored on the same resampled images; the interval then tells of the images, and the spread
over the seeds of the training.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval.metrics.confusion import Floats
from eval.metrics.counts import SplitCounts
from eval.metrics.scores import Score

NUM_RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A score of the images there are, and where it falls for resampled ones.

    Attributes:
        value: of the images there are.
        low, high: between which the middle 95 % of the resamples lie.
    """

    value: float
    low: float
    high: float


class Bootstrap:
    """Resamples of N images, drawn once, with replacement.

    Args:
        num_images: N.
        num_resamples: B.
        seed: of the draw: the same numbers give the same intervals.

    Raises:
        ValueError: no image, or no resample.
    """

    def __init__(
        self, num_images: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
    ) -> None:
        if num_images < 1 or num_resamples < 1:
            raise ValueError(
                f"expected at least one image and one resample, got {num_images} and "
                f"{num_resamples}."
            )
        generator = np.random.default_rng(seed)
        uniform = np.full(num_images, 1 / num_images)
        # (1 + B, N): the images themselves first, then how often each resample takes each.
        self._weights = np.concatenate(
            [
                np.ones((1, num_images), dtype=np.int64),
                generator.multinomial(num_images, uniform, size=num_resamples),
            ]
        )

    def __repr__(self) -> str:
        resamples, images = self._weights.shape
        return f"Bootstrap(num_images={images}, num_resamples={resamples - 1})"

    def values(self, runs: Sequence[SplitCounts], score: Score) -> Floats:
        """(1 + B,): the mean over the runs of a score, of all images and of every resample.

        Args:
            runs: the counts of one arm, one of each seed, of the same N images in the same order.
            score: see `scores.score_named`.

        Raises:
            ValueError: no run, or runs of other images.
        """
        if not runs or any(run.names != runs[0].names for run in runs):
            raise ValueError("expected at least one run, and all of the same images in one order.")
        if len(runs[0]) != self._weights.shape[1]:
            raise ValueError(
                f"expected the counts of {self._weights.shape[1]} images, got {len(runs[0])}."
            )
        return np.asarray(np.mean([score(run, self._weights) for run in runs], axis=0))

    def interval(self, runs: Sequence[SplitCounts], score: Score) -> Interval | None:
        """Estimate a score of an arm with its interval; None where it does not exist."""
        return interval_of(self.values(runs, score))

    def difference(
        self, runs: Sequence[SplitCounts], others: Sequence[SplitCounts], score: Score
    ) -> Interval | None:
        """Estimate the score of an arm minus that of another, on the same resamples."""
        return interval_of(self.values(runs, score) - self.values(others, score))


def interval_of(values: Floats, level: float = LEVEL) -> Interval | None:
    """Return the first value, and the percentiles of the others.

    Args:
        values: (1 + B,), NaN where a resample has nothing to count: these are left out.
        level: share of the resamples within.

    Returns:
        None where the value itself, or every resample, is NaN.
    """
    resampled = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not resampled.size:
        return None
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))
