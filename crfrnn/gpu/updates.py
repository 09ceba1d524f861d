"""Whole mean-field updates on the GPU, and their gradient: those of `ops.py` with fewer passes.

Softmax, penalties and the factors ahead of the filters are one kernel, the factor behind a
lattice and the difference from the unary another. Everything is float32 but q and what is sent
to the filters, which may be stored in half precision; gradients are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crfrnn import triton_kernels
from crfrnn.gpu import lattice as gpu_lattice
from crfrnn.lattice import named
from crfrnn.ops import Kernel, kernel_grads


def serves_updates(unary: Tensor) -> bool:
    """Tell whether the kernels take these rows."""
    fits = 0 < unary.shape[-1] <= triton_kernels.MAX_LABELS and unary.numel() > 0
    return fits and unary.dtype == torch.float32 and triton_kernels.available()


def mean_field_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Kernel],
    iterations: int,
    history: Tensor,
) -> Tensor:
    """logits = unary - sum_m K_m (softmax(logits) P_m'), `iterations` times: (B, N, L).

    Args:
        start: (B, N, L), the logits before the first update; None: the unary.
        unary: (B, N, L).
        kernels: K_m with P_m.
        iterations: T, one or more.
        history: receives q ahead of each update, (T, B, N, L); or of none, (0, B, N, L). Its
            dtype is the one that q and the messages are stored in.
    """
    from crfrnn.triton_kernels import rows

    labels = unary.shape[2]
    flat = unary.reshape(-1, labels).contiguous()
    logits = flat if start is None else start.reshape(-1, labels).contiguous()
    penalties = _penalties(kernels)
    before = torch.stack([_factor(kernel.before, flat) for kernel in kernels])
    each = history.flatten(1, 2)
    q = each[0] if len(each) else torch.empty_like(flat, dtype=history.dtype)
    for t in range(iterations):
        q = each[t] if len(each) else q
        sent = rows.messages(logits, penalties, before, q, history.dtype)
        logits = flat
        for kernel, v in zip(kernels, sent, strict=True):
            logits = _subtracted(logits, v, kernel, unary.shape)
    return logits.view_as(unary)


def mean_field_updates_grad(
    grad: Tensor,
    history: Tensor,
    kernels: Sequence[Kernel],
    *,
    to_penalties: bool,
    learn: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`cpu.mean_field_updates_grad`, with a start of its own, without a gradient to q itself."""
    from crfrnn.triton_kernels import rows

    shape, labels = grad.shape, grad.shape[2]
    learning = [kernel for kernel, learns in zip(kernels, learn, strict=True) if learns]
    penalties = _penalties(kernels)
    unary_grad, penalty_grads = torch.zeros_like(grad), torch.zeros_like(penalties)
    factor_grads = grad.new_zeros(len(learning), 2, *shape[:2], 1)
    source_grads = grad.new_zeros(sum(kernel.source.numel() for kernel in learning))
    received = grad.new_empty(len(kernels), *shape)
    for q in reversed(history.unbind()):
        unary_grad += grad
        if learning:
            precise = q.to(grad.dtype)
            own = [kernel_grads(grad, precise, kernel) for kernel in learning]
            source_grads += torch.cat([source.flatten() for source, _ in own])
            factor_grads += torch.stack([factors for _, factors in own])
        for kernel, h in zip(kernels, received, strict=True):
            _receive(grad, kernel, h)
        flat = received.view(len(kernels), -1, labels)
        logits_grad, sums = rows.messages_grad(
            q.view(-1, labels), flat, penalties, to_penalties=to_penalties
        )
        grad = logits_grad.view(shape)
        if sums is not None:
            penalty_grads += sums
    return (
        grad,
        unary_grad,
        penalty_grads if to_penalties else penalty_grads[:0],
        factor_grads,
        source_grads,
    )


def _subtracted(base: Tensor, v: Tensor, kernel: Kernel, shape: torch.Size) -> Tensor:
    """base - after K v, (BN, L) float32."""
    if kernel.lattice is not None:
        accuracy = named(kernel.accuracy)
        values = gpu_lattice.splat_and_blur(kernel.lattice, v, accuracy, transposed=False)
        return gpu_lattice.slice_(kernel.lattice, values, accuracy, after=kernel.after, base=base)
    filtered = kernel.filter(v.to(base.dtype).view(shape), transposed=False)
    return torch.addcmul(
        base, _factor(kernel.after, base)[:, None], filtered.view_as(base), value=-1
    )


def _receive(grad: Tensor, kernel: Kernel, received: Tensor) -> None:
    """received = before K' (after grad), (B, N, L)."""
    sent = grad if kernel.after is None else grad * kernel.after
    filtered = kernel.filter(sent, transposed=True)
    if kernel.before is None:
        received.copy_(filtered)
    else:
        torch.mul(filtered, kernel.before, out=received)


def _penalties(kernels: Sequence[Kernel]) -> Tensor:
    """(M, L, L)."""
    return torch.stack([kernel.penalty for kernel in kernels if kernel.penalty is not None])


def _factor(factor: Tensor | None, rows: Tensor) -> Tensor:
    """A factor of each row, (BN,): 1 for None."""
    return rows.new_ones(len(rows)) if factor is None else factor.reshape(-1)
