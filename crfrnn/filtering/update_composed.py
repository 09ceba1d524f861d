"""The updates of `update_ops.py` and their gradients filter by filter, of plain operators.

Where the native library does not serve, and for a second derivative: all of it but the gradient
to features and theta is differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering import lattice_ops, ops
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.linear import scaled
from crfrnn.rows import softmax_grad
from crfrnn.rows_ops import rows_inner, rows_product

TENSORS = 1 + len(Lattice._fields)  # of a lattice: its features, and the tables


class FlatKernel(NamedTuple):
    """A normalised kernel and its penalty as an operator takes them.

    Attributes:
        penalty: P, (L, L).
        before: (B, N, 1), or None for 1.
        after: (B, N, 1), or None for 1.
        tensors: theta of a spatial Gaussian, or features and tables of a lattice.
        accuracy: of the lattice, or empty.
        shape: the grid of the spatial Gaussian.
    """

    penalty: Tensor
    before: Tensor | None
    after: Tensor | None
    tensors: Sequence[Tensor]
    accuracy: str
    shape: Sequence[int]


def flat_kernels(
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
) -> list[FlatKernel]:
    """Each kernel's own of the arguments of `mean_field_updates`."""
    kernels, first = [], 0
    for m, (penalty, accuracy) in enumerate(zip(penalties, accuracies.split(","), strict=True)):
        before, after = (x if x.numel() else None for x in factors[2 * m : 2 * m + 2])
        count = TENSORS if accuracy else 1
        own = tensors[first : first + count]
        kernels.append(FlatKernel(penalty, before, after, own, accuracy, shape))
        first += count
    return kernels


def source_indices(kernels: Sequence[FlatKernel]) -> list[int]:
    """Where in `tensors` theta or the features of each kernel are."""
    ends = accumulate(len(kernel.tensors) for kernel in kernels)
    return [end - len(kernel.tensors) for kernel, end in zip(kernels, ends, strict=True)]


def composed_update(q: Tensor, unary: Tensor, kernels: Sequence[FlatKernel]) -> Tensor:
    """One of `mean_field_updates`, from the softmax of the logits on, as it is stored."""
    updated = unary
    for kernel in kernels:
        sent = scaled(rows_product(q.to(unary.dtype), kernel.penalty.t()), kernel.before)
        sent = sent.to(q.dtype).to(unary.dtype)
        updated = updated - scaled(_filtered(sent, kernel, transposed=False), kernel.after)
    return updated


def composed_updates_grad(
    grad: Tensor,
    history: Tensor,
    history_grad: Tensor | None,
    kernels: Sequence[FlatKernel],
    *,
    to_penalties: bool,
    learn: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `cpu_update.mean_field_updates_grad` returns, for a start of its own.

    The gradient to the unary is never left out.

    Args:
        grad: (B, N, L), of the logits after the last update.
        history: (T, B, N, L), q ahead of each update.
        history_grad: (T, B, N, L), that q received besides; None for nothing.
        kernels: of the updates.
        to_penalties: whether the gradient to the penalties is wanted.
        learn: of each kernel, whether what it is made of learns.
    """
    learning = [kernel for kernel, learns in zip(kernels, learn, strict=True) if learns]
    unary_grad, penalty_grads = torch.zeros_like(grad), grad.new_zeros(())
    factor_grads = grad.new_zeros(len(learning), 2, *grad.shape[:2], 1)
    source_grads = grad.new_zeros(sum(kernel.tensors[0].numel() for kernel in learning))
    history = history.to(grad.dtype)
    for t in reversed(range(len(history))):
        unary_grad = unary_grad + grad
        if learning:
            own = [composed_kernel_grads(grad, history[t], kernel) for kernel in learning]
            source_grads = source_grads + torch.cat([source.flatten() for source, _ in own])
            factor_grads = factor_grads + torch.stack([factors for _, factors in own])
        q_grad = None if history_grad is None else history_grad[t]
        grad, own_penalties = composed_grad(
            grad, history[t], q_grad, kernels, to_penalties=to_penalties
        )
        penalty_grads = penalty_grads + own_penalties
    return grad, unary_grad, penalty_grads, factor_grads, source_grads


def composed_grad(
    grad: Tensor,
    q: Tensor,
    q_grad: Tensor | None,
    kernels: Sequence[FlatKernel],
    *,
    to_penalties: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of one update to the logits of q, which receives q_grad besides, and to P."""
    to_q = torch.zeros_like(q) if q_grad is None else q_grad
    penalty_grads = [q.new_empty(0, q.shape[2], q.shape[2])]
    for kernel in kernels:
        received = _filtered(scaled(grad, kernel.after), kernel, transposed=True)
        received = scaled(received, kernel.before)
        to_q = to_q - rows_product(received, kernel.penalty)
        if to_penalties:
            penalty_grads.append(-rows_inner(received, q)[None])
    return softmax_grad(q, to_q), torch.cat(penalty_grads)


def composed_kernel_grads(grad: Tensor, q: Tensor, kernel: FlatKernel) -> tuple[Tensor, Tensor]:
    """The gradients of one update to features or theta of a kernel, and to its factors.

    The latter are to after and to before, (2, B, N, 1); that to a factor of None means nothing.
    """
    v = rows_product(q, kernel.penalty.t())
    sent, received = scaled(v, kernel.before), scaled(grad, kernel.after)
    source, *tables = kernel.tensors
    source_grad: Tensor
    if kernel.accuracy:
        source_grad = lattice_ops.lattice_features_grad(
            source, sent, received, *tables, kernel.accuracy, False
        )
    else:
        source_grad = ops.separable_theta_grad(source, sent, received, kernel.shape)
    to_after = grad * _filtered(sent, kernel, transposed=False)
    to_before = v * _filtered(received, kernel, transposed=True)
    return -source_grad, -torch.stack([to_after, to_before]).sum(-1, keepdim=True)


def _filtered(v: Tensor, kernel: FlatKernel, *, transposed: bool) -> Tensor:
    result: Tensor
    first, *tables = kernel.tensors
    if kernel.accuracy:
        # The lattice is given: its features receive theirs from `kernel_grad`.
        result = lattice_ops.lattice_filter(first.detach(), v, *tables, kernel.accuracy, transposed)
    else:
        result = ops.separable_filter(first, v, kernel.shape)
    return result
