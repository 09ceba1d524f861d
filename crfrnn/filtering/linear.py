"""Linear operators on pixels: what every way of filtering has in common.

A filter is the matrix K of one Gaussian kernel on one batch of images, never
written out: K[i, j] = exp(-|f_i - f_j|^2 / 2) or an approximation of it. It is
built once per forward pass and then applied at every mean-field iteration,
forward and backward. All filters act on pixel-major rows, v: (B, N, L).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

Normalization = Literal["symmetric", "after", "before", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)


class Filter(ABC):
    """The linear map v -> K v on (B, N, L) rows, differentiable in v and in what K is made of."""

    @abstractmethod
    def __call__(self, v: Tensor) -> Tensor:
        """K v for v of shape (B, N, L)."""

    @abstractmethod
    def transpose(self, v: Tensor) -> Tensor:
        """K' v for v of shape (B, N, L)."""


class WithoutSelf(Filter):
    """K - I: no pixel sends a message to itself, only to the others.

    Args:
        kernel: unnormalised, with ones on its diagonal: any filter but the lattice.
    """

    def __init__(self, kernel: Filter) -> None:
        self.kernel = kernel

    def __call__(self, v: Tensor) -> Tensor:
        """K v - v: (B, N, L)."""
        return self.kernel(v) - v

    def transpose(self, v: Tensor) -> Tensor:
        """K' v - v: (B, N, L)."""
        return self.kernel.transpose(v) - v


class Normalized(Filter):
    """A filter with its rows or columns brought to sum one, D = diag(K 1).

    | name        | operator            | transpose           |
    |-------------|---------------------|---------------------|
    | "symmetric" | D^-1/2 K D^-1/2     | D^-1/2 K' D^-1/2    |
    | "after"     | D^-1 K              | K' D^-1             |
    | "before"    | K D^-1              | D^-1 K'             |
    | "none"      | K                   | K'                  |

    Where a mask is given, 1 stands for the valid pixels in D, and the others neither send
    nor receive.

    Args:
        kernel: the unnormalised filter K, on (B, N, L) rows.
        normalization: one of the names above.
        valid: (B, N, 1), 1 for a pixel of an image and 0 for padding; gives dtype and device.
        masked: whether `valid` holds a 0.
    """

    def __init__(
        self, kernel: Filter, normalization: Normalization, valid: Tensor, *, masked: bool = False
    ) -> None:
        self.kernel = kernel
        self.normalization = normalization
        # Factors of v ahead of K and of K v, (B, N, 1).
        self.before: Tensor | None = valid if masked else None
        self.after: Tensor | None = valid if masked else None
        if normalization == "none":
            return
        degree = kernel(valid)
        # Padding, and a pixel without a neighbour, have nothing to receive. A neighbour counts
        # from where the factor's derivative, at most 1 / degree^2, is finite.
        alone = degree < torch.finfo(degree.dtype).tiny ** 0.5
        alone = alone | (valid == 0) if masked else alone
        degree = degree.masked_fill(alone, 1.0)
        factor = degree.rsqrt() if normalization == "symmetric" else degree.reciprocal()
        factor = factor.masked_fill(alone, 0.0)
        if normalization != "after":
            self.before = factor
        if normalization != "before":
            self.after = factor

    def __call__(self, v: Tensor) -> Tensor:
        """Scale, filter, scale: (B, N, L)."""
        return scaled(self.kernel(scaled(v, self.before)), self.after)

    def transpose(self, v: Tensor) -> Tensor:
        """The same three steps from the end: (B, N, L)."""
        return scaled(self.kernel.transpose(scaled(v, self.after)), self.before)


def scaled(v: Tensor, factor: Tensor | None) -> Tensor:
    """factor * v, None standing for 1."""
    return v if factor is None else v * factor
