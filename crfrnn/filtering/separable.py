"""The spatial Gaussian on a pixel grid, exact and separable.

    exp(-|p_i - p_j|^2 / (2 theta^2)) is a product over axes, so K is a Kronecker
    product of one small Toeplitz matrix per axis: K = G_y (x) G_x.

The sum stops at the image's border, as the exact O(N^2) sum does: nothing is
padded, mirrored or renormalised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crfrnn.filtering.linear import Filter

BLOCK = 64  # output positions of one banded product


class SeparableFilter(Filter):
    """K v by one banded matrix product per axis. K is symmetric.

    A tap below half a unit in the last place of the largest tap (1) is left out;
    their sum is lost in rounding.

    Args:
        shape: the grid, for example (H, W).
        theta: one standard deviation per axis, in pixels.
        like: gives dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], theta: tuple[float, ...], like: Tensor) -> None:
        self.shape = shape
        epsilon = torch.finfo(like.dtype).eps / 2
        self.radii = [math.ceil(t * math.sqrt(-2 * math.log(epsilon))) for t in theta]
        self.matrices = [toeplitz(n, t, like) for n, t in zip(shape, theta, strict=True)]

    def matvec(self, v: Tensor) -> Tensor:
        """K v: (B, N, L), N = the grid in row-major order."""
        batch, _, labels = v.shape
        before, after = batch, v[0].numel()
        for size, radius, matrix in zip(self.shape, self.radii, self.matrices, strict=True):
            after //= size
            v = banded_product(matrix, v.reshape(before, size, after), radius)
            before *= size
        return v.reshape(batch, -1, labels)

    def rmatvec(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self.matvec(v)


def toeplitz(size: int, theta: float, like: Tensor) -> Tensor:
    """G[i, j] = exp(-(i - j)^2 / (2 theta^2)): (size, size)."""
    position = torch.arange(size, dtype=like.dtype, device=like.device) / theta
    return (position[:, None] - position).square_().mul_(-0.5).exp_()


def banded_product(matrix: Tensor, x: Tensor, radius: int) -> Tensor:
    """matrix @ x for (n, n) and (batch, n, m), reading only a band of `radius`.

    Blocks of rows need a little more than their own columns: for a narrow kernel
    this saves most of the dense product, and each block is still one large matmul.
    """
    size = matrix.shape[0]
    if size <= BLOCK + 2 * radius:
        return matrix @ x
    out = torch.empty_like(x)
    for start in range(0, size, BLOCK):
        rows = slice(start, start + BLOCK)
        columns = slice(max(0, start - radius), start + BLOCK + radius)
        out[:, rows] = matrix[rows, columns] @ x[:, columns]
    return out
