"""Whole mean-field updates on the native CPU path, and their gradient.

Each is None where the library does not serve; `update_ops.py` has the same sums filter by filter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_void_p

import torch
from torch import Tensor

from crfrnn.filtering.cpu_kernels import Kernel, Received, kernel_arguments
from crfrnn.native import check_memory, empty_like, native_for


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
    if native is None or not all(k.served for k in kernels) or unary.numel() == 0:
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
    learn: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """The gradients of several updates to their start, the unary, all P_m and the kernels.

    Of one update, with q = softmax(logits),

        h_m = K_m' grad,   dP_m = -sum_i h_m(i) q(i)',   dunary = grad,
        dlogits = q (g - <q, g>),   g = -sum_m h_m P_m.

    Args:
        grad: (B, N, L), of the logits after the last update.
        history: (T, B, N, L), q ahead of each update.
        kernels: K_m with P_m.
        started: whether the start was another than the unary.
        to_penalties: whether dP is wanted.
        learn: of each kernel, whether what it is made of learns.

    Returns:
        (B, N, L), or empty without a start of its own; (B, N, L), or empty where that is `grad`
        itself; (M, L, L), or (0, L, L). Of the kernels that learn, K of them: to after and before,
        (K, 2, B, N, 1), that to a factor of None without a meaning; and to their features or
        theta, flat, one kernel after another.
    """
    native = native_for(grad, history)
    if native is None or not all(k.served for k in kernels) or grad.numel() == 0:
        return None
    grad, history = grad.contiguous(), history.contiguous()
    iterations, labels = history.shape[0], grad.shape[2]
    nothing = grad.new_empty(0)
    start_grad = empty_like(grad) if started else nothing
    unary_grad = nothing if started and iterations == 1 else empty_like(grad)
    penalty_grads = grad.new_empty(len(kernels) if to_penalties else 0, labels, labels)
    arguments, _keep = kernel_arguments(kernels)
    learning = [kernel for kernel, learns in zip(kernels, learn, strict=True) if learns]
    factor_grads = grad.new_zeros(len(learning), 2, *grad.shape[:2], 1)
    received = [
        Received(kernel, grad.shape[:2], own)
        for kernel, own in zip(learning, factor_grads, strict=True)
    ]
    following = iter(received)
    to_kernels = (c_void_p * len(kernels))(
        *(ctypes.addressof(next(following).argument) if learns else None for learns in learn)
    )
    check_memory(
        native.crfrnn_mean_field_update_grad(
            arguments,
            len(kernels),
            *grad.shape,
            iterations,
            history.data_ptr(),
            grad.data_ptr(),
            *(x.data_ptr() if x.numel() else None for x in (start_grad, unary_grad, penalty_grads)),
            to_kernels,
            torch.get_num_threads(),
        )
    )
    source_grads = torch.cat([nothing, *(own.source_grad().flatten() for own in received)])
    return start_grad, unary_grad, penalty_grads, factor_grads, source_grads
