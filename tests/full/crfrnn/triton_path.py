"""What the tests of the Triton path share: it on CPU tensors, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import triton_kernels
from crfrnn.filtering import cpu, cpu_update, cuda, cuda_update
from crfrnn.filtering.cpu_kernels import Kernel
from crfrnn.filtering.lattice import ACCURACIES
from crfrnn.filtering.update_composed import FlatKernel
from crfrnn.filtering.update_ops import without_repetition

needs_triton = pytest.mark.skipif(
    not triton_kernels.available(), reason="Triton is not installed: it comes with PyTorch for GPUs"
)
needs_interpreter = pytest.mark.skipif(
    torch.cuda.is_available(), reason="beside a GPU the kernels are compiled, for its tensors alone"
)


def flat(kernels: Sequence[Kernel]) -> list[FlatKernel]:
    """Kernels as the native path takes them, as the operators do."""
    found = []
    for kernel in kernels:
        assert kernel.penalty is not None
        tensors, accuracy, shape = [kernel.source], "", [0]
        if isinstance(kernel.filter, tuple):
            tables, numbers = kernel.filter
            tensors += list(tables)
            accuracy = next(name for name, own in ACCURACIES.items() if own == numbers)
        else:
            shape = list(kernel.filter)
        found.append(
            FlatKernel(kernel.penalty, kernel.before, kernel.after, tensors, accuracy, shape)
        )
    return found


def use_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Route the operators of CPU tensors over the functions of CUDA tensors."""

    def updates(
        start: Tensor | None,
        unary: Tensor,
        kernels: Sequence[Kernel],
        iterations: int,
        history: Tensor | None,
    ) -> Tensor:
        none = unary.new_empty(0, *unary.shape)
        q = none if history is None else history
        return cuda_update.mean_field_updates(start, unary, flat(kernels), iterations, q)

    def updates_grad(
        grad: Tensor, history: Tensor, kernels: Sequence[Kernel], *, started: bool, **options: Any
    ) -> tuple[Tensor, ...]:
        grads = cuda_update.mean_field_updates_grad(grad, history, flat(kernels), **options)
        return without_repetition(grads, started=started, updates=len(history))

    monkeypatch.setattr(cpu, "build_lattice", cuda.build_lattice)
    monkeypatch.setattr(cpu, "lattice_filter", cuda.lattice_filter)
    monkeypatch.setattr(cpu_update, "mean_field_updates", updates)
    monkeypatch.setattr(cpu_update, "mean_field_updates_grad", updates_grad)
