"""The registered operator of whole mean-field updates.

    update(logits) = unary - sum_m K_m (softmax(logits) P_m'),   K_m = after_m * F_m before_m

An operator takes tensors, numbers and strings: each kernel is its factors, its tensors (theta of
a spatial Gaussian, or the features and the tables of a lattice) and the name of its lattice's
accuracy, empty for the Gaussian. `fused.py` flattens the kernels, `flat_kernels` takes them apart
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu_update
from crfrnn.filtering.cpu_kernels import Kernel
from crfrnn.filtering.lattice import Lattice, named
from crfrnn.filtering.update_composed import (
    FlatKernel,
    composed_update,
    composed_updates_grad,
    flat_kernels,
    source_indices,
)
from crfrnn.native import empty_like
from crfrnn.operators import on_device_of, operator
from crfrnn.rows_ops import rows_softmax

Grads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
STORAGE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@operator(
    "crfrnn::mean_field_updates(Tensor? start, Tensor unary, Tensor[] penalties, "
    "Tensor[] factors, Tensor[] tensors, str accuracies, SymInt[] shape, SymInt iterations, "
    "bool store, str storage) -> (Tensor, Tensor)",
    "cpu",
)
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
    storage: str,
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
        storage: dtype of q and of the messages to the filters: "float32", "bfloat16", "float16".

    Returns:
        The logits after T updates, (B, N, L), and q ahead of each, (T, B, N, L), or (0, B, N, L),
        as it is stored.
    """
    kernels = flat_kernels(penalties, factors, tensors, accuracies, shape)
    history = _history(unary, iterations, store, storage)
    if storage == "float32":
        updated = cpu_update.mean_field_updates(
            start, unary, _described(kernels), iterations, history if store else None
        )
        if updated is not None:
            return updated, history
    logits = unary if start is None else start
    for t in range(iterations):
        q = rows_softmax(logits).to(history.dtype)
        logits = composed_update(q, unary, kernels)
        if store:
            history[t] = q
    return logits, history


@mean_field_updates.register_kernel("cuda")
def _(start: Tensor | None, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    from crfrnn.filtering import cuda_update

    *flattened, iterations, store, storage = rest
    kernels = flat_kernels(*flattened)
    history = _history(unary, iterations, store, storage)
    with on_device_of(unary):
        updated = cuda_update.mean_field_updates(start, unary, kernels, iterations, history)
    return updated, history


@mean_field_updates.register_fake
def _(start: Tensor | None, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    logits = torch.empty_like(unary, memory_format=torch.contiguous_format)
    iterations, store, storage = rest[-3:]
    return logits, unary.new_empty(iterations if store else 0, *unary.shape, dtype=STORAGE[storage])


def _history(unary: Tensor, iterations: int, store: bool, storage: str) -> Tensor:
    """The second result, without values."""
    like = unary.expand(iterations if store else 0, *unary.shape)
    return empty_like(like, STORAGE[storage])


@operator(
    "crfrnn::mean_field_updates_grad(Tensor grad, Tensor history, Tensor[] penalties, "
    "Tensor[] factors, Tensor[] tensors, str accuracies, SymInt[] shape, bool started, "
    "bool to_penalties, bool[] learn) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "cpu",
)
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
    return without_repetition(grads, started=started, updates=len(history))


@mean_field_updates_grad.register_kernel("cuda")
def _(grad: Tensor, history: Tensor, *rest: Any) -> Grads:
    from crfrnn.filtering import cuda_update

    *flattened, started, to_penalties, learn = rest
    kernels = flat_kernels(*flattened)
    with on_device_of(grad):
        grads = cuda_update.mean_field_updates_grad(
            grad, history, kernels, to_penalties=to_penalties, learn=learn
        )
    return without_repetition(grads, started=started, updates=len(history))


def without_repetition(grads: Grads, *, started: bool, updates: int) -> Grads:
    """What the operator returns of the gradients: one tensor for what is the same."""
    start_grad, unary_grad, penalty_grads, factor_grads, source_grads = grads
    if not started:
        start_grad, unary_grad = unary_grad.new_empty(0), unary_grad + start_grad
    elif updates == 1:
        unary_grad = unary_grad.new_empty(0)
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
    start, _, penalties, factors, tensors, ctx.accuracies, ctx.shape, _, ctx.stored, _ = inputs
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
    if grad is None:
        grad = torch.zeros_like(history[0], dtype=penalties[0].dtype)
    grad = grad.contiguous()
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
        *[None] * 5,
    )


mean_field_updates.register_autograd(_updates_backward, setup_context=_save_updates)
