"""Intervals against scipy's bootstrap, and what pairing does to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from eval.metrics import Bootstrap, Scorer, SplitCounts, mean_iou, score_named
from eval.metrics.bootstrap import interval_of

NUM_IMAGES = 40
CLASSES = ("sky", "cow", "grass")

# The ends of an interval of 10,000 resamples wander by about sd / 37 from draw to draw (the
# standard error of a 2.5 % quantile of a normal is 2.7 sd / sqrt(B)); twice that for two draws.
RESAMPLES = 10_000
WANDER = 4 * 2.7 / RESAMPLES**0.5


def counts_of(error: float, seed: int = 0) -> SplitCounts:
    """Images of their own difficulty; `error` is the share of pixels that an arm gets wrong."""
    scorer = Scorer(CLASSES, (0, 1, 2), trimap_widths=(1, 4))
    for index in range(NUM_IMAGES):
        generator = torch.Generator().manual_seed(index)
        mask = torch.randint(0, 3, (12, 12), generator=generator).sort(1).values
        mask[5] = 255
        hard = torch.rand((), generator=generator)
        draw = torch.Generator().manual_seed(1000 * (seed + 1) + index)
        wrong = torch.rand(12, 12, generator=draw) < error + 0.5 * hard
        prediction = torch.where(wrong | (mask == 255), (mask + 1) % 3, mask)
        scorer.update(f"{index}", prediction, mask, torch.randn(3, 12, 12, generator=draw))
    return scorer.counts()


@pytest.fixture(scope="module")
def counts() -> SplitCounts:
    return counts_of(0.1)


def peer(statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[tuple[float, float], float]:
    """scipy's interval of a statistic of positions of images, (B, N) -> (B,); its tolerance."""
    found = stats.bootstrap(
        (np.arange(NUM_IMAGES),),
        lambda images, axis: statistic(images),
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=2000,
        rng=np.random.default_rng(1),
    )
    return tuple(found.confidence_interval), WANDER * float(found.standard_error)


def test_interval_is_that_of_scipy(counts: SplitCounts) -> None:
    expected, tolerance = peer(
        lambda images: mean_iou(counts.confusions[images].sum(-3), counts.scored)
    )
    found = Bootstrap(NUM_IMAGES, num_resamples=RESAMPLES).interval([counts], score_named("miou"))
    assert found is not None
    assert found.value == mean_iou(counts.confusions.sum(0), counts.scored)
    assert found[1:] == pytest.approx(expected, abs=tolerance)


def test_difference_over_seeds_is_that_of_scipy(counts: SplitCounts) -> None:
    ours, others = [counts, counts_of(0.10, 1)], [counts_of(0.14, seed) for seed in (2, 3)]

    def mean(runs: list[SplitCounts], images: np.ndarray) -> np.ndarray:
        each = [mean_iou(run.within(4)[images].sum(-3), run.scored) for run in runs]
        return np.asarray(np.mean(each, axis=0))

    expected, tolerance = peer(lambda images: mean(ours, images) - mean(others, images))
    bootstrap = Bootstrap(NUM_IMAGES, num_resamples=RESAMPLES)
    found = bootstrap.difference(ours, others, score_named("trimap_miou", "4"))
    assert found is not None
    assert found[1:] == pytest.approx(expected, abs=tolerance)


def test_the_same_arm_differs_by_nothing_and_the_same_seed_draws_the_same(counts) -> None:
    score = score_named("miou")
    assert Bootstrap(NUM_IMAGES).difference([counts], [counts], score) == (0.0, 0.0, 0.0)
    first, again, other = (
        Bootstrap(NUM_IMAGES, seed=seed).interval([counts], score) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_what_cannot_be_resampled_is_refused(counts: SplitCounts) -> None:
    score = score_named("miou")
    with pytest.raises(ValueError, match="at least one image"):
        Bootstrap(0)
    with pytest.raises(ValueError, match="expected the counts of 3 images, got 40"):
        Bootstrap(3).interval([counts], score)
    with pytest.raises(ValueError, match="the same images"):
        Bootstrap(NUM_IMAGES).interval([counts, counts.of(counts.names[:3])], score)


def test_resamples_with_nothing_to_count_are_left_out() -> None:
    assert interval_of(np.array([0.5, np.nan, 0.4, 0.6])) == pytest.approx((0.5, 0.405, 0.595))
    assert interval_of(np.array([np.nan, 0.4, 0.6])) is None
    assert interval_of(np.array([0.5, np.nan])) is None
