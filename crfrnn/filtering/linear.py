"""Linear operators on pixels: what every way of filtering has in common.

A filter is the matrix K of one Gaussian kernel on one batch of images, never
written out: K[i, j] = exp(-|f_i - f_j|^2 / 2) or an approximation of it. It is
built once per forward pass and then applied at every mean-field iteration,
forward and backward. All filters act on pixel-major rows, v: (B, N, L).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Normalization = Literal["symmetric", "after", "before", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)


class Filter(ABC):
    """The linear map v -> K v on (B, N, L) rows, with its transpose.

    Subclasses implement `matvec` (K v) and `rmatvec` (K' v) without regard to
    autograd; calling the filter is differentiable in v to any order, because the
    gradient of K v is K' g and that of K' v is K g.
    """

    @abstractmethod
    def matvec(self, v: Tensor) -> Tensor:
        """K v for v of shape (B, N, L)."""

    @abstractmethod
    def rmatvec(self, v: Tensor) -> Tensor:
        """K' v for v of shape (B, N, L)."""

    def __call__(self, v: Tensor) -> Tensor:
        """K v, differentiable in v."""
        return _Apply.apply(v, self, False)  # type: ignore[no-any-return]


class _Apply(torch.autograd.Function):
    """K v or K' v, whose gradient is the other one."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, operator: Filter, transposed: bool) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        # Gradients arrive expanded (stride 0) or permuted: settle it once, here.
        v = v.contiguous()
        return operator.rmatvec(v) if transposed else operator.matvec(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return _Apply.apply(grad, ctx.operator, not ctx.transposed), None, None


class Normalized(Filter):
    """A filter with its rows or columns brought to sum one, D = diag(K 1).

    | name        | operator            | transpose           |
    |-------------|---------------------|---------------------|
    | "symmetric" | D^-1/2 K D^-1/2     | D^-1/2 K' D^-1/2    |
    | "after"     | D^-1 K              | K' D^-1             |
    | "before"    | K D^-1              | D^-1 K'             |
    | "none"      | K                   | K'                  |

    Args:
        kernel: the unnormalised filter K, on (B, N, L) rows.
        normalization: one of the names above.
        ones: (B, N, 1), of ones: gives the shape, dtype and device of D.
    """

    def __init__(self, kernel: Filter, normalization: Normalization, ones: Tensor) -> None:
        self.kernel = kernel
        self.normalization = normalization
        self.before: Tensor | None = None  # multiplies v ahead of K, (B, N, 1)
        self.after: Tensor | None = None  # multiplies K v, (B, N, 1)
        if normalization == "none":
            return
        degree = kernel.matvec(ones)
        if normalization == "symmetric":
            self.before = self.after = degree.rsqrt()
        elif normalization == "after":
            self.after = degree.reciprocal()
        else:
            self.before = degree.reciprocal()

    def matvec(self, v: Tensor) -> Tensor:
        """Scale, filter, scale: (B, N, L)."""
        return _scale(self.kernel.matvec(_scale(v, self.before)), self.after)

    def rmatvec(self, v: Tensor) -> Tensor:
        """The same three steps from the end: (B, N, L)."""
        return _scale(self.kernel.rmatvec(_scale(v, self.after)), self.before)


def _scale(v: Tensor, factor: Tensor | None) -> Tensor:
    return v if factor is None else v * factor
