"""The registered operator of whole mean-field updates on the native CPU path.

    update(logits) = unary - sum_m K_m (softmax(logits) P_m'),   K_m = after_m * F_m before_m

An operator takes tensors, numbers and strings: each kernel is its factors, its tensors (theta of
a spatial Gaussian, or the six tables of a lattice) and the name of its lattice's accuracy, empty
for the Gaussian. `fused_updates` tells whether the operator serves, and flattens the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu_update
from crfrnn.filtering.accuracy import named
from crfrnn.filtering.filters import LatticeFilter, SeparableFilter
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.linear import Filter, Normalized
from crfrnn.filtering.update_composed import composed_grad, composed_update, each_kernel
from crfrnn.native import empty_like
from crfrnn.operators import operator
from crfrnn.rows_ops import rows_softmax


@operator("crfrnn::mean_field_updates", "cpu")
def mean_field_updates(
    start: Tensor | None,
    unary: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    iterations: int,
    store: bool,
) -> tuple[Tensor, Tensor]:
    """`cpu_update.mean_field_updates`.

    Args:
        start: (B, N, L), the logits before the first update; None: the unary.
        unary: (B, N, L).
        penalties: P_m, (L, L).
        factors: before and after of each kernel in turn, (B, N, 1); no element means 1.
        tensors: theta, or the tables of the lattice, of each kernel in turn.
        accuracies: of each kernel's lattice, none for the spatial Gaussian, between commas.
        shape: the grid of the spatial Gaussians.
        iterations: T, one or more.
        store: whether the second result is wanted, which a gradient needs.

    Returns:
        The logits after T updates, (B, N, L), and q ahead of each, (T, B, N, L), or (0, B, N, L).
    """
    each = penalties, factors, tensors, accuracies
    history = empty_like(_history(unary, iterations, store))
    updated = cpu_update.mean_field_updates(
        start, unary, _kernels(*each, shape), iterations, history if store else None
    )
    if updated is not None:
        return updated, history
    logits = unary if start is None else start
    for t in range(iterations):
        q = rows_softmax(logits)
        logits = composed_update(q, unary, *each, shape)
        if store:
            history[t] = q
    return logits, history


@mean_field_updates.register_fake
def _(start: Tensor | None, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    iterations, store = rest[-2:]
    like = unary, _history(unary, iterations, store)
    logits, history = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in like)
    return logits, history


def _history(unary: Tensor, iterations: int, store: bool) -> Tensor:
    """A tensor of the shape of the second result."""
    return unary.expand(iterations if store else 0, *unary.shape)


@operator("crfrnn::mean_field_updates_grad", "cpu")
def mean_field_updates_grad(
    grad: Tensor,
    history: Tensor,
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    started: bool,
    to_penalties: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`cpu_update.mean_field_updates_grad`; not differentiable itself."""
    each = penalties, factors, tensors, accuracies
    native = cpu_update.mean_field_updates_grad(
        grad, history, _kernels(*each, shape), started=started, to_penalties=to_penalties
    )
    if native is not None:
        return native
    start_grad, unary_grad, penalty_grads = composed_grad(grad, history, *each, shape, to_penalties)
    nothing = grad.new_empty(0)
    if not started:
        return nothing, unary_grad + start_grad, penalty_grads
    return start_grad, nothing if len(history) == 1 else unary_grad, penalty_grads


@mean_field_updates_grad.register_fake
def _(
    grad: Tensor, history: Tensor, penalties: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    labels, (started, to_penalties) = grad.shape[2], rest[-2:]
    rows = torch.empty_like(grad, memory_format=torch.contiguous_format)
    nothing = grad.new_empty(0)
    alone = started and history.shape[0] == 1
    return (
        rows if started else nothing,
        nothing if alone else torch.empty_like(rows),
        grad.new_empty(len(penalties) if to_penalties else 0, labels, labels),
    )


def _kernels(
    penalties: Sequence[Tensor],
    factors: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
) -> list[cpu_update.Kernel]:
    return [
        cpu_update.Kernel(penalty, before, after, _described(own, accuracy, shape))
        for penalty, before, after, own, accuracy in each_kernel(
            penalties, factors, tensors, accuracies
        )
    ]


def _described(own: Sequence[Tensor], accuracy: str, shape: Sequence[int]) -> cpu_update.Described:
    return (Lattice(*own), named(accuracy)) if accuracy else (own[0], shape)


def _save_updates(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    start, _, penalties, factors, tensors, ctx.accuracies, ctx.shape, _, ctx.stored = inputs
    ctx.set_materialize_grads(False)
    ctx.started = start is not None
    ctx.counts = len(penalties), len(factors)
    ctx.save_for_backward(output[1], *penalties, *factors, *tensors)


def _updates_backward(ctx: Any, grad: Tensor | None, history_grad: Tensor | None) -> Any:
    history, *saved = ctx.saved_tensors
    count, num_factors = ctx.counts
    penalties, factors = saved[:count], saved[count : count + num_factors]
    tensors = saved[count + num_factors :]
    if not ctx.stored:
        raise RuntimeError("mean-field updates have a gradient with store=True alone, got False.")
    to_start, to_unary, to_penalties = ctx.needs_input_grad[:3]
    each = penalties, factors, tensors, ctx.accuracies, ctx.shape
    grad = torch.zeros_like(history[0]) if grad is None else grad
    if history_grad is not None or torch.is_grad_enabled():
        start_grad, unary_grad, penalty_grads = composed_grad(
            grad, history, *each, any(to_penalties), history_grad
        )
        unary_grad = unary_grad if ctx.started else unary_grad + start_grad
    else:
        start_grad, unary_grad, penalty_grads = mean_field_updates_grad(
            grad.contiguous(), history, *each, ctx.started, any(to_penalties)
        )
        unary_grad = unary_grad if unary_grad.numel() else grad
    own = iter(penalty_grads)  # of all penalties, or of none
    return (
        start_grad if to_start else None,
        unary_grad if to_unary else None,
        [g if wanted else None for wanted, g in zip_longest(to_penalties, own)],
        [None] * num_factors,
        [None] * len(tensors),
        *[None] * 4,
    )


mean_field_updates.register_autograd(_updates_backward, setup_context=_save_updates)


def fused_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    iterations: int = 1,
) -> Tensor | None:
    """The operator on these kernels, or None where it does not serve.

    It serves float32 on the CPU, spatial Gaussians of one grid and lattices, normalised, none of
    which learns.
    """
    rows = [unary] if start is None else [start, unary]
    if not kernels or any(
        x.dtype != torch.float32 or x.device.type != "cpu" for x in (*rows, *penalties)
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
    learns = any(x.requires_grad for x in (*rows, *penalties))
    result: Tensor = mean_field_updates(
        None if start is None else start.contiguous(),
        unary.contiguous(),
        list(penalties),
        factors,
        tensors,
        ",".join(accuracies),
        shape or [0],  # an empty list reads as one of tensors on the way back
        iterations,
        learns and torch.is_grad_enabled(),
    )[0]
    return result
