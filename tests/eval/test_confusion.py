"""Scores of confusion matrices against torchmetrics and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from eval.metrics.confusion import (
    class_accuracy,
    frequency_weighted_iou,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
)

# Of 10 pixels of class 0 seven are found, of 5 of class 1 four; class 2 is absent.
CONFUSION = np.array([[7, 3, 0], [1, 4, 0], [0, 0, 0]])


def test_leading_axes_are_scored_one_by_one() -> None:
    many = np.random.default_rng(0).integers(0, 9, size=(4, 2, 5, 5))
    many[1, 0] = 0  # nothing at all
    many[2, 1, 3] = many[2, 1, :, 3] = 0  # one class absent
    for score in (
        iou_per_class,
        frequency_weighted_iou,
        pixel_accuracy,
        lambda c: mean_iou(c, (0, 3)),
        lambda c: class_accuracy(c, (0, 3)),
    ):
        together = score(many)
        for index in np.ndindex(4, 2):
            np.testing.assert_array_equal(together[index], score(many[index]))


def test_a_table_by_hand() -> None:
    assert iou_per_class(CONFUSION)[:2].tolist() == [7 / 11, 4 / 8]
    assert np.isnan(iou_per_class(CONFUSION)[2])
    assert mean_iou(CONFUSION, (0, 1, 2)) == (7 / 11 + 4 / 8) / 2
    assert pixel_accuracy(CONFUSION) == 11 / 15
    assert class_accuracy(CONFUSION, (0, 1, 2)) == (0.7 + 0.8) / 2
    # two thirds of the pixels are of class 0, one third of class 1; rounding of a few divisions
    assert frequency_weighted_iou(CONFUSION) == pytest.approx(
        (10 * (7 / 11) + 5 * (4 / 8)) / 15, rel=1e-15
    )


def test_class_accuracy_is_that_of_torchmetrics() -> None:
    truth = torch.from_numpy(np.repeat([0, 0, 1, 1], [7, 3, 1, 4]))
    prediction = torch.from_numpy(np.repeat([0, 1, 0, 1], [7, 3, 1, 4]))
    macro = MulticlassAccuracy(2, average="macro")
    assert float(macro(prediction, truth)) == pytest.approx(
        float(class_accuracy(CONFUSION, (0, 1))), rel=1e-6
    )


def test_nothing_is_nan_in_every_score() -> None:
    nothing = np.zeros((3, 3))
    assert np.isnan(iou_per_class(nothing)).all()
    for value in (
        mean_iou(nothing, (0, 1)),
        frequency_weighted_iou(nothing),
        pixel_accuracy(nothing),
        class_accuracy(nothing, (0, 1)),
    ):
        assert np.isnan(value)
