"""The spatial Gaussian on a GPU: the plain filter by the loops of `triton_kernels/separable.py`.

Functions of the same names and meanings as the plain ones. Where Triton is not installed, and for
dtypes that the kernels do not know, dense matrices serve, one for each axis: on a GPU the plain
file's convolution would be cuDNN's, which rounds float32 to 10 bits unless told not to, while
torch's products do so only if told to. Either way theta stays in the GPU's memory: nothing waits
for it, and a CUDA graph captures the whole. The plain file serves along an axis too long for a
matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from crfrnn import plain, triton_kernels

LONGEST = 8192  # pixels along an axis with a matrix: 256 MB of float32


def separable_filter(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    """`plain.separable_filter`; rows of 16 bits are rounded to such after each axis."""
    v = v.contiguous()
    if not _served(v):
        if max(shape) > LONGEST:
            return plain.separable_filter(theta, v, shape)
        return multiply_axes(axis_matrices(theta, shape), v, shape)
    from crfrnn.triton_kernels.separable import correlate

    for axis, size, inner in axes(shape, v.shape[2]):
        v = correlate(theta[axis], v, size, inner)
    return v


def separable_theta_grad(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    """`plain.separable_theta_grad`: each axis last, where its product is summed up at once."""
    v, grad = v.contiguous(), grad.contiguous()
    if not _served(v) or grad.dtype != v.dtype:
        if max(shape) > LONGEST:
            return plain.separable_theta_grad(theta, v, grad, shape)
        return _dense_theta_grad(theta, v, grad, shape)
    from crfrnn.triton_kernels.separable import correlate, theta_grad

    grads = []
    for last, size, inner in axes(shape, v.shape[2]):
        filtered = v
        for axis, *extent in axes(shape, v.shape[2]):
            if axis != last:
                filtered = correlate(theta[axis], filtered, *extent)
        grads.append(theta_grad(theta[last], filtered, grad, size, inner))
    return torch.stack(grads).to(theta.dtype)


def axis_matrices(theta: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """K along each axis: exp(-(x - s)^2 / (2 theta^2)), (size, size)."""
    widths = theta.unbind(0)
    return [(-0.5 * (_steps(w, n) / w).square()).exp() for w, n in zip(widths, shape, strict=True)]


def multiply_axes(matrices: Sequence[Tensor], v: Tensor, shape: Sequence[int]) -> Tensor:
    """One matrix product along each axis of v (B, N, L)."""
    filtered = v
    for matrix, (_, size, inner) in zip(matrices, axes(shape, v.shape[2]), strict=True):
        filtered = matrix.to(v.dtype) @ filtered.reshape(-1, size, inner)
    return filtered.reshape(v.shape)


def axes(shape: Sequence[int], labels: int) -> Iterator[tuple[int, int, int]]:
    """Each axis of a grid of rows: its number, pixels along it, elements from one to the next."""
    for axis, size in enumerate(shape):
        yield axis, size, math.prod(shape[axis + 1 :]) * labels


def _dense_theta_grad(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    """d/d theta of each axis' matrix in its place: (x - s)^2 / theta^3 times itself."""
    matrices, grads = axis_matrices(theta, shape), []
    for axis, (width, size) in enumerate(zip(theta.unbind(0), shape, strict=True)):
        derivative = matrices[axis] * _steps(width, size).square() / width**3
        changed = [*matrices[:axis], derivative, *matrices[axis + 1 :]]
        grads.append((grad * multiply_axes(changed, v, shape)).sum())
    return torch.stack(grads).to(theta.dtype)


def _steps(like: Tensor, size: int) -> Tensor:
    """x - s: (size, size)."""
    x = torch.arange(size, dtype=like.dtype, device=like.device)
    return x[:, None] - x


def _served(v: Tensor) -> bool:
    if not triton_kernels.available() or v.numel() == 0:
        return False
    from crfrnn.triton_kernels.separable import DTYPES

    return v.dtype in DTYPES
