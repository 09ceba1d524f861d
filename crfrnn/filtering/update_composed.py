"""The updates of `update_ops.py` filter by filter, of differentiable operators.

Where the native library does not serve, and for a second derivative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from crfrnn.filtering import lattice_ops, ops
from crfrnn.filtering.lattice import Lattice
from crfrnn.rows import softmax_grad
from crfrnn.rows_ops import rows_inner, rows_product

TABLES = len(Lattice._fields)


def composed_update(
    q: Tensor,
    unary: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
) -> Tensor:
    """One of `mean_field_updates`, from the softmax of the logits on."""
    updated = unary
    for penalty, before, after, own, accuracy in each_kernel(
        penalties, factors, tensors, accuracies
    ):
        sent = _scaled(rows_product(q, penalty.t()), before)
        updated = updated - _scaled(_filtered(sent, own, accuracy, shape, transposed=False), after)
    return updated


def composed_grad(
    grad: Tensor,
    history: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    to_penalties: bool,
    history_grad: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`mean_field_updates_grad`, and with it the gradient of the history."""
    labels = grad.shape[2]
    unary_grad = torch.zeros_like(grad)
    penalty_grads = grad.new_zeros(len(penalties) if to_penalties else 0, labels, labels)
    for t in reversed(range(len(history))):
        unary_grad = unary_grad + grad
        q = history[t]
        to_q = torch.zeros_like(q) if history_grad is None else history_grad[t]
        to_own = []
        for penalty, before, after, own, accuracy in each_kernel(
            penalties, factors, tensors, accuracies
        ):
            received = _filtered(_scaled(grad, after), own, accuracy, shape, transposed=True)
            received = _scaled(received, before)
            to_q = to_q - rows_product(received, penalty)
            if to_penalties:
                to_own.append(-rows_inner(received, q))
        penalty_grads = penalty_grads + torch.stack(to_own) if to_own else penalty_grads
        grad = softmax_grad(q, to_q)
    return grad, unary_grad, penalty_grads


def _filtered(
    v: Tensor, own: Sequence[Tensor], accuracy: str, shape: Sequence[int], *, transposed: bool
) -> Tensor:
    result: Tensor
    if accuracy:
        # The lattice is given: its features have no gradient to receive.
        result = lattice_ops.lattice_filter(v.detach(), v, *own, accuracy, transposed)
    else:
        result = ops.separable_filter(own[0], v, shape)
    return result


def _scaled(v: Tensor, factor: Tensor | None) -> Tensor:
    return v if factor is None else v * factor


def each_kernel(
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None, Sequence[Tensor], str]]:
    """Each kernel's penalty, before, after, tensors and accuracy."""
    first = 0
    for m, (penalty, accuracy) in enumerate(zip(penalties, accuracies.split(","), strict=True)):
        before, after = (x if x.numel() else None for x in factors[2 * m : 2 * m + 2])
        count = TABLES if accuracy else 1
        yield penalty, before, after, tensors[first : first + count], accuracy
        first += count
