"""The spatial Gaussian as a dense matrix for each axis: the library's product, not a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from crfrnn.filtering import Filter
from crfrnn.filtering.cuda_separable import axis_matrices, multiply_axes


@final
class DenseAxesFilter(Filter):
    """K v by a matrix product for each axis, differentiable in v alone. K is symmetric.

    Args:
        theta: (ndim,), pixels.
        shape: the grid.
    """

    def __init__(self, theta: Tensor, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.matrices = axis_matrices(theta.detach(), shape)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        return multiply_axes(self.matrices, v, self.shape)

    def transpose(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self(v)
