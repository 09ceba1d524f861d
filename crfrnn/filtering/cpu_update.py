"""A whole mean-field update on the native CPU path, and its gradient.

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
from crfrnn.filtering.cpu import (
    lattice_argument,
    native_for,
    separable_argument,
)
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.native import KernelArgument, check_memory

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


def mean_field_update(
    logits: Tensor, unary: Tensor, kernels: Sequence[Kernel], iterations: int
) -> Tensor | None:
    """logits = unary - sum_m K_m softmax(logits) P_m', `iterations` times: (B, N, L).

    Args:
        logits: (B, N, L), before the first update.
        unary: (B, N, L).
        kernels: K_m with P_m.
        iterations: one or more.
    """
    native = native_for(logits, unary)
    if native is None or not _served(kernels) or logits.numel() == 0:
        return None
    logits, unary = logits.contiguous(), unary.contiguous()
    updated = torch.empty_like(logits)
    arguments, _keep = kernel_arguments(kernels)
    check_memory(
        native.crfrnn_mean_field_update(
            arguments,
            len(kernels),
            *logits.shape,
            iterations,
            logits.data_ptr(),
            unary.data_ptr(),
            updated.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return updated


def mean_field_update_grad(
    grad: Tensor, logits: Tensor, kernels: Sequence[Kernel], *, to_penalties: bool
) -> tuple[Tensor, Tensor] | None:
    """The gradients of one update to its logits, (B, N, L), and to all P_m, (M, L, L).

        h_m = K_m' grad,   dP_m = -sum_i h_m(i) q(i)',
        dlogits = q (g - <q, g>),   g = -sum_m h_m P_m

    Args:
        grad: (B, N, L), of the update.
        logits: (B, N, L), q = softmax(logits).
        kernels: K_m with P_m.
        to_penalties: whether dP is wanted; without, it is (0, L, L).
    """
    native = native_for(grad, logits)
    if native is None or not _served(kernels) or logits.numel() == 0:
        return None
    grad, logits = grad.contiguous(), logits.contiguous()
    labels = logits.shape[2]
    penalty_grads = grad.new_empty(len(kernels) if to_penalties else 0, labels, labels)
    logits_grad = torch.empty_like(logits)
    arguments, _keep = kernel_arguments(kernels)
    check_memory(
        native.crfrnn_mean_field_update_grad(
            arguments,
            len(kernels),
            *logits.shape,
            logits.data_ptr(),
            grad.data_ptr(),
            logits_grad.data_ptr(),
            penalty_grads.data_ptr() if to_penalties else None,
            torch.get_num_threads(),
        )
    )
    return logits_grad, penalty_grads


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
