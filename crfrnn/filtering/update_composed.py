"""The updates of `update_ops.py` filter by filter, of differentiable operators.

Where the native library does not serve, and for a second derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering import lattice_ops, ops
from crfrnn.filtering.kernel_grad_ops import (
    composed_lattice_kernel_grad,
    composed_separable_kernel_grad,
    lattice_kernel_grad,
    scaled,
    separable_kernel_grad,
)
from crfrnn.filtering.lattice import Lattice
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


def composed_update(q: Tensor, unary: Tensor, kernels: Sequence[FlatKernel]) -> Tensor:
    """One of `mean_field_updates`, from the softmax of the logits on."""
    updated = unary
    for kernel in kernels:
        sent = scaled(rows_product(q, kernel.penalty.t()), kernel.before)
        updated = updated - scaled(_filtered(sent, kernel, transposed=False), kernel.after)
    return updated


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


def kernel_grad(grad: Tensor, q: Tensor, kernel: FlatKernel) -> tuple[Tensor, Tensor]:
    """The gradients of one update to features or theta of a kernel, and to its factors."""
    v = rows_product(q, kernel.penalty.t())
    twice = torch.is_grad_enabled()
    message = v, kernel.before, grad, kernel.after
    own_grad: Tensor
    if kernel.accuracy:
        lattice = composed_lattice_kernel_grad if twice else lattice_kernel_grad
        features, *tables = kernel.tensors
        own_grad, factor_grads = lattice(features, *message, *tables, kernel.accuracy)
    else:
        separable = composed_separable_kernel_grad if twice else separable_kernel_grad
        own_grad, factor_grads = separable(kernel.tensors[0], *message, kernel.shape)
    return -own_grad, -factor_grads


def _filtered(v: Tensor, kernel: FlatKernel, *, transposed: bool) -> Tensor:
    result: Tensor
    first, *tables = kernel.tensors
    if kernel.accuracy:
        # The lattice is given: its features receive theirs from `kernel_grad`.
        result = lattice_ops.lattice_filter(first.detach(), v, *tables, kernel.accuracy, transposed)
    else:
        result = ops.separable_filter(first, v, kernel.shape)
    return result
