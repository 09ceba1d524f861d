"""The two Gaussian kernels of the dense CRF, and how they bind to an image.

    spatial:   exp(-|p_i - p_j|^2 / (2 theta_gamma^2))
    bilateral: exp(-|p_i - p_j|^2 / (2 theta_alpha^2) - |I_i - I_j|^2 / (2 theta_beta^2))

Krahenbuhl and Koltun, NIPS 2011, section 2. Positions are in pixels of the grid
that the CRF runs on, colours in grey levels of 0..255. Both include the self term
k(f_i, f_i) = 1, as every dense CRF in use does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from crfrnn.checks import check_features
from crfrnn.filtering import ExactFilter, Filter, LatticeFilter, SeparableFilter

SpatialFilterName = Literal["separable", "lattice", "exact"]
BilateralFilterName = Literal["lattice", "exact"]


def spatial_kernel(
    batch: int, shape: tuple[int, int], theta_gamma: float, method: SpatialFilterName, like: Tensor
) -> Filter:
    """The spatial kernel on a (H, W) grid.

    Args:
        batch: B.
        shape: (H, W).
        theta_gamma: standard deviation, pixels.
        method: "separable" is exact and fast; "exact" sums all pairs; "lattice" is what
            implementations with a lattice for everything compute.
        like: gives dtype and device.
    """
    if method == "separable":
        return SeparableFilter(shape, (theta_gamma, theta_gamma), like)
    features = (positions(shape, like) / theta_gamma).expand(batch, -1, -1)
    return general_filter(features, method)


def bilateral_kernel(
    image: Tensor, theta_alpha: float, theta_beta: float, method: BilateralFilterName
) -> Filter:
    """The bilateral kernel of an image.

    Args:
        image: (B, C, H, W), 0..255.
        theta_alpha: standard deviation of the position, pixels.
        theta_beta: standard deviation of the colour, grey levels of 0..255.
        method: "lattice", or "exact" for the O(N^2) sum.
    """
    batch, _, height, width = image.shape
    position = positions((height, width), image) / theta_alpha
    colour = image.flatten(2).transpose(1, 2) / theta_beta
    features = torch.cat([position.expand(batch, -1, -1), colour], dim=2)
    return general_filter(features, method)


def general_filter(features: Tensor, method: Literal["lattice", "exact"]) -> Filter:
    """The unit-variance Gaussian kernel over any features, (B, N, d)."""
    check_features(features)
    return LatticeFilter(features) if method == "lattice" else ExactFilter(features)


def positions(shape: tuple[int, int], like: Tensor) -> Tensor:
    """(x, y) of each pixel of a (H, W) grid in row-major order: (HW, 2), pixels."""
    rows, columns = (torch.arange(n, dtype=like.dtype, device=like.device) for n in shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)
