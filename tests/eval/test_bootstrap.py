"""Intervals against scipy's bootstrap, and what pairing does to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from eval.metrics import Bootstrap, Scorer, SplitCounts, mean_iou, score_named
from eval.metrics.bootstrap import interval_of

NUM_IMAGES = 40
CLASSES = ("sky", "cow", "grass")


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


# The ends of an interval of 20,000 resamples wander by about sd / 50 from draw to draw (the
# standard error of a 2.5 % quantile of a normal is 2.7 sd / sqrt(B)); twice that for two draws.
RESAMPLES = 20_000
WANDER = 4 * 2.7 / RESAMPLES**0.5


def test_interval_is_that_of_scipy() -> None:
    counts = counts_of(0.1)

    def miou(images: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(
            mean_iou(counts.confusions[images].sum(images.ndim + axis), counts.scored)
        )

    expected = stats.bootstrap(
        (np.arange(NUM_IMAGES),),
        miou,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=2000,
        rng=np.random.default_rng(1),
    )
    found = Bootstrap(NUM_IMAGES, num_resamples=RESAMPLES).interval([counts], score_named("miou"))
    assert found is not None
    assert found.value == mean_iou(counts.confusions.sum(0), counts.scored)
    tolerance = WANDER * float(expected.standard_error)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=tolerance)


def test_difference_over_seeds_is_that_of_scipy() -> None:
    ours = [counts_of(0.10, seed) for seed in (0, 1)]
    others = [counts_of(0.14, seed) for seed in (2, 3)]
    score = score_named("trimap_miou", "4")

    def difference(images: np.ndarray, axis: int) -> np.ndarray:
        def mean(runs: list[SplitCounts]) -> np.ndarray:
            each = [
                mean_iou(run.within(4)[images].sum(images.ndim + axis), run.scored) for run in runs
            ]
            return np.asarray(np.mean(each, axis=0))

        return np.asarray(mean(ours) - mean(others))

    expected = stats.bootstrap(
        (np.arange(NUM_IMAGES),),
        difference,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=2000,
        rng=np.random.default_rng(1),
    )
    bootstrap = Bootstrap(NUM_IMAGES, num_resamples=RESAMPLES)
    found = bootstrap.difference(ours, others, score)
    assert found is not None
    tolerance = WANDER * float(expected.standard_error)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=tolerance)
    assert found.excludes_zero


def test_pairing_by_image_narrows_the_difference() -> None:
    ours, others = counts_of(0.10), counts_of(0.14, 1)
    bootstrap, score = Bootstrap(NUM_IMAGES), score_named("miou")
    paired = bootstrap.difference([ours], [others], score)
    one, other = bootstrap.interval([ours], score), bootstrap.interval([others], score)
    assert paired is not None
    assert one is not None
    assert other is not None
    unpaired = np.hypot(one.high - one.low, other.high - other.low)
    assert paired.high - paired.low < 0.5 * unpaired


@pytest.mark.parametrize(
    ("name", "within"),
    [
        *((name, None) for name in ("miou", "fwiou", "boundary_iou", "boundary_f", "nll", "ece")),
        ("trimap_accuracy", "1"),
        ("iou_per_class", "cow"),
    ],
)
def test_every_score_lies_in_its_interval(name: str, within: str | None) -> None:
    counts = counts_of(0.1)
    found = Bootstrap(NUM_IMAGES).interval([counts], score_named(name, within))
    assert found is not None
    assert found.low < found.value < found.high


def test_the_same_arm_differs_by_nothing() -> None:
    counts = counts_of(0.1)
    found = Bootstrap(NUM_IMAGES).difference([counts], [counts], score_named("miou"))
    assert found == (0.0, 0.0, 0.0)
    assert not found.excludes_zero


def test_the_same_seed_gives_the_same_interval() -> None:
    counts, score = counts_of(0.1), score_named("miou")
    first, again, other = (
        Bootstrap(NUM_IMAGES, seed=seed).interval([counts], score) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_refuses_what_cannot_be_resampled() -> None:
    counts, score = counts_of(0.1), score_named("miou")
    with pytest.raises(ValueError, match="at least one image"):
        Bootstrap(0)
    with pytest.raises(ValueError, match="expected the counts of 3 images, got 40"):
        Bootstrap(3).interval([counts], score)
    fewer = counts.of(counts.names[:3])
    with pytest.raises(ValueError, match="the same images"):
        Bootstrap(NUM_IMAGES).interval([counts, fewer], score)


def test_resamples_with_nothing_to_count_are_left_out() -> None:
    assert interval_of(np.array([0.5, np.nan, 0.4, 0.6])) == pytest.approx((0.5, 0.405, 0.595))
    assert interval_of(np.array([np.nan, 0.4, 0.6])) is None
    assert interval_of(np.array([0.5, np.nan])) is None


def test_repr_names_the_numbers() -> None:
    assert repr(Bootstrap(7, num_resamples=20)) == "Bootstrap(num_images=7, num_resamples=20)"
