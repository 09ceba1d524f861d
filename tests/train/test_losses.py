"""Every loss alone, and the objective of a network: void, weights, processes, scales."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.losses import DenseCrfLoss
from data import VOID
from models import (
    DeepLabV2Config,
    ScaleLogits,
    Segmenter,
    SegmenterConfig,
    SegmenterOutput,
    VggConfig,
)
from models.layers import shrink, shrink_image
from runtime import distributed
from train.losses import (
    LossConfig,
    Target,
    balanced_weights,
    boundary_weights,
    class_weights,
    cross_entropy,
    extended_jaccard,
    hard_pixels,
    loss_terms,
    lovasz_softmax,
    pixel_losses,
    scale_target,
)

WEIGHTS = (1.0, 0.25, 3.0)

# As functions of logits and labels.
MEANS: dict[str, Any] = {
    "cross-entropy": cross_entropy,
    "weighted": lambda x, y: cross_entropy(x, y, class_weights(y, WEIGHTS)),
    "along edges": lambda x, y: cross_entropy(x, y, boundary_weights(y, 4.0, 1)),
}
LOSSES = {
    **MEANS,
    "hard, weighted": lambda x, y: hard_pixels(x, y, 0.5, class_weights(y, WEIGHTS)),
    "Lovasz": lovasz_softmax,
    "Lovasz, all classes": partial(lovasz_softmax, classes="all"),
    "Lovasz, per image": partial(lovasz_softmax, per_image=True),
}


@pytest.fixture
def labels() -> Tensor:
    """(2, 6, 5) of three classes, the first rows of the second image void."""
    labels = torch.randint(0, 3, (2, 6, 5))
    labels[1, :4] = VOID
    return labels


def logits_of(labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(labels), 3, *labels.shape[1:], dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("name", LOSSES)
def test_void_changes_nothing_and_alone_costs_nothing(name: str, labels: Tensor) -> None:
    logits, void, loss = logits_of(labels), labels == VOID, LOSSES[name]
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.count_nonzero() > 0
    assert (gradient.movedim(1, -1)[void] == 0).all()
    other = torch.where(void[:, None], 100 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, labels), value)

    value = loss(logits, torch.full_like(labels, VOID))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right_extreme_logits_finite_and_half_precision_is_float32(name, labels):
    loss, few = LOSSES[name], labels[:, :3, :3]
    logits = logits_of(few, torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, few), (logits,))
    for size in (1e4, 1e30):
        logits = (logits_of(labels).detach() * size).requires_grad_()
        value = loss(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()
    half = logits_of(labels).detach().bfloat16()
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert torch.equal(loss(half, labels), loss(half.float(), labels))


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("labelled", [40, 1])  # of 60: few in the second image, or none
def test_two_processes_have_loss_and_gradient_of_one(name, labelled, monkeypatch) -> None:
    loss = MEANS[name]
    labels = torch.randint(0, 3, (60,)).index_fill(0, torch.arange(labelled, 60), VOID)
    labels = labels.reshape(2, 6, 5)
    logits = logits_of(labels, torch.float64)
    whole = loss(logits, labels)
    (expected,) = torch.autograd.grad(whole, logits)

    alone = Mock(side_effect=lambda count: count)
    monkeypatch.setattr(distributed, "mean", alone)
    for i in (0, 1):
        loss(logits[i : i + 1], labels[i : i + 1])
    mean = torch.stack([call.args[0] for call in alone.call_args_list]).double().mean()
    monkeypatch.setattr(distributed, "mean", lambda count: mean)
    halves = [loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    together = torch.stack(halves).mean()  # what DistributedDataParallel does to gradients
    (gradient,) = torch.autograd.grad(together, logits)
    # Rounding of the sums in float64.
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


def test_cross_entropy_is_torchs_and_that_of_hard_pixels_at_share_one(labels) -> None:
    logits, given = logits_of(labels), class_weights(labels, WEIGHTS)
    expected = F.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS), ignore_index=VOID)
    torch.testing.assert_close(cross_entropy(logits, labels, given), expected)
    torch.testing.assert_close(hard_pixels(logits, labels, 1.0, given), expected)


def test_hard_pixels_are_the_share_of_the_labelled_ones_with_the_highest_loss(labels) -> None:
    logits = logits_of(labels)
    losses = pixel_losses(logits, labels)[labels != VOID]  # 40 pixels of 60
    expected = losses.sort(descending=True).values[:12].mean()
    torch.testing.assert_close(hard_pixels(logits, labels, 0.3), expected)
    # a share too small for one pixel keeps one
    torch.testing.assert_close(hard_pixels(logits, labels, 1e-6), losses.max())
    # void is none, neither where labelled pixels cost nothing, as void does
    mostly = torch.tensor([[[VOID, VOID, 0, 0, 0, 1]]])
    logits = torch.tensor([200.0, 0.0])[None, :, None, None].expand(1, 2, 1, 6)
    assert hard_pixels(logits, mostly, 1.0).item() == 200 / 4
    # rare classes weigh more by a power; what is never seen weighs as the rarest
    assert balanced_weights(torch.tensor([400, 100, 0, 25]), 0.5) == (1.0, 2.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("row", "radius", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], 1, [1, 1, 4, 4, 1, 1]),
        ([0, 0, 0, 1, 1, 1], 2, [1, 4, 4, 4, 4, 1]),
        ([0, 0, VOID, 1, 1, 1], 2, [1, 4, 0, 4, 1, 1]),  # but no wall either
    ],
)
def test_pixels_near_a_label_edge_weigh_more(row, radius, expected) -> None:
    labels = torch.tensor(row)
    wanted = torch.tensor(expected, dtype=torch.float32)
    for grid in (labels[None, None, :], labels[None, :, None]):  # a row, a column
        assert torch.equal(boundary_weights(grid, 4.0, radius), wanted.reshape(grid.shape))
    dot, around = torch.zeros(1, 7, 7, dtype=torch.int64), torch.ones(1, 7, 7)
    dot[0, 3, 3], around[0, 1:6, 1:6] = 1, 0.5  # Chebyshev's distance
    assert torch.equal(boundary_weights(dot, 0.5, 2), around)


def extension_by_definition(errors: Tensor, foreground: Tensor) -> float:
    """sum_k m_(k) (J({1..k}) - J({1..k-1})), the sets counted one by one."""
    value, wrong, before = 0.0, torch.zeros_like(foreground), 0.0
    for k in errors.argsort(descending=True).tolist():
        wrong[k] = True
        after = wrong.sum().item() / (foreground | wrong).sum().item()
        value += errors[k].item() * (after - before)
        before = after
    return value


@pytest.mark.parametrize("classes", ["present", "all"])
def test_lovasz_is_the_extension_of_the_jaccard_loss_to_what_is_between_its_vertices(classes):
    labels = torch.tensor([0, 0, VOID, 1, 1, 1])
    labelled = labels != VOID
    averaged = {0, 1} if classes == "present" else {0, 1, 2}
    for size in (1.0, 1e3):  # between the vertices, and on them
        logits = size * torch.randn(3, 6, dtype=torch.float64)
        found = lovasz_softmax(logits.view(1, 3, 2, 3), labels.view(1, 2, 3), classes=classes)
        values = []
        for c in averaged:
            foreground = labels[labelled] == c
            errors = (foreground.double() - logits.softmax(0)[c, labelled]).abs()
            values.append(extension_by_definition(errors, foreground))
        # Rounding of a few sums in float64.
        assert found.item() == pytest.approx(sum(values) / len(values), abs=1e-14)


def test_a_difference_of_a_millionth_is_not_lost_in_float32() -> None:
    """Of two Jaccard losses of order one it would be rounded to a multiple of 6e-8."""
    foreground = torch.arange(2_000_000) % 2 == 0
    every = torch.ones_like(foreground)
    gradients: list[Tensor] = []
    for dtype in (torch.float32, torch.float64):
        errors = torch.linspace(1, 0, 2_000_000, dtype=dtype, requires_grad=True)
        gradients += torch.autograd.grad(extended_jaccard(errors, foreground, every), errors)
    # Above 0.5 the errors lie 8 roundings of float32 apart: none is repeated, the order is one.
    found, exact = (gradient[:1_000_000] for gradient in gradients)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


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


mean_entropy = partial(F.cross_entropy, ignore_index=VOID)


def test_the_default_is_the_mean_cross_entropy_to_the_last_bit(masks) -> None:
    """The published results of collage and voc12-animals were trained with it."""
    logits = torch.randn(2, 3, 40, 30)
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, LossConfig())
    for name, of in (("loss_unary", logits), ("loss_crf", 2 * logits)):
        total = mean_entropy(of, masks, reduction="sum")
        assert torch.equal(terms[name], total / (masks != VOID).sum())
    assert torch.equal(terms["loss"], (terms["loss_crf"] + 4 * terms["loss_unary"]) / 5)
    alone = loss_terms(SegmenterOutput(logits, None), masks, LossConfig(unary=0.0))
    assert alone == {"loss": terms["loss_unary"], "loss_unary": terms["loss_unary"]}


def test_the_crf_teaches_where_it_is_sure_and_every_label_as_much() -> None:
    sure = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.1, 0.0]])
    crf = sure.t().reshape(1, 2, 1, 5).clone().requires_grad_()
    unary = torch.randn(1, 2, 1, 5, requires_grad=True)
    output, images = SegmenterOutput(unary, crf), torch.rand(1, 3, 1, 5) * 255
    void = torch.full((1, 1, 5), VOID)
    config = LossConfig(unary=0.0, teacher=2.0)
    terms = loss_terms(output, void, config, images)
    each = F.cross_entropy(unary, crf.detach().softmax(1), reduction="none")[0, 0]
    torch.testing.assert_close(terms["loss_teacher"], (each[:3].mean() + each[3]) / 2)
    torch.testing.assert_close(terms["loss"], 2 * terms["loss_teacher"])  # nothing is labelled
    alike = loss_terms(output, void, replace(config, teacher_balanced=False), images)
    torch.testing.assert_close(alike["loss_teacher"], each[:4].mean())
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    assert unary.grad is not None
    assert not unary.grad[..., 4].any()  # unsure
    assert crf.grad is None or not crf.grad.any()  # it teaches, it does not learn
    assert "loss_teacher" not in loss_terms(output, void, config)


def test_the_dense_crf_loss_is_that_of_the_network_at_half_resolution() -> None:
    unary = torch.randn(1, 2, 12, 16, requires_grad=True)
    output, images = SegmenterOutput(unary, unary.detach()), torch.rand(1, 3, 12, 16) * 255
    config = LossConfig(dense_crf=0.5, dense_crf_theta=(20.0, 15.0))
    masks = torch.zeros(1, 12, 16, dtype=torch.long)
    terms, plain = (loss_terms(output, masks, c, images) for c in (config, LossConfig()))
    loss = DenseCrfLoss(theta_alpha=10.0, theta_beta=15.0, normalization="after")
    expected = loss(shrink(unary, 2), shrink_image(images, 2))
    torch.testing.assert_close(terms["loss_dense_crf"], expected)
    torch.testing.assert_close(terms["loss"], plain["loss"] + 0.5 * expected)


def test_logits_on_padding_have_no_label(masks) -> None:
    scale = ScaleLogits(torch.zeros(2, 3, 9, 9), 8)  # of 65 x 65 pixels
    labels, padded = scale_target(scale, Target(masks, torch.ones(masks.shape)))
    assert padded is not None
    expected, weights = torch.full((2, 9, 9), VOID), torch.zeros(2, 9, 9)
    expected[:, :5, :4] = masks[:, ::8, ::8]
    weights[:, :5, :4] = 1
    assert torch.equal(labels, expected)
    assert torch.equal(padded, weights)


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


def test_every_map_has_every_term_with_the_weights_of_its_pixels(masks, output) -> None:
    """Edges are those of the whole mask, also where the loss asks every eighth pixel."""
    masks[0, 8:] = VOID  # so that per image differs
    edges = LossConfig(boundary_weight=3.0, boundary_radius=1, class_weights=WEIGHTS, unary=1.0)
    config = replace(edges, cross_entropy=0.5, hard_share=0.25, lovasz=2.0)
    config = replace(config, lovasz_classes="all", lovasz_per_image=True)
    weights = boundary_weights(masks, 3.0, 1) * class_weights(masks, WEIGHTS)

    def lovasz(logits: Tensor, labels: Tensor) -> Tensor:  # of the images with labels
        each = [
            lovasz_softmax(logits[i : i + 1], labels[i : i + 1], classes="all")
            for i in range(len(labels))
            if (labels[i] != VOID).any()
        ]
        return torch.stack(each).mean()

    def expected(logits: Tensor, stride: int) -> Tensor:
        small, labels = weights[:, ::stride, ::stride], masks[:, ::stride, ::stride]
        return 0.5 * hard_pixels(logits, labels, 0.25, small) + 2 * lovasz(logits, labels)

    terms = loss_terms(output, masks, config)
    torch.testing.assert_close(terms["loss_crf"], expected(output.crf, 1))
    unary = expected(output.unary, 1) + expected(output.scales[0].logits, 8)
    torch.testing.assert_close(terms["loss_unary"], unary)
    terms = loss_terms(SegmenterOutput(output.unary, None), masks, replace(config, label_stride=8))
    torch.testing.assert_close(terms["loss_unary"], expected(output.unary[..., ::8, ::8], 8))
    with pytest.raises(ValueError, match="one for each of 3 classes, got 2"):
        loss_terms(output, masks, LossConfig(class_weights=(1.0, 2.0)))
    with pytest.raises(ValueError, match="balance needs the training split"):
        loss_terms(output, masks, LossConfig(balance=1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lovasz": float("nan")}, "loss.lovasz must be at least 0"),
        ({"cross_entropy": 0.0}, "one of loss.cross_entropy and loss.lovasz must be above 0"),
        ({"hard_share": 0.0}, "loss.hard_share must be in (0, 1]"),
        ({"boundary_radius": 0}, "loss.boundary_radius must be at least 1 pixel"),
        ({"class_weights": (0.0, 0.0)}, "one of them above, got (0.0, 0.0)"),
        ({"balance": 0.5, "class_weights": (1.0, 2.0)}, "say the same twice: give one of them"),
    ],
)
def test_bad_numbers(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LossConfig(**values)
