"""The scorer and its confusion matrices: against torchmetrics, and counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_confusion_matrix

from eval.metrics import Scorer, iou_per_class, mean_iou, pixel_accuracy, scores
from eval.metrics.boundary import band_distance
from eval.metrics.confusion import class_accuracy, foreground_miou, frequency_weighted_iou

CLASSES = ("sky", "cow", "grass", "road", "boat")

# Of 10 pixels of class 0 seven are found, of 5 of class 1 four; class 2 is absent.
CONFUSION = np.array([[7, 3, 0], [1, 4, 0], [0, 0, 0]])


def random_pair(seed: int, shape: tuple[int, int] = (24, 31)) -> tuple[Tensor, Tensor]:
    """A prediction and a mask of labels 0..3 (boat never occurs) with about 5 % void."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 4, shape, generator=generator)
    wrong = torch.rand(shape, generator=generator) < 0.3
    noise = torch.randint(0, 4, shape, generator=generator)
    prediction = torch.where(wrong, noise, mask)
    mask[torch.rand(shape, generator=generator) < 0.05] = 255
    return prediction, mask


def score(pairs: list[tuple[Tensor, Tensor]], **arguments: Any) -> dict[str, Any]:
    scorer = Scorer(CLASSES, arguments.pop("scored", range(len(CLASSES))), **arguments)
    for index, (prediction, mask) in enumerate(pairs):
        scorer.update(f"image {index}", prediction, mask)
    return scores(scorer.counts())


def test_an_image_that_does_not_fit_is_refused_and_leaves_no_trace() -> None:
    prediction, mask = random_pair(0)
    scorer = Scorer(CLASSES, (0,))

    def changed(ids: Tensor, value: int) -> Tensor:
        return ids.index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(value))

    scorer.update("cow", prediction, mask)
    for name, found, truth, message in (
        ("cow7", prediction[:, 1:], mask, r"cow7: .*\(24, 30\) and mask \(24, 31\).*native"),
        ("cow7", prediction[None], mask[None], r"\(H, W\)"),
        ("cow7", prediction.float(), mask, "argmax"),
        ("cow7", changed(prediction, -1), mask, "cow7: prediction: expected .* got -1"),
        ("cow7", changed(prediction, 255), mask, "cow7: prediction: expected .* got 255"),
        ("cow7", prediction, changed(mask, 5), r"cow7: mask: .*or 255 \(void\), got 5"),
        ("cow", prediction, mask, "'cow' was scored before"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            scorer.update(name, found, truth)
    assert scores(scorer.counts())["confusion"] == score([(prediction, mask)])["confusion"]
    for classes, scored, widths, message in (
        ((), (0,), (1,), "at least one class"),
        (CLASSES, (1, 1), (1,), r"ids within 0\.\.4"),
        (CLASSES, (0,), (3, 1), "ascending trimap widths"),
    ):
        with pytest.raises(ValueError, match=message):
            Scorer(classes, scored, trimap_widths=widths)
    with pytest.raises(ValueError, match="no image was scored"):
        scores(Scorer(CLASSES, (0,)).counts())


def test_confusion_and_iou_are_those_of_torchmetrics() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    index = MulticlassJaccardIndex(5, average="none", ignore_index=255)
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for prediction, mask in pairs:
        index.update(prediction, mask)
        confusion += multiclass_confusion_matrix(prediction, mask, num_classes=5, ignore_index=255)
    result = score(pairs)
    assert result["confusion"] == confusion.tolist()
    # torchmetrics divides in float32: relative rounding of 2^-24 a step. To it boat, which never
    # occurs, counts 0.
    expected = index.compute()[:4].tolist()
    found = list(result["iou_per_class"].values())[:4]
    assert [*found, result["miou"]] == pytest.approx([*expected, np.mean(expected)], rel=1e-6)


@pytest.mark.parametrize("band", ["void", "edge"])
def test_trimap_scores_are_those_of_the_masked_pixels(band: Any) -> None:
    pairs = [random_pair(seed) for seed in range(2)]
    widths = (1, 2, 4, 40)
    result = score(pairs, trimap_widths=widths, band=band)
    for width in widths:
        outside_void = []
        for prediction, mask in pairs:
            distance = torch.from_numpy(band_distance(mask.numpy(), band))
            outside_void.append((prediction, mask.where(distance <= width, 255)))
        expected = score(outside_void)
        assert result["trimap_miou"][str(width)] == expected["miou"]
        assert result["trimap_accuracy"][str(width)] == expected["pixel_accuracy"]
        assert result["trimap_class_accuracy"][str(width)] == expected["class_accuracy"]


def test_only_scored_classes_that_occur_enter_the_mean() -> None:
    result = score([random_pair(0)])
    ious = result["iou_per_class"]
    assert ious["boat"] is None
    # From 3.12 on Python's sum compensates its rounding, NumPy's does not.
    assert result["miou"] == pytest.approx(sum(ious[n] for n in CLASSES[:4]) / 4, rel=1e-15)
    some = score([random_pair(0)], scored=(1, 3))
    assert some["miou"] == (ious["cow"] + ious["road"]) / 2
    assert some["pixel_accuracy"] == result["pixel_accuracy"]
    predicted = score([(torch.full((2, 2), 4), torch.zeros(2, 2).long())])
    assert predicted["iou_per_class"]["boat"] == predicted["miou"] == 0.0


def test_prediction_under_void_is_not_counted() -> None:
    prediction, mask = random_pair(0)
    elsewhere = torch.where(mask == 255, (prediction + 1) % 5, prediction)
    result, expected = score([(elsewhere, mask)]), score([(prediction, mask)])
    # What is predicted on void finds true contours beside it, so it may change this one.
    del result["boundary_f"], expected["boundary_f"]
    assert result == expected
    nothing = score([(torch.zeros(3, 4).long(), torch.full((3, 4), 255))])
    assert nothing["miou"] is None
    assert nothing["images"] == [{"name": "image 0", "miou": None, "pixel_accuracy": None}]


def test_a_confusion_matrix_is_scored_by_hand() -> None:
    large = np.array([[2**24 + 1, 1], [0, 1]], dtype=np.int64)  # whole beyond float32
    assert iou_per_class(large).tolist() == [(2**24 + 1) / (2**24 + 2), 0.5]
    assert iou_per_class(CONFUSION)[:2].tolist() == [7 / 11, 4 / 8]
    assert mean_iou(CONFUSION, (0, 1, 2)) == (7 / 11 + 4 / 8) / 2
    assert pixel_accuracy(CONFUSION) == 11 / 15
    assert class_accuracy(CONFUSION, (0, 1, 2)) == (0.7 + 0.8) / 2
    # Two thirds of the pixels are of class 0, one third of class 1; rounding of a few divisions.
    weighted = (10 * (7 / 11) + 5 * (4 / 8)) / 15
    assert frequency_weighted_iou(CONFUSION) == pytest.approx(weighted, rel=1e-15)
    # Classes 1 and 2 taken as one: what is exchanged between them is right.
    exchanged = np.array([[7, 2, 1], [1, 0, 2], [0, 1, 1]])
    assert foreground_miou(exchanged) == (7 / 11 + 4 / 8) / 2
    truth = torch.from_numpy(np.repeat([0, 0, 1, 1], [7, 3, 1, 4]))
    prediction = torch.from_numpy(np.repeat([0, 1, 0, 1], [7, 3, 1, 4]))
    peer = MulticlassAccuracy(2, average="macro")(prediction, truth)
    assert float(peer) == pytest.approx(float(class_accuracy(CONFUSION, (0, 1))), rel=1e-6)
