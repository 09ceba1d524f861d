"""Kernels as the native CPU path takes them, and what those that learn receive."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import separable as plain_separable
from crfrnn.filtering.cpu import lattice_argument, separable_argument, takes, taps_argument
from crfrnn.filtering.lattice import Lattice, LatticeAccuracy
from crfrnn.native import (
    KernelArgument,
    KernelGradArgument,
    SeparableArgument,
    check_memory,
    native_for,
)


@dataclass(frozen=True)
class Kernel:
    """One term of a mean-field update: a normalised kernel, and its penalty.

    Attributes:
        source: (B, N, d), the features of a lattice, or (ndim,), theta of a spatial Gaussian.
        filter: the tables and accuracy of the lattice, or the grid of the spatial Gaussian.
        before, after: (B, N, 1), the factors of `Normalized`, or None for 1.
        penalty: P (L, L); None where it does not count.
    """

    source: Tensor
    filter: tuple[Lattice, LatticeAccuracy] | Sequence[int]
    before: Tensor | None = None
    after: Tensor | None = None
    penalty: Tensor | None = None

    @property
    def served(self) -> bool:
        """Whether the library takes all tables."""
        return not isinstance(self.filter, tuple) or takes(self.filter[0])


def kernel_arguments(kernels: Sequence[Kernel]) -> tuple[Any, list[object]]:
    """The kernels as C sees them, and what must outlive the call."""
    keep: list[object] = []
    arguments = (KernelArgument * len(kernels))()
    for argument, kernel in zip(arguments, kernels, strict=True):
        dense = [
            None if x is None else x.contiguous()
            for x in (kernel.penalty, kernel.before, kernel.after)
        ]
        argument.penalty, argument.before, argument.after = (
            None if x is None else x.data_ptr() for x in dense
        )
        if isinstance(kernel.filter, tuple):
            lattice, tensors = lattice_argument(*kernel.filter)
            argument.lattice = ctypes.addressof(lattice)
            keep += [lattice, tensors]
        else:
            separable, numbers = separable_argument(kernel.source, kernel.filter)
            argument.separable = ctypes.addressof(separable)
            keep += [separable, numbers]
        keep.append(dense)
    return arguments, keep


class Received:
    """What a kernel that learns receives: C adds to it through `argument`.

    Attributes:
        factor_grads: (2, B, N, 1), to after and to before; None where they are not wanted.
        argument: how C sees it.
    """

    def __init__(self, kernel: Kernel, rows: Sequence[int], factor_grads: Tensor | None) -> None:
        self.kernel = kernel
        self.factor_grads = factor_grads
        self._keep: list[object] = []
        source = kernel.source
        dim = source.shape[-1]
        self._own = source.new_zeros(dim, *rows)
        self.argument = KernelGradArgument(
            dim=dim,
            own=self._own.data_ptr(),
            factors=None if factor_grads is None else factor_grads.data_ptr(),
        )
        if isinstance(kernel.filter, tuple):
            # Positions count from the middle: differences of them are wanted, and less cancels.
            centred = source - source.mean(1, keepdim=True)
            columns = centred.permute(2, 0, 1).contiguous()
            self.argument.features = columns.data_ptr()
            self._keep.append(columns)
        else:
            every = plain_separable.gaussian_taps(source, kernel.filter)
            changes = (SeparableArgument * dim)()
            for k, taps in enumerate(plain_separable.taps_grads(source, every)):
                changes[k], numbers = taps_argument(
                    [*every[:k], taps, *every[k + 1 :]], kernel.filter
                )
                self._keep.append(numbers)
            self.argument.changes = ctypes.addressof(changes)
            self._keep.append(changes)

    def source_grad(self) -> Tensor:
        """What features, (B, N, d), or theta, (ndim,), have received."""
        if isinstance(self.kernel.filter, tuple):
            return self._own.permute(1, 2, 0).contiguous()
        # The pixels of each image first: the bits do not depend on the number of threads.
        return torch.stack([own.sum(1).sum() for own in self._own])


def source_grad(kernel: Kernel, v: Tensor, grad: Tensor, *, transposed: bool) -> Tensor | None:
    """d <grad, K v> to features or theta of K; None where the library does not serve.

    Factors and penalty of the kernel do not count.

    Args:
        kernel: K, its features a Gaussian's, whose own derivative this is.
        v: (B, N, L).
        grad: (B, N, L), of K v.
        transposed: K' instead of K.
    """
    native = native_for(kernel.source, v, grad)
    if native is None or not kernel.served or v.numel() == 0:
        return None
    v, grad = v.contiguous(), grad.contiguous()
    received = Received(kernel, v.shape[:2], None)
    arguments, _keep = kernel_arguments([kernel])
    check_memory(
        native.crfrnn_kernel_grad(
            arguments,
            *v.shape,
            v.data_ptr(),
            grad.data_ptr(),
            transposed,
            ctypes.byref(received.argument),
            torch.get_num_threads(),
        )
    )
    return received.source_grad()
