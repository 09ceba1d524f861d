"""The registered operator of a whole mean-field update on the native CPU path.

    update(logits) = unary - sum_m K_m (softmax(logits) P_m'),   K_m = after_m * F_m before_m

An operator takes tensors, numbers and strings: each kernel is its factors, its tensors (theta of
a spatial Gaussian, or the six tables of a lattice) and the name of its lattice's accuracy, empty
for the Gaussian. `fused_update` tells whether the operator serves, and flattens the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu_update, lattice_ops, ops
from crfrnn.filtering.accuracy import named
from crfrnn.filtering.filters import LatticeFilter, SeparableFilter
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.linear import Filter, Normalized
from crfrnn.operators import operator
from crfrnn.rows import softmax_grad
from crfrnn.rows_ops import rows_inner, rows_product, rows_softmax

TABLES = len(Lattice._fields)


@operator("crfrnn::mean_field_update", "cpu")
def mean_field_update(
    logits: Tensor,
    unary: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    iterations: int,
) -> Tensor:
    """`cpu_update.mean_field_update`: logits_t -> logits_{t + iterations}, both (B, N, L).

    Args:
        logits: (B, N, L).
        unary: (B, N, L).
        penalties: P_m, (L, L).
        factors: before and after of each kernel in turn, (B, N, 1); no element means 1.
        tensors: theta, or the tables of the lattice, of each kernel in turn.
        accuracies: of each kernel's lattice, none for the spatial Gaussian, between commas.
        shape: the grid of the spatial Gaussians.
        iterations: one or more; the gradient is that of one.
    """
    each = penalties, factors, tensors, accuracies
    updated = cpu_update.mean_field_update(logits, unary, _kernels(*each, shape), iterations)
    if updated is not None:
        return updated
    for _ in range(iterations):
        logits = _composed_update(logits, unary, *each, shape)
    return logits


@operator("crfrnn::mean_field_update_grad", "cpu")
def mean_field_update_grad(
    grad: Tensor,
    logits: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    to_penalties: bool,
) -> tuple[Tensor, Tensor]:
    """`cpu_update.mean_field_update_grad`; not differentiable itself."""
    each = penalties, factors, tensors, accuracies
    native = cpu_update.mean_field_update_grad(
        grad, logits, _kernels(*each, shape), to_penalties=to_penalties
    )
    return _composed_grad(grad, logits, *each, shape, to_penalties) if native is None else native


@mean_field_update_grad.register_fake
def _(
    grad: Tensor, logits: Tensor, penalties: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor]:
    labels, to_penalties = logits.shape[2], rest[-1]
    rows = torch.empty_like(logits, memory_format=torch.contiguous_format)
    return rows, grad.new_empty(len(penalties) if to_penalties else 0, labels, labels)


def _kernels(
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
) -> list[cpu_update.Kernel]:
    return [
        cpu_update.Kernel(penalty, before, after, _described(own, accuracy, shape))
        for penalty, before, after, own, accuracy in _each(penalties, factors, tensors, accuracies)
    ]


def _each(
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


def _described(own: Sequence[Tensor], accuracy: str, shape: Sequence[int]) -> cpu_update.Described:
    return (Lattice(*own), named(accuracy)) if accuracy else (own[0], shape)


@mean_field_update.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_update(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, _, penalties, factors, tensors, ctx.accuracies, ctx.shape, ctx.iterations = inputs
    ctx.counts = len(penalties), len(factors)
    # The softmax is made anew: it costs less than a (B, N, L) tensor for every iteration.
    ctx.save_for_backward(logits, *penalties, *factors, *tensors)


def _update_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    logits, *saved = ctx.saved_tensors
    count, num_factors = ctx.counts
    penalties, factors = saved[:count], saved[count : count + num_factors]
    tensors = saved[count + num_factors :]
    if ctx.iterations != 1:
        raise RuntimeError("several updates in one operator have no gradient: pass iterations=1.")
    to_logits, to_unary, to_penalties = ctx.needs_input_grad[:3]
    grad = grad.contiguous()
    differentiable = _composed_grad if torch.is_grad_enabled() else mean_field_update_grad
    logits_grad, penalty_grads = differentiable(
        grad, logits, penalties, factors, tensors, ctx.accuracies, ctx.shape, any(to_penalties)
    )
    own = iter(penalty_grads)  # of all penalties, or of none
    return (
        logits_grad if to_logits else None,
        grad if to_unary else None,
        [g if wanted else None for wanted, g in zip_longest(to_penalties, own)],
        [None] * num_factors,
        [None] * len(tensors),
        None,
        None,
        None,
    )


mean_field_update.register_autograd(_update_backward, setup_context=_save_update)


# The same filter by filter, of differentiable operators: where the library does not serve, and
# for a second derivative.


def _composed_update(
    logits: Tensor,
    unary: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
) -> Tensor:
    """One `mean_field_update`."""
    q = rows_softmax(logits)
    updated = unary
    for penalty, before, after, own, accuracy in _each(penalties, factors, tensors, accuracies):
        sent = _scaled(rows_product(q, penalty.t()), before)
        updated = updated - _scaled(_filtered(sent, own, accuracy, shape, transposed=False), after)
    return updated


def _composed_grad(
    grad: Tensor,
    logits: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    to_penalties: bool,
) -> tuple[Tensor, Tensor]:
    """`mean_field_update_grad`."""
    q = rows_softmax(logits)
    to_q = torch.zeros_like(q)
    penalty_grads = [q.new_empty(0, q.shape[2], q.shape[2])]
    for penalty, before, after, own, accuracy in _each(penalties, factors, tensors, accuracies):
        received = _filtered(_scaled(grad, after), own, accuracy, shape, transposed=True)
        received = _scaled(received, before)
        to_q = to_q - rows_product(received, penalty)
        if to_penalties:
            penalty_grads.append(-rows_inner(received, q)[None])
    return softmax_grad(q, to_q), torch.cat(penalty_grads)


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


def fused_update(
    logits: Tensor,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    iterations: int = 1,
) -> Tensor | None:
    """The operator on these kernels, or None where it does not serve.

    It serves float32 on the CPU, spatial Gaussians of one grid and lattices, normalised, none of
    which learns. Nobody but `inference.mean_field_step` asks.
    """
    if not kernels or any(
        x.dtype != torch.float32 or x.device.type != "cpu" for x in (logits, unary, *penalties)
    ):
        return None
    factors: list[Tensor] = []
    tensors: list[Tensor] = []
    accuracies: list[str] = []
    shape: list[int] = []
    for kernel in kernels:
        if not isinstance(kernel, Normalized):
            return None
        own = kernel.kernel
        if isinstance(own, LatticeFilter):
            learns = own.features.requires_grad
            tensors += own.tables
            accuracies.append(own.accuracy)
        elif isinstance(own, SeparableFilter) and shape in ([], own.shape):
            learns = False
            tensors.append(own.theta)
            accuracies.append("")
            shape = own.shape
        else:
            return None
        if learns:
            return None
        factors += [unary.new_empty(0) if x is None else x for x in (kernel.before, kernel.after)]
    if any(x.requires_grad for x in (*factors, *tensors)):
        return None
    result: Tensor = mean_field_update(
        logits.contiguous(),
        unary.contiguous(),
        list(penalties),
        factors,
        tensors,
        ",".join(accuracies),
        shape or [0],  # an empty list reads as one of tensors on the way back
        iterations,
    )
    return result
