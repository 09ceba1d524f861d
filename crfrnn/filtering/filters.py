"""The unnormalised filters, each one operator with what it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from crfrnn.checks import check_between, check_choice
from crfrnn.filtering import lattice_ops, ops
from crfrnn.filtering.lattice import Lattice, LatticeAccuracyName
from crfrnn.filtering.linear import Filter

FeaturesGradient = Literal["gaussian", "lattice"]
FEATURES_GRADIENTS: tuple[str, ...] = get_args(FeaturesGradient)


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

    def __init__(self, features: Tensor, *, epsilon: float | None = None) -> None:
        default = 2**-53 if features.dtype == torch.float64 else 2**-14
        self.epsilon = default if epsilon is None else epsilon
        check_between("epsilon", self.epsilon, "[0, 1)")
        self.features = features
        self.order: Tensor = ops.exact_order(features.detach())

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = ops.exact_filter(self.features, v.contiguous(), self.order, self.epsilon)
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

    def __init__(self, theta: Tensor, shape: Sequence[int]) -> None:
        self.theta = theta
        self.shape = list(shape)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = ops.separable_filter(self.theta, v.contiguous(), self.shape)
        return result

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
    ) -> None:
        check_choice("gradient", gradient, FEATURES_GRADIENTS)
        self.accuracy = accuracy
        through_lattice = gradient == "lattice"
        source = features if through_lattice else features.detach()
        *tables, _ = lattice_ops.build_lattice(source, accuracy)
        self.features = features.detach() if through_lattice else features
        self.tables = tables

    @property
    def num_vertices(self) -> int:
        """M, of the whole batch."""
        return Lattice(*self.tables).stencils.shape[1] - 1

    @property
    def learns_through_tables(self) -> bool:
        """Whether the derivative is that of the lattice itself, and anything wants it."""
        return any(table.requires_grad for table in self.tables)

    def __call__(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        result: Tensor = lattice_ops.lattice_filter(
            self.features, v.contiguous(), *self.tables, self.accuracy, False
        )
        return result

    def transpose(self, v: Tensor) -> Tensor:
        """K' v: (B, N, L)."""
        result: Tensor = lattice_ops.lattice_filter(
            self.features, v.contiguous(), *self.tables, self.accuracy, True
        )
        return result
