"""The registered operator of whole mean-field updates on the native CPU path.

    update(logits) = unary - sum_m K_m (softmax(logits) P_m'),   K_m = after_m * F_m before_m

An operator takes tensors, numbers and strings: each kernel is its factors, its tensors (theta of
a spatial Gaussian, or the features and the six tables of a lattice) and the name of its lattice's
accuracy, empty for the Gaussian. `fused_updates` tells whether the operator serves, and flattens
the kernels, which `flat_kernels` takes apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu_update
from crfrnn.filtering.accuracy import named
from crfrnn.filtering.cpu_kernels import Kernel
from crfrnn.filtering.filters import LatticeFilter, SeparableFilter
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.linear import Filter, Normalized
from crfrnn.filtering.update_composed import (
    FlatKernel,
    composed_update,
    composed_updates_grad,
    flat_kernels,
    source_indices,
)
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
        tensors: theta, or features and tables of the lattice, of each kernel in turn.
        accuracies: of each kernel's lattice, none for the spatial Gaussian, between commas.
        shape: the grid of the spatial Gaussians.
        iterations: T, one or more.
        store: whether the second result is wanted, which a gradient needs.

    Returns:
        The logits after T updates, (B, N, L), and q ahead of each, (T, B, N, L), or (0, B, N, L).
    """
    kernels = flat_kernels(penalties, factors, tensors, accuracies, shape)
    history = empty_like(_history(unary, iterations, store))
    updated = cpu_update.mean_field_updates(
        start, unary, _described(kernels), iterations, history if store else None
    )
    if updated is not None:
        return updated, history
    logits = unary if start is None else start
    for t in range(iterations):
        q = rows_softmax(logits)
        logits = composed_update(q, unary, kernels)
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
    learn: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`cpu_update.mean_field_updates_grad`; not differentiable itself."""
    kernels = flat_kernels(penalties, factors, tensors, accuracies, shape)
    native = cpu_update.mean_field_updates_grad(
        grad,
        history,
        _described(kernels),
        started=started,
        to_penalties=to_penalties,
        learn=learn,
    )
    if native is not None:
        return native
    grads = composed_updates_grad(
        grad, history, None, kernels, to_penalties=to_penalties, learn=learn
    )
    start_grad, unary_grad, penalty_grads, factor_grads, source_grads = grads
    if not started:
        start_grad, unary_grad = grad.new_empty(0), unary_grad + start_grad
    elif len(history) == 1:
        unary_grad = grad.new_empty(0)
    return start_grad, unary_grad, penalty_grads, factor_grads, source_grads


@mean_field_updates_grad.register_fake
def _(
    grad: Tensor, history: Tensor, penalties: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (batch, num_pixels, labels), (started, to_penalties, learn) = grad.shape, rest[-3:]
    rows = torch.empty_like(grad, memory_format=torch.contiguous_format)
    nothing = grad.new_empty(0)
    alone = started and history.shape[0] == 1
    factors, tensors, accuracies, shape = rest[:4]
    kernels = flat_kernels(penalties, factors, tensors, accuracies, shape)
    sizes = [k.tensors[0].numel() for k, learns in zip(kernels, learn, strict=True) if learns]
    return (
        rows if started else nothing,
        nothing if alone else torch.empty_like(rows),
        grad.new_empty(len(penalties) if to_penalties else 0, labels, labels),
        grad.new_empty(len(sizes), 2, batch, num_pixels, 1),
        grad.new_empty(sum(sizes)),
    )


def _described(kernels: Sequence[FlatKernel]) -> list[Kernel]:
    """The kernels as the native functions take them."""
    described = []
    for penalty, before, after, (source, *tables), accuracy, shape in kernels:
        table = (Lattice(*tables), named(accuracy)) if accuracy else shape
        described.append(Kernel(source, table, before, after, penalty))
    return described


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
    to_start, to_unary, to_penalties, to_factors, to_tensors = ctx.needs_input_grad[:5]
    each = penalties, factors, tensors, ctx.accuracies, ctx.shape
    kernels = flat_kernels(*each)
    sources = source_indices(kernels)
    learn = [any((*to_factors[2 * m : 2 * m + 2], to_tensors[k])) for m, k in enumerate(sources)]
    grad = torch.zeros_like(history[0]) if grad is None else grad.contiguous()
    if history_grad is not None or torch.is_grad_enabled():
        grads = composed_updates_grad(
            grad, history, history_grad, kernels, to_penalties=any(to_penalties), learn=learn
        )
        start_grad, unary_grad, penalty_grads, kernel_factor_grads, source_grads = grads
        unary_grad = unary_grad if ctx.started else unary_grad + start_grad
    else:
        grads = mean_field_updates_grad(grad, history, *each, ctx.started, any(to_penalties), learn)
        start_grad, unary_grad, penalty_grads, kernel_factor_grads, source_grads = grads
        unary_grad = unary_grad if unary_grad.numel() else grad
    factor_grads: list[Tensor | None] = [None] * num_factors
    tensor_grads: list[Tensor | None] = [None] * len(tensors)
    learning = [m for m, learns in enumerate(learn) if learns]
    flat = torch.split(source_grads, [tensors[sources[m]].numel() for m in learning])
    for m, (to_after, to_before), own in zip(learning, kernel_factor_grads, flat, strict=True):
        before, after = to_factors[2 * m : 2 * m + 2]
        factor_grads[2 * m] = to_before if before else None
        factor_grads[2 * m + 1] = to_after if after else None
        if to_tensors[sources[m]]:
            tensor_grads[sources[m]] = own.view_as(tensors[sources[m]])
    each_penalty = iter(penalty_grads)  # of all, or of none
    return (
        start_grad if to_start else None,
        unary_grad if to_unary else None,
        [g if wanted else None for wanted, g in zip_longest(to_penalties, each_penalty)],
        factor_grads,
        tensor_grads,
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

    It serves float32 on the CPU, spatial Gaussians of one grid and lattices, normalised; but not
    the lattice's own derivative, which its filter has.
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
        if isinstance(own, LatticeFilter) and not own.learns_through_tables:
            tensors += [own.features, *own.tables]
            accuracies.append(own.accuracy)
        elif isinstance(own, SeparableFilter) and shape in ([], own.shape):
            tensors.append(own.theta)
            accuracies.append("")
            shape = own.shape
        else:
            return None
        factors += [unary.new_empty(0) if x is None else x for x in (kernel.before, kernel.after)]
    learns = any(x.requires_grad for x in (*rows, *penalties, *factors, *tensors))
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
