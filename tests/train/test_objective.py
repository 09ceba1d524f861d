"""The loss: its terms, its weights, and the labels of every scale of an input pyramid."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID
from models import (
    DeepLabV2Config,
    ScaleLogits,
    Segmenter,
    SegmenterConfig,
    SegmenterOutput,
    VggConfig,
)
from train.losses import (
    LossConfig,
    Target,
    boundary_weights,
    class_weights,
    hard_pixels,
    loss_terms,
    lovasz_softmax,
    scale_target,
    weighed,
)


@pytest.fixture
def masks() -> Tensor:
    """(2, 40, 30) of three classes, the first rows void."""
    masks = torch.randint(0, 3, (2, 40, 30))
    masks[:, :7] = VOID
    return masks


@pytest.fixture
def output() -> SegmenterOutput:
    """Of a network with a CRF and a scale at stride 8."""
    unary, crf = torch.randn(2, 3, 40, 30), torch.randn(2, 3, 40, 30)
    return SegmenterOutput(unary, crf, (ScaleLogits(torch.randn(2, 3, 5, 4), 8),))


def mean_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=VOID)


def test_the_default_is_the_mean_cross_entropy_to_the_last_bit(masks) -> None:
    """The published results of collage and voc12-animals were trained with it."""
    logits = torch.randn(2, 3, 40, 30)
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, LossConfig())
    for name, of in (("loss_unary", logits), ("loss_crf", 2 * logits)):
        total = F.cross_entropy(of, masks, ignore_index=VOID, reduction="sum")
        assert torch.equal(terms[name], total / (masks != VOID).sum())
    assert torch.equal(terms["loss"], (terms["loss_crf"] + 4 * terms["loss_unary"]) / 5)


def test_every_scale_has_a_loss_of_equal_weight_in_the_unary_term(masks, output) -> None:
    """DeepLab v2: the losses of the scales and of their maximum are added."""
    coarser = ScaleLogits(torch.randn(2, 3, 3, 2), 16)
    unary = mean_entropy(output.unary, masks)
    unary = unary + mean_entropy(output.scales[0].logits, masks[:, ::8, ::8])
    unary = unary + mean_entropy(coarser.logits, masks[:, ::16, ::16])
    output = output._replace(scales=(*output.scales, coarser))
    terms = loss_terms(output, masks, LossConfig(unary=0.5))
    torch.testing.assert_close(terms["loss_unary"], unary)
    torch.testing.assert_close(terms["loss_crf"], mean_entropy(output.crf, masks))
    torch.testing.assert_close(terms["loss"], (terms["loss_crf"] + 0.5 * unary) / 1.5)
    alone = loss_terms(output._replace(crf=None), masks, LossConfig(unary=0.0))
    assert alone.keys() == {"loss", "loss_unary"}
    torch.testing.assert_close(alone["loss"], unary)


def test_logits_on_padding_have_no_label(masks) -> None:
    scale = ScaleLogits(torch.zeros(2, 3, 9, 9), 8)  # of 65 x 65 pixels
    labels, padded = scale_target(scale, Target(masks, torch.ones(masks.shape)))
    assert padded is not None
    assert labels.shape == (2, 9, 9)
    assert torch.equal(labels[:, :5, :4], masks[:, ::8, ::8])
    assert torch.equal(padded[:, :5, :4], torch.ones(2, 5, 4))
    for rest in (labels[:, 5:], labels[:, :, 4:]):
        assert (rest == VOID).all()
    assert padded.sum() == 2 * 5 * 4


def test_a_loss_at_stride_8_asks_every_eighth_pixel(masks) -> None:
    logits = torch.randn(2, 3, 40, 30)
    config = LossConfig(unary=0.0, label_stride=8)
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, config)
    for name, of in (("loss_unary", logits), ("loss", 2 * logits)):
        expected = mean_entropy(of[..., ::8, ::8], masks[:, ::8, ::8])
        torch.testing.assert_close(terms[name], expected)


def test_the_four_losses_of_deeplab_v2_are_those_of_the_prototxt() -> None:
    """Labels of every 8th pixel for scales 1 and 0.75 and their maximum, of every 16th for 0.5."""
    vgg = VggConfig(fc_channels=16, dropout=0.0)
    config = DeepLabV2Config(backbone=vgg, rates=(), scales=(0.5, 0.75, 1.0))
    segmenter = Segmenter(SegmenterConfig(3, config)).train()
    image = torch.randint(0, 256, (1, 3, 65, 65)).float()
    labels = torch.randint(0, 3, (1, 65, 65))
    terms = loss_terms(segmenter(image), labels, LossConfig(label_stride=8))
    network = segmenter.network

    def resized(x: Tensor, size: int) -> Tensor:
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=True)

    half, middle, full = (
        network.single_scale(resized(network.normalize(image), size))  # type: ignore[operator]
        for size in (33, 49, 65)
    )
    grown = [resized(x, 9) for x in (half, middle, full)]
    eighth, sixteenth = labels[:, ::8, ::8], labels[:, ::16, ::16]
    expected = mean_entropy(full, eighth) + mean_entropy(grown[1], eighth)
    expected = expected + mean_entropy(half, sixteenth)
    expected = expected + mean_entropy(torch.stack(grown).amax(dim=0), eighth)
    torch.testing.assert_close(terms["loss"], expected)


def test_weights_of_classes_reach_every_map(masks, output) -> None:
    config = LossConfig(unary=1.0, class_weights=(0.5, 0.0, 4.0))
    terms = loss_terms(output, masks, config)
    weight = torch.tensor(config.class_weights)

    def expected(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=weight, ignore_index=VOID)

    torch.testing.assert_close(terms["loss_crf"], expected(output.crf, masks))
    both = expected(output.unary, masks)
    both = both + expected(output.scales[0].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(terms["loss_unary"], both)
    with pytest.raises(ValueError, match="one for each of 3 classes, got 2"):
        loss_terms(output, masks, LossConfig(class_weights=(1.0, 2.0)))


def test_balance_becomes_weights_of_the_training_split(masks, output) -> None:
    config = weighed(LossConfig(balance=0.5, lovasz=0.25), torch.tensor([900, 100, 400]))
    assert config == LossConfig(class_weights=(1.0, 3.0, 1.5), lovasz=0.25)
    with pytest.raises(ValueError, match="balance needs the training split"):
        loss_terms(output, masks, LossConfig(balance=1))


def test_lovasz_stands_beside_cross_entropy_or_alone(masks, output) -> None:
    masks[0] = VOID  # so that per image differs
    masks[0, :8] = 1
    both = LossConfig(cross_entropy=0.5, lovasz=2.0, lovasz_classes="all", lovasz_per_image=True)

    def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
        return lovasz_softmax(logits, labels, classes="all", per_image=True)

    terms = loss_terms(output, masks, both)
    expected = 0.5 * mean_entropy(output.crf, masks) + 2 * lovasz(output.crf, masks)
    torch.testing.assert_close(terms["loss_crf"], expected)
    alone = loss_terms(output, masks, replace(both, cross_entropy=0.0))
    expected = 2 * lovasz(output.unary, masks)
    expected = expected + 2 * lovasz(output.scales[0].logits, masks[:, ::8, ::8])
    torch.testing.assert_close(alone["loss_unary"], expected)


def test_hard_pixels_are_chosen_with_their_weights(masks) -> None:
    """Edges are those of the whole mask, also where the loss asks every eighth pixel."""
    logits = torch.randn(2, 3, 40, 30)
    masks[:, :20] = 0  # no edges there
    weights = boundary_weights(masks, 3.0, 1) * class_weights(masks, (1.0, 0.5, 2.0))
    config = LossConfig(
        label_stride=8,
        hard_share=0.25,
        class_weights=(1.0, 0.5, 2.0),
        boundary_weight=3.0,
        boundary_radius=1,
    )
    terms = loss_terms(SegmenterOutput(logits, None), masks, config)
    small = (logits[..., ::8, ::8], masks[:, ::8, ::8], 0.25, weights[:, ::8, ::8])
    torch.testing.assert_close(terms["loss"], hard_pixels(*small))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unary": -1.0}, "loss.unary must be at least 0"),
        ({"lovasz": float("nan")}, "loss.lovasz must be at least 0"),
        ({"cross_entropy": 0.0}, "one of loss.cross_entropy and loss.lovasz must be above 0"),
        ({"label_stride": 4}, "loss.label_stride must be 1 or 8"),
        ({"hard_share": 0.0}, "loss.hard_share must be in (0, 1]"),
        ({"boundary_weight": 0.0}, "loss.boundary_weight must be above 0"),
        ({"boundary_radius": 0}, "loss.boundary_radius must be at least 1 pixel"),
        ({"class_weights": (1.0, -1.0)}, "loss.class_weights must be at least 0"),
        ({"class_weights": (0.0, 0.0)}, "one of them above, got (0.0, 0.0)"),
        ({"balance": 0.5, "class_weights": (1.0, 2.0)}, "say the same twice: give one of them"),
    ],
)
def test_bad_numbers(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LossConfig(**values)
