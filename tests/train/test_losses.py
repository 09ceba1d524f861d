"""Every loss alone: against its definition, with void, in low precision, over two processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data import VOID
from eval import processes
from train.losses.class_weights import class_weights
from train.losses.cross_entropy import cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]


def weighted(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, class_weights(labels, (1.0, 0.25, 3.0)))


MEANS: dict[str, Loss] = {"cross-entropy": cross_entropy, "weighted": weighted}
LOSSES: dict[str, Loss] = {**MEANS}


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
def test_void_changes_nothing(loss: Loss, labels: Tensor) -> None:
    logits = logits_of(labels)
    void = labels == VOID
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient.count_nonzero() > 0
    assert (gradient.movedim(1, -1)[void] == 0).all()
    other = torch.where(void[:, None], 100 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, labels), value)


@each(LOSSES)
def test_a_batch_of_void_costs_nothing(loss: Loss) -> None:
    labels = torch.full((2, 6, 5), VOID)
    logits = logits_of(labels)
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert gradient.isfinite().all()
    assert gradient.count_nonzero() == 0


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
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_have_finite_losses_and_gradients(
    loss: Loss, labels: Tensor, size: float
) -> None:
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

    monkeypatch.setattr(processes, "mean", alone)
    for i in (0, 1):
        loss(logits[i : i + 1], labels[i : i + 1])
    mean = torch.stack(counts).double().mean()
    monkeypatch.setattr(processes, "mean", lambda count: mean)
    halves = [loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    together = torch.stack(halves).mean()  # what DistributedDataParallel does to gradients
    (gradient,) = torch.autograd.grad(together, logits)
    # Rounding of the sums in float64.
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weights", [None, (1.0, 0.25, 3.0)])
def test_cross_entropy_is_torchs(labels: Tensor, weights: tuple[float, ...] | None) -> None:
    logits = logits_of(labels)
    given = None if weights is None else class_weights(labels, weights)
    expected = F.cross_entropy(
        logits,
        labels,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=VOID,
    )
    torch.testing.assert_close(cross_entropy(logits, labels, given), expected)
