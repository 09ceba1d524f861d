"""Likelihood and calibration against torch, torchmetrics and hand-made bins."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from eval.metrics.calibration import calibration_counts, expected_calibration_error, num_pixels


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5, 30, 40, generator=generator)
    mask = torch.randint(0, 5, (30, 40), generator=generator)
    mask[torch.rand(30, 40, generator=generator) < 0.1] = 255
    return logits, mask


def test_nll_and_brier_are_those_of_torch(scene) -> None:
    logits, mask = scene
    counts = calibration_counts(logits, mask)
    labelled = mask != 255
    # float32 rounding of each pixel's term, 2^-23 of it
    nll = F.cross_entropy(logits.double()[None], mask[None], ignore_index=255, reduction="sum")
    assert counts.nll == pytest.approx(float(nll), rel=1e-6)
    p = logits.double().softmax(0)[:, labelled]
    one_hot = F.one_hot(mask[labelled], 5).T
    assert counts.brier == pytest.approx(float((p - one_hot).square().sum()), rel=1e-6)
    assert num_pixels(counts.bins) == labelled.sum()


def test_ece_is_that_of_torchmetrics(scene) -> None:
    logits, mask = scene
    bins = calibration_counts(logits, mask).bins
    expected = multiclass_calibration_error(
        logits[None], mask[None], num_classes=5, n_bins=15, ignore_index=255
    )
    # torchmetrics sums in float32
    assert float(expected_calibration_error(bins)) == pytest.approx(float(expected), abs=1e-5)


def test_bins_by_hand() -> None:
    # Two labels, p = 0.7 for the first at three pixels; right at two of them.
    logits = torch.tensor([math.log(0.7), math.log(0.3)])[:, None, None].expand(2, 1, 3)
    bins = calibration_counts(logits, torch.tensor([[0, 0, 1]])).bins
    filled = bins[:, 0].nonzero()[0].tolist()
    assert filled == [10]  # 0.7 lies within 10/15 .. 11/15
    assert bins[10].tolist() == [3, 2, pytest.approx(2.1, rel=1e-6)]
    assert expected_calibration_error(bins) == pytest.approx(0.7 - 2 / 3, rel=1e-5)


def test_certainty_does_not_overflow() -> None:
    logits = torch.tensor([[[1e4]], [[-1e4]]])
    right = calibration_counts(logits, torch.tensor([[0]]))
    wrong = calibration_counts(logits, torch.tensor([[1]]))
    assert (float(right.nll), float(right.brier)) == (0.0, 0.0)
    assert (float(wrong.nll), float(wrong.brier)) == (2e4, 2.0)
    assert right.bins[-1].tolist() == [1, 1, 1]


def test_void_only_counts_nothing() -> None:
    counts = calibration_counts(torch.zeros(2, 3, 4), torch.full((3, 4), 255))
    assert (float(counts.nll), float(counts.brier), counts.bins.sum()) == (0.0, 0.0, 0.0)
