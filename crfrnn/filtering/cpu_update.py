"""Whole mean-field updates on the native CPU path, and their gradient.

Each is None where the library does not serve; `update_ops.py` has the same sums filter by filter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering.accuracy import LatticeAccuracy
from crfrnn.filtering.cpu import lattice_argument, separable_argument
from crfrnn.filtering.lattice import Lattice
from crfrnn.native import KernelArgument, check_memory, empty_like, native_for

Described = tuple[Lattice, LatticeAccuracy] | tuple[Tensor, Sequence[int]]


@dataclass(frozen=True)
class Kernel:
    """One term of a mean-field update: a normalised kernel, and its penalty.

    Attributes:
        penalty: P (L, L).
        before, after: (B, N, 1), the factors of `Normalized`, or None for 1.
        filter: the tables and accuracy of a lattice, or theta and grid of the spatial Gaussian.
    """

    penalty: Tensor
    before: Tensor | None
    after: Tensor | None
    filter: Described


def mean_field_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Kernel],
    iterations: int,
    history: Tensor | None,
) -> Tensor | None:
    """logits = unary - sum_m K_m softmax(logits) P_m', `iterations` times: (B, N, L).

    Args:
        start: (B, N, L), the logits before the first update; None: the unary.
        unary: (B, N, L).
        kernels: K_m with P_m.
        iterations: T, one or more.
        history: (T, B, N, L), receives q ahead of each update.
    """
    start = unary if start is None else start
    native = native_for(start, unary)
    if native is None or not _served(kernels) or unary.numel() == 0:
        return None
    start, unary = start.contiguous(), unary.contiguous()
    updated = empty_like(unary)
    arguments, _keep = kernel_arguments(kernels)
    check_memory(
        native.crfrnn_mean_field_update(
            arguments,
            len(kernels),
            *unary.shape,
            iterations,
            start.data_ptr(),
            unary.data_ptr(),
            None if history is None else history.data_ptr(),
            updated.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return updated


def mean_field_updates_grad(
    grad: Tensor,
    history: Tensor,
    kernels: Sequence[Kernel],
    *,
    started: bool,
    to_penalties: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The gradients of several updates to their start, the unary, and all P_m.

    Of one update, with q = softmax(logits),

        h_m = K_m' grad,   dP_m = -sum_i h_m(i) q(i)',   dunary = grad,
        dlogits = q (g - <q, g>),   g = -sum_m h_m P_m.

    Args:
        grad: (B, N, L), of the logits after the last update.
        history: (T, B, N, L), q ahead of each update.
        kernels: K_m with P_m.
        started: whether the start was another than the unary.
        to_penalties: whether dP is wanted.

    Returns:
        (B, N, L), or empty without a start of its own; (B, N, L), or empty where that is `grad`
        itself; (M, L, L), or (0, L, L).
    """
    native = native_for(grad, history)
    if native is None or not _served(kernels) or grad.numel() == 0:
        return None
    grad, history = grad.contiguous(), history.contiguous()
    iterations, labels = history.shape[0], grad.shape[2]
    nothing = grad.new_empty(0)
    start_grad = empty_like(grad) if started else nothing
    unary_grad = nothing if started and iterations == 1 else empty_like(grad)
    penalty_grads = grad.new_empty(len(kernels) if to_penalties else 0, labels, labels)
    arguments, _keep = kernel_arguments(kernels)
    check_memory(
        native.crfrnn_mean_field_update_grad(
            arguments,
            len(kernels),
            *grad.shape,
            iterations,
            history.data_ptr(),
            grad.data_ptr(),
            *(x.data_ptr() if x.numel() else None for x in (start_grad, unary_grad, penalty_grads)),
            torch.get_num_threads(),
        )
    )
    return start_grad, unary_grad, penalty_grads


def _served(kernels: Sequence[Kernel]) -> bool:
    """Whether the library takes all tables: not those with more than 2^31 entries."""
    tables = [kernel.filter[0] for kernel in kernels]
    return not any(isinstance(t, Lattice) and t.slice_vertices.dtype != torch.int32 for t in tables)


def kernel_arguments(kernels: Sequence[Kernel]) -> tuple[Any, list[object]]:
    """The kernels as C sees them, and what must outlive the call."""
    keep: list[object] = []
    arguments = (KernelArgument * len(kernels))()
    for argument, kernel in zip(arguments, kernels, strict=True):
        dense = [None if x is None else x.contiguous() for x in (kernel.before, kernel.after)]
        penalty = kernel.penalty.contiguous()
        argument.penalty = penalty.data_ptr()
        argument.before, argument.after = (x if x is None else x.data_ptr() for x in dense)
        table, options = kernel.filter
        if isinstance(table, Lattice):
            assert isinstance(options, LatticeAccuracy)
            lattice, tensors = lattice_argument(table, options)
            argument.lattice = ctypes.addressof(lattice)
            keep += [lattice, tensors]
        else:
            assert not isinstance(options, LatticeAccuracy)
            separable, numbers = separable_argument(table, options)
            argument.separable = ctypes.addressof(separable)
            keep += [separable, numbers]
        keep += [dense, penalty]
    return arguments, keep
