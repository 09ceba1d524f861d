"""Every loss alone: against its definition, with void, in low precision, over two processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID
from runtime import distributed
from train.losses import (
    balanced_weights,
    boundary_weights,
    class_weights,
    cross_entropy,
    extended_jaccard,
    hard_pixels,
    lovasz_softmax,
    pixel_losses,
)

Loss = Callable[[Tensor, Tensor], Tensor]


def weighted(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, class_weights(labels, (1.0, 0.25, 3.0)))


def along_edges(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, boundary_weights(labels, 4.0, 1))


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    return hard_pixels(logits, labels, 0.3)


def hard_weighted(logits: Tensor, labels: Tensor) -> Tensor:
    return hard_pixels(logits, labels, 0.5, class_weights(labels, (1.0, 0.25, 3.0)))


MEANS: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "weighted": weighted,
    "along edges": along_edges,
}
LOSSES: dict[str, Loss] = {
    **MEANS,
    "hard": hard,
    "hard, weighted": hard_weighted,
    "Lovasz": lovasz_softmax,
    "Lovasz, all classes": partial(lovasz_softmax, classes="all"),
    "Lovasz, per image": partial(lovasz_softmax, per_image=True),
}


def each(losses: dict[str, Loss]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("loss", losses.values(), ids=losses)


@pytest.fixture
def labels() -> Tensor:
    """(2, 6, 5) of three classes, the first rows of the second image void."""
    labels = torch.randint(0, 3, (2, 6, 5))
    labels[1, :4] = VOID
    return labels


def logits_of(labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(labels), 3, *labels.shape[1:], dtype=dtype, requires_grad=True)


@each(LOSSES)
def test_void_changes_nothing_and_alone_costs_nothing(loss: Loss, labels: Tensor) -> None:
    logits, void = logits_of(labels), labels == VOID
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


@each(LOSSES)
def test_half_precision_is_computed_in_float32(loss: Loss, labels: Tensor) -> None:
    logits = logits_of(labels).detach().bfloat16()
    expected = loss(logits.float(), labels)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(logits, labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


@each(LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(loss: Loss, labels: Tensor) -> None:
    for size in (1e4, 1e30):
        logits = (logits_of(labels).detach() * size).requires_grad_()
        value = loss(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@each(LOSSES)
def test_gradient_of_every_loss(loss: Loss, labels: Tensor) -> None:
    logits = logits_of(labels[:, :3, :3], torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels[:, :3, :3]), (logits,))


@each(MEANS)
@pytest.mark.parametrize("labelled", [40, 30, 1])  # of 60: few in the second image, or none
def test_two_processes_have_the_loss_and_gradient_of_one_with_both_batches(
    loss: Loss, labelled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.randint(0, 3, (60,)).index_fill(0, torch.arange(labelled, 60), VOID)
    labels = labels.reshape(2, 6, 5)
    logits = logits_of(labels, torch.float64)
    whole = loss(logits, labels)
    (expected,) = torch.autograd.grad(whole, logits)

    counts: list[Tensor] = []

    def alone(count: Tensor) -> Tensor:
        counts.append(count)
        return count

    monkeypatch.setattr(distributed, "mean", alone)
    for i in (0, 1):
        loss(logits[i : i + 1], labels[i : i + 1])
    mean = torch.stack(counts).double().mean()
    monkeypatch.setattr(distributed, "mean", lambda count: mean)
    halves = [loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    together = torch.stack(halves).mean()  # what DistributedDataParallel does to gradients
    (gradient,) = torch.autograd.grad(together, logits)
    # Rounding of the sums in float64.
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weights", [None, (1.0, 0.25, 3.0)])
def test_cross_entropy_is_torchs_and_that_of_hard_pixels_at_share_one(
    labels: Tensor, weights: tuple[float, ...] | None
) -> None:
    logits = logits_of(labels)
    given = None if weights is None else class_weights(labels, weights)
    weight = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, labels, weight=weight, ignore_index=VOID)
    torch.testing.assert_close(cross_entropy(logits, labels, given), expected)
    torch.testing.assert_close(hard_pixels(logits, labels, 1.0, given), expected)


# Hard pixels


def test_hard_pixels_are_the_share_of_the_labelled_ones_with_the_highest_loss(
    labels: Tensor,
) -> None:
    logits = logits_of(labels)
    losses = pixel_losses(logits, labels)[labels != VOID]  # 40 pixels of 60
    expected = losses.sort(descending=True).values[:12].mean()
    torch.testing.assert_close(hard_pixels(logits, labels, 0.3), expected)
    (gradient,) = torch.autograd.grad(hard_pixels(logits, labels, 0.3), logits)
    assert (gradient.abs().sum(dim=1) > 0).sum() == 12
    # a share too small for one pixel keeps one
    torch.testing.assert_close(hard_pixels(logits, labels, 1e-6), losses.max())


def test_a_weight_makes_a_pixel_hard() -> None:
    labels = torch.tensor([[[0, 0, 1]]])
    logits = torch.tensor([[[[1.0, 0.9, 0.1]], [[0.0, 0.0, 0.0]]]])  # losses 0.31, 0.34, 0.74
    weights = torch.tensor([[[10.0, 1.0, 1.0]]])
    expected = pixel_losses(logits, labels)[0, 0, 0]
    torch.testing.assert_close(hard_pixels(logits, labels, 0.34, weights), expected)


def test_rare_classes_weigh_more_by_a_power() -> None:
    """Four times rarer: twice the weight at power 1/2; what is never seen weighs as the rarest."""
    pixels = torch.tensor([400, 100, 0, 25])
    assert balanced_weights(pixels, 0.5) == (1.0, 2.0, 4.0, 4.0)
    assert balanced_weights(pixels, 1.0) == (1.0, 4.0, 16.0, 16.0)
    assert balanced_weights(pixels, 0.0) == (1.0, 1.0, 1.0, 1.0)


def test_void_is_never_a_hard_pixel() -> None:
    """Neither where labelled pixels cost nothing, as void does."""
    labels = torch.tensor([[[VOID, VOID, 0, 0, 0, 1]]])
    logits = torch.tensor([200.0, 0.0])[None, :, None, None].expand(1, 2, 1, 6)
    assert hard_pixels(logits, labels, 1.0).item() == 200 / 4


# Label edges


@pytest.mark.parametrize(
    ("row", "radius", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], 1, [1, 1, 4, 4, 1, 1]),
        ([0, 0, 0, 1, 1, 1], 2, [1, 4, 4, 4, 4, 1]),
        ([2, 2, 2, 2, 2, 2], 2, [1, 1, 1, 1, 1, 1]),
        ([0, 0, VOID, VOID, 0, 0], 2, [1, 1, 0, 0, 1, 1]),  # void is no edge
        ([0, 0, VOID, 1, 1, 1], 1, [1, 1, 0, 1, 1, 1]),
        ([0, 0, VOID, 1, 1, 1], 2, [1, 4, 0, 4, 1, 1]),  # but no wall either
    ],
)
def test_pixels_near_a_label_edge_weigh_more(
    row: list[int], radius: int, expected: list[int]
) -> None:
    labels = torch.tensor(row)
    wanted = torch.tensor(expected, dtype=torch.float32)
    for grid in (labels[None, None, :], labels[None, :, None]):  # a row, a column
        assert torch.equal(boundary_weights(grid, 4.0, radius), wanted.reshape(grid.shape))


def test_distance_from_an_edge_is_chebyshevs() -> None:
    labels = torch.zeros(2, 7, 7, dtype=torch.int64)
    labels[1, 3, 3] = 1
    weights = boundary_weights(labels, 0.5, 2)
    expected = torch.ones(7, 7)
    expected[1:6, 1:6] = 0.5
    assert torch.equal(weights[1], expected)
    assert (weights[0] == 1).all()


# Lovasz-softmax


def jaccard_loss(predicted: Tensor, labels: Tensor, classes: list[int]) -> float:
    """The mean of 1 - IoU of these classes, by counting."""
    losses = []
    for c in classes:
        union = ((predicted == c) | (labels == c)).sum().item()
        both = ((predicted == c) & (labels == c)).sum().item()
        losses.append(1 - both / union if union else 0.0)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("labels_row", [[0, 1, 2, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
@pytest.mark.parametrize("classes", ["present", "all"])
def test_at_one_hot_predictions_lovasz_is_the_jaccard_loss(
    labels_row: list[int], classes: str
) -> None:
    """At every vertex: all 3^5 predictions, with a void pixel that predicts anything."""
    labels = torch.tensor([*labels_row, VOID])
    averaged = sorted(set(labels_row)) if classes == "present" else [0, 1, 2]
    for guess in product(range(3), repeat=len(labels_row)):
        predicted = torch.tensor([*guess, 2])
        logits = 1e3 * F.one_hot(predicted, 3).double().T.reshape(1, 3, 2, 3)
        found = lovasz_softmax(logits, labels.reshape(1, 2, 3), classes=classes)  # type: ignore[arg-type]
        expected = jaccard_loss(predicted[:-1], labels[:-1], averaged)
        assert found.item() == pytest.approx(expected, abs=1e-14)  # rounding of a few sums


def extension_by_definition(errors: Tensor, foreground: Tensor) -> float:
    """sum_k m_(k) (J({1..k}) - J({1..k-1})), the sets counted one by one."""
    value, wrong, before = 0.0, torch.zeros_like(foreground), 0.0
    for k in errors.argsort(descending=True).tolist():
        wrong = wrong.clone()
        wrong[k] = True
        after = wrong.sum().item() / (foreground | wrong).sum().item()
        value += errors[k].item() * (after - before)
        before = after
    return value


@pytest.mark.parametrize("inside", [0, 1, 4, 7])
def test_between_the_vertices_it_is_the_lovasz_extension(inside: int) -> None:
    foreground = torch.arange(7) < inside
    labelled = torch.ones(7, dtype=torch.bool)
    for _ in range(20):
        errors = torch.rand(7).double()
        found = extended_jaccard(errors, foreground, labelled).item()
        # Rounding of seven sums in float64.
        assert found == pytest.approx(extension_by_definition(errors, foreground), abs=1e-14)


def test_a_difference_of_a_millionth_is_not_lost_in_float32() -> None:
    """Of two Jaccard losses of order one it would be rounded to a multiple of 6e-8."""
    foreground = torch.arange(2_000_000) % 2 == 0
    errors = torch.linspace(1, 0, 2_000_000, requires_grad=True)
    every = torch.ones_like(foreground)
    (gradient,) = torch.autograd.grad(extended_jaccard(errors, foreground, every), errors)
    exact = torch.linspace(1, 0, 2_000_000, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(extended_jaccard(exact, foreground, every), exact)
    # Above 0.5 the errors lie 8 roundings of float32 apart: none is repeated, the order is one.
    same = slice(0, 1_000_000)
    torch.testing.assert_close(gradient[same].double(), expected[same], rtol=1e-6, atol=0)


def test_per_image_is_the_mean_over_the_images_with_labels(labels: Tensor) -> None:
    logits = logits_of(labels)
    batch = torch.cat([logits, logits[:1]])
    truth = torch.cat([labels, torch.full_like(labels[:1], VOID)])
    each_image = [lovasz_softmax(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    found = lovasz_softmax(batch, truth, per_image=True)
    torch.testing.assert_close(found, torch.stack(each_image).mean())
    assert found != lovasz_softmax(batch, truth)
