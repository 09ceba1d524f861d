"""Linear operators K v on pixels: one class for each way to compute a Gaussian filter.

A filter is the matrix K of one Gaussian kernel on one batch of images, never
written out: K[i, j] = exp(-|f_i - f_j|^2 / 2) or an approximation of it. It is
built once per forward pass and then applied at every mean-field iteration,
forward and backward. All filters act on pixel-major rows, v: (B, N, L).

Each takes an `implementation`: "automatic" for the native library on a CPU and Triton's kernels
on a GPU, "plain" for plain PyTorch, "native" or "gpu". All give the same result but for rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from crfrnn import ops
from crfrnn.checks import check_between, check_choice
from crfrnn.lattice import Lattice, LatticeAccuracyName, LatticeOverflowError
from crfrnn.ops import IMPLEMENTATIONS, Implementation, Kernel, scaled

__all__ = [
    "NORMALIZATIONS",
    "ExactFilter",
    "FeaturesGradient",
    "Filter",
    "LatticeAccuracyName",
    "LatticeFilter",
    "LatticeOverflowError",
    "Normalization",
    "Normalized",
    "SeparableFilter",
    "WindowFilter",
    "WithoutSelf",
]

Normalization = Literal["symmetric", "after", "before", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)
FeaturesGradient = Literal["gaussian", "lattice"]
FEATURES_GRADIENTS: tuple[str, ...] = get_args(FeaturesGradient)


class Filter(ABC):
    """The linear map v -> K v on (B, N, L) rows, differentiable in v and in what K is made of."""

    implementation: Implementation = "automatic"

    def packed(self) -> Kernel | None:
        """K as whole mean-field updates take it; None where they do not."""
        return None

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
        self.implementation = kernel.implementation

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
        self.implementation = kernel.implementation
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

    def packed(self) -> Kernel | None:
        """K with its factors."""
        own = self.kernel.packed()
        return None if own is None else replace(own, before=self.before, after=self.after)

    def __call__(self, v: Tensor) -> Tensor:
        """Scale, filter, scale: (B, N, L)."""
        return scaled(self.kernel(scaled(v, self.before)), self.after)

    def transpose(self, v: Tensor) -> Tensor:
        """The same three steps from the end: (B, N, L)."""
        return scaled(self.kernel.transpose(scaled(v, self.after)), self.before)


class ExactFilter(Filter):
    """K v by the sum over all pairs: O(N^2) time, O(N) memory. K is symmetric.

    On a GPU with Triton, kernels that are surely below epsilon / N are left out, a tile of pixels
    at a time: an error of at most epsilon mean_j |v_j| (`triton_kernels/exact.py`).

    Args:
        features: (B, N, d), already divided by theta.
        epsilon: in [0, 1), on a GPU; 0 leaves nothing out. None: 2^-14, a sixteenth of what the
            tensor cores' rounding of v may cost, or for features in float64 2^-53, their rounding.

    Raises:
        ValueError: epsilon is outside its range.
    """

    def __init__(
        self,
        features: Tensor,
        *,
        epsilon: float | None = None,
        implementation: Implementation = "automatic",
    ) -> None:
        default = 2**-53 if features.dtype == torch.float64 else 2**-14
        self.epsilon = default if epsilon is None else epsilon
        check_between("epsilon", self.epsilon, "[0, 1)")
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        self.implementation = implementation
        self.features = features
        self.order: Tensor = ops.exact_order(features.detach(), implementation)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = ops.exact_filter(
            self.features, v.contiguous(), self.order, self.epsilon, self.implementation
        )
        return result

    def transpose(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self(v)


class WindowFilter(Filter):
    """K v over a window around each pixel. K is symmetric.

    Args:
        features: (B, N, d), already divided by theta; N = the grid in row-major order.
        shape: the grid, for example (H, W).
        radius: steps on each side of a pixel.
        dilation: pixels in a step.
    """

    def __init__(
        self, features: Tensor, shape: Sequence[int], radius: int, dilation: int = 1
    ) -> None:
        self.features = features
        self.shape = list(shape)
        self.radius = radius
        self.dilation = dilation

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = ops.window_filter(
            self.features, v.contiguous(), self.shape, self.radius, self.dilation
        )
        return result

    def transpose(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self(v)


class SeparableFilter(Filter):
    """K v of the spatial kernel by one convolution per axis, exact. K is symmetric.

    Args:
        theta: (ndim,), one standard deviation per axis, pixels.
        shape: the grid, for example (H, W).
    """

    def __init__(
        self, theta: Tensor, shape: Sequence[int], *, implementation: Implementation = "automatic"
    ) -> None:
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        self.implementation = implementation
        self.theta = theta
        self.shape = list(shape)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = ops.separable_filter(
            self.theta, v.contiguous(), self.shape, self.implementation
        )
        return result

    def packed(self) -> Kernel:
        """Theta and the grid."""
        return Kernel(self.theta, shape=self.shape, implementation=self.implementation)

    def transpose(self, v: Tensor) -> Tensor:
        """K' v = K v: (B, N, L)."""
        return self(v)


class LatticeFilter(Filter):
    """K v on a permutohedral lattice, built once from the features.

    Args:
        features: (B, N, d), already divided by theta.
        accuracy: "standard", or "fine" for about a third or less of its error, some ten times
            the vertices, and dearer still (docs/performance.md has the measurement).
        gradient: what the features receive: the derivative of the Gaussian, filtered by the
            lattice ("gaussian"), or that of the lattice itself ("lattice"), which is
            piecewise constant, cheaper, and further from the exact sum's.

    Raises:
        LatticeOverflowError: theta is so small that the keys do not fit.
    """

    def __init__(
        self,
        features: Tensor,
        accuracy: LatticeAccuracyName = "standard",
        *,
        gradient: FeaturesGradient = "gaussian",
        implementation: Implementation = "automatic",
    ) -> None:
        check_choice("gradient", gradient, FEATURES_GRADIENTS)
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        self.implementation = implementation
        self.accuracy = accuracy
        through_lattice = gradient == "lattice"
        source = features if through_lattice else features.detach()
        *tables, _ = ops.build_lattice(source, accuracy, implementation)
        self.features = features.detach() if through_lattice else features
        self.tables = tables

    @property
    def num_vertices(self) -> int:
        """M, of the whole batch."""
        return Lattice(*self.tables).stencils.shape[1] - 1

    def packed(self) -> Kernel | None:
        """Features and tables; None where the derivative wanted is that of the lattice itself."""
        if any(table.requires_grad for table in self.tables):
            return None
        lattice, path = Lattice(*self.tables), self.implementation
        return Kernel(self.features, lattice, self.accuracy, implementation=path)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        return self._filtered(v, transposed=False)

    def transpose(self, v: Tensor) -> Tensor:
        """K' v: (B, N, L)."""
        return self._filtered(v, transposed=True)

    def _filtered(self, v: Tensor, *, transposed: bool) -> Tensor:
        result: Tensor = ops.lattice_filter(
            self.features,
            v.contiguous(),
            self.tables,
            self.accuracy,
            transposed,
            self.implementation,
        )
        return result
