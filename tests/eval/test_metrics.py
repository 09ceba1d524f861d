"""The scorer against torchmetrics, and against cases that can be counted by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_confusion_matrix

from eval.metrics import Scorer, iou_per_class, mean_iou, pixel_accuracy, scores
from eval.metrics.scores import SCORES, TRIMAP_SCORES
from eval.metrics.trimap import band_distance

CLASSES = ("sky", "cow", "grass", "road", "boat")


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


def test_result_has_the_agreed_keys_and_is_json() -> None:
    result = score([random_pair(0), random_pair(1)], trimap_widths=(1, 3))
    assert set(result) == {
        *SCORES,
        *TRIMAP_SCORES,
        "iou_per_class",
        "trimap_band",
        "confusion",
        "reliability",
        "images",
    }
    assert tuple(result["iou_per_class"]) == CLASSES
    assert list(result["trimap_miou"]) == list(result["trimap_accuracy"]) == ["1", "3"]
    assert np.shape(result["confusion"]) == (5, 5)
    assert [image["name"] for image in result["images"]] == ["image 0", "image 1"]
    assert json.loads(json.dumps(result)) == result


def test_refuses_shapes_that_differ() -> None:
    prediction, mask = random_pair(0)
    with pytest.raises(ValueError, match=r"cow7: .*\(24, 30\) and mask \(24, 31\).*native"):
        Scorer(CLASSES, (0,)).update("cow7", prediction[:, 1:], mask)


def test_refuses_a_batch() -> None:
    prediction, mask = random_pair(0)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        Scorer(CLASSES, (0,)).update("cow7", prediction[None], mask[None])


@pytest.mark.parametrize("wrong_id", [-1, 5, 255])
def test_refuses_predictions_outside_the_classes(wrong_id: int) -> None:
    prediction, mask = random_pair(0)
    prediction[2, 3] = wrong_id
    with pytest.raises(ValueError, match=rf"cow7: prediction: expected ids 0..4, got {wrong_id}"):
        Scorer(CLASSES, (0,)).update("cow7", prediction, mask)


@pytest.mark.parametrize("wrong_id", [-1, 5, 254])
def test_refuses_mask_ids_outside_the_classes(wrong_id: int) -> None:
    prediction, mask = random_pair(0)
    mask[2, 3] = wrong_id
    with pytest.raises(ValueError, match=rf"cow7: mask: .*or 255 \(void\), got {wrong_id}"):
        Scorer(CLASSES, (0,)).update("cow7", prediction, mask)


def test_refuses_logits() -> None:
    prediction, mask = random_pair(0)
    with pytest.raises(TypeError, match="argmax"):
        Scorer(CLASSES, (0,)).update("cow7", prediction.float(), mask)


def test_refuses_an_image_twice() -> None:
    scorer = Scorer(CLASSES, (0,))
    scorer.update("cow7", *random_pair(0))
    with pytest.raises(ValueError, match="'cow7' was scored before"):
        scorer.update("cow7", *random_pair(1))


def test_a_refused_image_leaves_no_trace() -> None:
    scorer = Scorer(CLASSES, (0,))
    prediction, mask = random_pair(0)
    with pytest.raises(ValueError, match="expected ids"):
        scorer.update("cow7", prediction + 9, mask)
    scorer.update("cow7", prediction, mask)
    assert scores(scorer.counts()) == score_named("cow7", prediction, mask)


def score_named(name: str, prediction: Tensor, mask: Tensor) -> dict[str, Any]:
    scorer = Scorer(CLASSES, (0,))
    scorer.update(name, prediction, mask)
    return scores(scorer.counts())


def test_refuses_a_result_without_images() -> None:
    with pytest.raises(ValueError, match="no image was scored"):
        scores(Scorer(CLASSES, (0,)).counts())


@pytest.mark.parametrize("scored", [(), (0, 5), (-1,), (1, 1)])
def test_refuses_wrong_scored_ids(scored: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scored ids within 0..4"):
        Scorer(CLASSES, scored)


@pytest.mark.parametrize("widths", [(), (0, 1), (3, 1), (2, 2)])
def test_refuses_wrong_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending trimap widths"):
        Scorer(CLASSES, (0,), trimap_widths=widths)


def test_refuses_no_classes() -> None:
    with pytest.raises(ValueError, match="at least one class"):
        Scorer((), ())


def test_confusion_is_that_of_torchmetrics() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    expected = sum(
        multiclass_confusion_matrix(p, m, num_classes=5, ignore_index=255) for p, m in pairs
    )
    assert isinstance(expected, Tensor)
    assert score(pairs)["confusion"] == expected.tolist()


def test_iou_is_that_of_torchmetrics() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    macro = MulticlassJaccardIndex(5, average="macro", ignore_index=255)
    each = MulticlassJaccardIndex(5, average="none", ignore_index=255)
    for prediction, mask in pairs:
        macro.update(prediction, mask)
        each.update(prediction, mask)
    result = score(pairs)
    # torchmetrics divides in float32: relative rounding of 2^-24 a step.
    assert result["miou"] == pytest.approx(float(macro.compute()), rel=1e-6)
    assert list(result["iou_per_class"].values())[:4] == pytest.approx(
        each.compute()[:4].tolist(), rel=1e-6
    )


@pytest.mark.parametrize("band", ["void", "edge"])
def test_trimap_scores_are_those_of_the_masked_pixels(band: Any) -> None:
    pairs = [random_pair(seed) for seed in range(2)]
    widths = (1, 2, 4)
    result = score(pairs, trimap_widths=widths, band=band)
    for width in widths:
        outside_void = []
        for prediction, mask in pairs:
            distance = torch.from_numpy(band_distance(mask.numpy(), band))
            outside_void.append((prediction, mask.where(distance <= width, 255)))
        expected = score(outside_void)
        assert result["trimap_miou"][str(width)] == expected["miou"]
        assert result["trimap_accuracy"][str(width)] == expected["pixel_accuracy"]


def test_data_set_iou_is_not_the_mean_over_images() -> None:
    # A small object that is missed and a large one that is found: the mean over images says 0.5,
    # the data set's IoU says that 90 of 100 pixels were found.
    small_truth, large_truth = torch.zeros(10, 10).long(), torch.zeros(10, 10).long()
    small_truth[0] = 1
    large_truth[1:] = 1
    result = score([(torch.zeros(10, 10).long(), small_truth), (large_truth, large_truth)])
    assert result["iou_per_class"]["cow"] == 0.9
    assert result["iou_per_class"]["sky"] == 100 / 110
    assert result["miou"] == (0.9 + 100 / 110) / 2
    assert [image["miou"] for image in result["images"]] == [0.45, 1.0]
    assert result["miou"] != (0.45 + 1.0) / 2


def test_wide_band_holds_every_pixel() -> None:
    result = score([random_pair(0)], trimap_widths=(1, 40))
    assert result["trimap_miou"]["40"] == result["miou"]
    assert result["trimap_accuracy"]["40"] == result["pixel_accuracy"]


def test_absent_class_is_none_and_outside_the_mean() -> None:
    result = score([random_pair(0)])
    assert result["iou_per_class"]["boat"] is None
    present = [iou for iou in result["iou_per_class"].values() if iou is not None]
    assert len(present) == 4
    assert result["miou"] == sum(present) / 4


def test_predicted_but_absent_class_scores_zero() -> None:
    result = score([(torch.full((2, 2), 4), torch.zeros(2, 2).long())])
    assert result["iou_per_class"]["boat"] == 0.0
    assert result["miou"] == 0.0


def test_headline_takes_scored_classes_only() -> None:
    result = score([random_pair(0)], scored=(1, 3))
    ious = result["iou_per_class"]
    assert result["miou"] == (ious["cow"] + ious["road"]) / 2
    assert result["pixel_accuracy"] == score([random_pair(0)])["pixel_accuracy"]


def test_order_of_images_does_not_matter() -> None:
    pairs = [random_pair(seed, (9 + seed, 12)) for seed in range(3)]
    forward, backward = score(pairs), score(pairs[::-1])
    for key in ("miou", "trimap_miou", "confusion"):
        assert forward[key] == backward[key]


def test_prediction_under_void_is_not_counted() -> None:
    prediction, mask = random_pair(0)
    elsewhere = torch.where(mask == 255, (prediction + 1) % 5, prediction)
    result, expected = score([(elsewhere, mask)]), score([(prediction, mask)])
    # What is predicted on void finds true contours beside it, so it may change this one.
    del result["boundary_f"], expected["boundary_f"]
    assert result == expected


def test_layout_and_type_do_not_matter() -> None:
    prediction, mask = random_pair(0)
    expected = score([(prediction.t().contiguous(), mask.t().contiguous())])
    assert score([(prediction.t(), mask.t())]) == expected
    assert score([(prediction.t().to(torch.uint8), mask.t().to(torch.uint8))]) == expected


def test_counts_stay_whole_beyond_float32() -> None:
    confusion = np.array([[2**24 + 1, 1], [0, 1]], dtype=np.int64)
    assert iou_per_class(confusion).tolist() == [(2**24 + 1) / (2**24 + 2), 0.5]
    assert pixel_accuracy(confusion) == (2**24 + 2) / (2**24 + 3)


def test_image_of_void_only_scores_nothing() -> None:
    result = score([(torch.zeros(3, 4).long(), torch.full((3, 4), 255))])
    assert result["miou"] is None
    assert result["pixel_accuracy"] is None
    assert result["images"] == [{"name": "image 0", "miou": None, "pixel_accuracy": None}]


def test_image_without_void_has_an_empty_void_band() -> None:
    mask = random_pair(0)[1].clamp(max=3)
    result = score([(mask, mask)])
    assert result["miou"] == 1.0
    assert result["trimap_miou"]["40"] is None
    assert result["trimap_accuracy"]["40"] is None


def test_one_pixel_and_one_class() -> None:
    scorer = Scorer(("all",), (0,))
    scorer.update("dot", torch.zeros(1, 1).long(), torch.zeros(1, 1).long())
    assert scores(scorer.counts())["miou"] == 1.0
    assert np.isnan(mean_iou(np.zeros((1, 1), dtype=np.int64), (0,)))


def test_repr_names_the_configuration() -> None:
    scorer = Scorer(CLASSES, (1, 3), trimap_widths=(1, 2), band="edge")
    assert repr(scorer) == (
        "Scorer(classes=5, scored=(1, 3), trimap_widths=(1, 2), band='edge', images=0)"
    )
