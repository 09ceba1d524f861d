"""The loss: its terms, its weights, and the labels of every scale of an input pyramid."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from data import VOID
from models import (
    DeepLabV1Config,
    DeepLabV2Config,
    ScaleLogits,
    Segmenter,
    SegmenterConfig,
    SegmenterOutput,
    VggConfig,
)
from train.losses.boundary import boundary_weights
from train.losses.class_weights import class_weights
from train.losses.hard_pixels import hard_pixels
from train.losses.lovasz import lovasz_softmax
from train.objective import LossConfig, Target, loss_terms, scale_target, weighed


@pytest.fixture
def masks() -> torch.Tensor:
    return torch.randint(0, 3, (2, 40, 30), generator=torch.Generator().manual_seed(0))


def test_every_scale_has_a_loss_of_equal_weight(masks) -> None:
    """DeepLab v2: the losses of the scales and of their maximum are added."""
    unary = torch.randn(2, 3, 40, 30)
    scales = (ScaleLogits(torch.randn(2, 3, 3, 2), 16), ScaleLogits(torch.randn(2, 3, 5, 4), 8))
    terms = loss_terms(SegmenterOutput(unary, None, scales), masks, LossConfig(unary=0.0))
    expected = F.cross_entropy(unary, masks)
    expected = expected + F.cross_entropy(scales[0].logits, masks[:, ::16, ::16])
    expected = expected + F.cross_entropy(scales[1].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["loss_unary"] is terms["loss"]


def test_behind_a_crf_the_scales_belong_to_the_unary_term(masks) -> None:
    unary, crf = torch.randn(2, 3, 40, 30), torch.randn(2, 3, 40, 30)
    scales = (ScaleLogits(torch.randn(2, 3, 5, 4), 8),)
    terms = loss_terms(SegmenterOutput(unary, crf, scales), masks, LossConfig(unary=0.5))
    torch.testing.assert_close(terms["loss_crf"], F.cross_entropy(crf, masks))
    expected = F.cross_entropy(unary, masks)
    expected = expected + F.cross_entropy(scales[0].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss_unary"], expected)
    torch.testing.assert_close(terms["loss"], (terms["loss_crf"] + 0.5 * expected) / 1.5)


def test_logits_on_padding_have_no_label(masks) -> None:
    weights = torch.ones(masks.shape)
    labels, padded = scale_target(
        ScaleLogits(torch.zeros(2, 3, 9, 9), 8), Target(masks, weights)
    )  # of 65 x 65 pixels
    assert padded is not None
    assert labels.shape == (2, 9, 9)
    assert torch.equal(padded, (labels != VOID).float())
    assert torch.equal(labels[:, :5, :4], masks[:, ::8, ::8])
    assert (labels[:, 5:] == VOID).all()
    assert (labels[:, :, 4:] == VOID).all()


VGG = VggConfig(fc_channels=16, dropout=0.0)


@pytest.mark.parametrize("size", [(65, 41), (33, 33)])  # 8 k + 1
def test_at_every_eighth_pixel_the_enlarged_logits_are_the_networks_own(size) -> None:
    segmenter = Segmenter(SegmenterConfig(3, DeepLabV1Config(backbone=VGG))).eval()
    image = torch.randint(0, 256, (2, 3, *size))
    with torch.no_grad():
        enlarged, coarse = segmenter.unary(image.float()), segmenter.coarse_unary(image.float())
    assert torch.equal(enlarged[..., ::8, ::8], coarse)


def test_a_loss_at_stride_8_asks_every_eighth_pixel(masks) -> None:
    logits = torch.randn(2, 3, 40, 30)
    terms = loss_terms(SegmenterOutput(logits, None), masks, LossConfig(label_stride=8))
    expected = F.cross_entropy(logits[..., ::8, ::8], masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss"], expected, rtol=0, atol=0)
    behind = loss_terms(
        SegmenterOutput(logits, 2 * logits), masks, LossConfig(unary=0.0, label_stride=8)
    )
    expected = F.cross_entropy(2 * logits[..., ::8, ::8], masks[:, ::8, ::8])
    torch.testing.assert_close(behind["loss"], expected, rtol=0, atol=0)


def test_the_four_losses_of_deeplab_v2_are_those_of_the_prototxt() -> None:
    """Labels of every 8th pixel for scales 1 and 0.75 and their maximum, of every 16th for 0.5."""
    config = DeepLabV2Config(backbone=VGG, rates=(), scales=(0.5, 0.75, 1.0))
    segmenter = Segmenter(SegmenterConfig(3, config)).train()
    image = torch.randint(0, 256, (1, 3, 65, 65)).float()
    labels = torch.randint(0, 3, (1, 65, 65))
    terms = loss_terms(segmenter(image), labels, LossConfig(label_stride=8))
    network = segmenter.network

    def at(size: int) -> torch.Tensor:
        small = F.interpolate(
            network.normalize(image), (size, size), mode="bilinear", align_corners=True
        )
        return network.single_scale(small)  # type: ignore[operator, no-any-return]

    half, middle, full = at(33), at(49), at(65)
    grown = [
        F.interpolate(x, (9, 9), mode="bilinear", align_corners=True) for x in (half, middle, full)
    ]
    eighth, sixteenth = labels[:, ::8, ::8], labels[:, ::16, ::16]
    expected = F.cross_entropy(full, eighth) + F.cross_entropy(grown[1], eighth)
    expected = expected + F.cross_entropy(half, sixteenth)
    expected = expected + F.cross_entropy(torch.stack(grown).amax(dim=0), eighth)
    torch.testing.assert_close(terms["loss"], expected)


def test_the_default_is_the_mean_cross_entropy_to_the_last_bit(masks) -> None:
    """The published results of collage and voc12-animals were trained with it."""
    masks[:, :7] = VOID
    logits = torch.randn(2, 3, 40, 30)
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, LossConfig())
    total = F.cross_entropy(logits, masks, ignore_index=VOID, reduction="sum")
    assert torch.equal(terms["loss_unary"], total / (masks != VOID).sum())
    assert torch.equal(terms["loss"], (terms["loss_crf"] + 4 * terms["loss_unary"]) / 5)


def test_weights_of_classes_reach_every_map(masks) -> None:
    masks[0, :20] = VOID
    unary, crf = torch.randn(2, 3, 40, 30), torch.randn(2, 3, 40, 30)
    scale = ScaleLogits(torch.randn(2, 3, 5, 4), 8)
    config = LossConfig(unary=1.0, class_weights=(0.5, 0.0, 4.0))
    terms = loss_terms(SegmenterOutput(unary, crf, (scale,)), masks, config)
    weight = torch.tensor(config.class_weights)

    def expected(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, weight=weight, ignore_index=VOID)

    torch.testing.assert_close(terms["loss_crf"], expected(crf, masks))
    both = expected(unary, masks) + expected(scale.logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss_unary"], both)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unary": -1.0}, "loss.unary must be at least 0, got -1.0"),
        ({"label_stride": 4}, "loss.label_stride must be 1 or 8, got 4"),
        ({"cross_entropy": -1.0}, "loss.cross_entropy must be at least 0, got -1.0"),
        ({"lovasz": float("nan")}, "loss.lovasz must be at least 0, got nan"),
        ({"cross_entropy": 0.0}, "one of loss.cross_entropy and loss.lovasz must be above 0"),
        ({"hard_share": 0.0}, "loss.hard_share must be in (0, 1], got 0.0"),
        ({"boundary_weight": 0.0}, "loss.boundary_weight must be above 0, got 0.0"),
        ({"boundary_radius": 0}, "loss.boundary_radius must be at least 1 pixel, got 0"),
        ({"class_weights": (1.0, -1.0)}, "loss.class_weights must be at least 0"),
        ({"class_weights": (0.0, 0.0)}, "one of them above, got (0.0, 0.0)"),
        ({"balance": -0.5}, "loss.balance must be at least 0, got -0.5"),
        ({"balance": 0.5, "class_weights": (1.0, 2.0)}, "say the same twice: give one of them"),
    ],
)
def test_bad_numbers(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LossConfig(**values)


def test_balance_becomes_weights_of_the_training_split(masks) -> None:
    config = weighed(LossConfig(balance=0.5, lovasz=0.25), torch.tensor([900, 100, 400]))
    assert config == LossConfig(class_weights=(1.0, 3.0, 1.5), lovasz=0.25)
    with pytest.raises(ValueError, match="balance needs the training split"):
        loss_terms(SegmenterOutput(torch.randn(2, 3, 40, 30), None), masks, LossConfig(balance=1))


def test_class_weights_are_one_for_each_class(masks) -> None:
    output = SegmenterOutput(torch.randn(2, 3, 40, 30), None)
    with pytest.raises(ValueError, match="one for each of 3 classes, got 2"):
        loss_terms(output, masks, LossConfig(class_weights=(1.0, 2.0)))


def test_lovasz_stands_beside_cross_entropy_or_alone(masks) -> None:
    masks[0, :20] = VOID
    unary, crf = torch.randn(2, 3, 40, 30), torch.randn(2, 3, 40, 30)
    scale = ScaleLogits(torch.randn(2, 3, 5, 4), 8)
    output = SegmenterOutput(unary, crf, (scale,))
    both = LossConfig(
        unary=1.0, cross_entropy=0.5, lovasz=2.0, lovasz_classes="all", lovasz_per_image=True
    )

    def lovasz(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return lovasz_softmax(logits, labels, classes="all", per_image=True)

    terms = loss_terms(output, masks, both)
    expected = 0.5 * F.cross_entropy(crf, masks, ignore_index=VOID) + 2 * lovasz(crf, masks)
    torch.testing.assert_close(terms["loss_crf"], expected)
    alone = loss_terms(output, masks, replace(both, cross_entropy=0.0))
    torch.testing.assert_close(alone["loss_crf"], 2 * lovasz(crf, masks))
    expected = 2 * lovasz(unary, masks) + 2 * lovasz(scale.logits, masks[:, ::8, ::8])
    torch.testing.assert_close(alone["loss_unary"], expected)


def test_hard_pixels_are_chosen_with_their_weights(masks) -> None:
    """Edges are those of the whole mask, also where the loss asks every eighth pixel."""
    logits = torch.randn(2, 3, 40, 30)
    config = LossConfig(
        label_stride=8,
        hard_share=0.25,
        class_weights=(1.0, 0.5, 2.0),
        boundary_weight=3.0,
        boundary_radius=1,
    )
    masks[:, :20] = 0  # no edges there
    weights = boundary_weights(masks, 3.0, 1) * class_weights(masks, config.class_weights)
    terms = loss_terms(SegmenterOutput(logits, None), masks, config)
    small = (logits[..., ::8, ::8], masks[:, ::8, ::8], 0.25, weights[:, ::8, ::8])
    torch.testing.assert_close(terms["loss"], hard_pixels(*small))
