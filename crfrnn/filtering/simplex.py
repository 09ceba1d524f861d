"""The geometry of the permutohedral lattice: which simplex a point lies in, and where in it.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice", Eurographics 2010, sections 3.1 and 3.2; and the derivative of both steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crfrnn.filtering.vertices import LatticeOverflowError

RESOLUTION = 1e-2  # the rounding of a coordinate, in lattice cells, that is put up with


@dataclass(frozen=True)
class Simplex:
    """The simplex around each of N points, all (d + 1, N) but the weights.

    Attributes:
        origin: int64, its remainder-0 vertex in elevated coordinates.
        rank: int64, the rank of each coordinate's offset from the origin, 0 the largest.
        barycentric: (N, d + 1), the weight of the vertex of remainder k, summing to 1.
    """

    origin: Tensor
    rank: Tensor
    barycentric: Tensor


def elevate(features: Tensor, scale: float) -> Tensor:
    """Rotate and scale R^d onto the plane sum = 0 of R^(d + 1): (N, d) -> (d + 1, N).

    Written as a running sum, not as a matrix product, so that the bits do not depend on N.

    Args:
        features: (N, d), of unit variance.
        scale: times d + 1, the lattice units of a unit (`LatticeAccuracy.scale`).
    """
    dim = features.shape[1]
    elevated = features.new_empty(dim + 1, features.shape[0])
    total = torch.zeros_like(elevated[0])
    for j in range(dim, 0, -1):
        scaled = features[:, j - 1] * (scale * (dim + 1) / math.sqrt(j * (j + 1)))
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def elevate_transposed(elevated: Tensor, scale: float) -> Tensor:
    """The transpose of `elevate`: (d + 1, N) -> (N, d)."""
    dim = elevated.shape[0] - 1
    features = elevated.new_empty(elevated.shape[1], dim)
    total = elevated[0]
    for j in range(1, dim + 1):
        factor = scale * (dim + 1) / math.sqrt(j * (j + 1))
        features[:, j - 1] = (total - j * elevated[j]) * factor
        total = total + elevated[j]
    return features


def check_precision(elevated: Tensor) -> None:
    """Raise where a coordinate's own rounding is no longer small beside a lattice cell."""
    largest, size = elevated.abs().amax().item(), elevated.shape[0]
    if not largest <= largest_precise(elevated.dtype, size):  # NaN as well
        cells = largest / size
        raise LatticeOverflowError(
            f"the features reach {cells:.1e} cells of the permutohedral lattice, too far for "
            f"{elevated.dtype} to place a pixel within its cell: theta is too small. Use a larger "
            "theta, float64, or the exact filter."
        )


def largest_precise(dtype: torch.dtype, size: int) -> float:
    """The largest elevated coordinate of d + 1 = size that still has `RESOLUTION`."""
    return RESOLUTION / torch.finfo(dtype).eps * size


def enclosing_simplex(elevated: Tensor) -> Simplex:
    """The lattice simplex around each elevated point, (d + 1, N) (Adams et al., section 3.2)."""
    size = elevated.shape[0]  # d + 1

    # Round every coordinate to the nearest multiple of d + 1; ties go down.
    down = (elevated / size).floor() * size
    up = (elevated / size).ceil() * size
    origin = torch.where(up - elevated < elevated - down, up, down)
    excess = (origin.sum(0) / size).round().to(torch.int64)

    # Rank the offsets, largest first; of two equal ones the earlier coordinate is first.
    offset = elevated - origin
    rank = torch.zeros_like(offset, dtype=torch.int64)
    for i in range(size - 1):
        behind = offset[i] < offset[i + 1 :]  # (d - i, N)
        rank[i] += behind.sum(0)
        rank[i + 1 :] += ~behind

    # Walk back to the plane sum = 0 by moving the coordinates that were rounded worst.
    rank += excess
    wrap = (rank < 0).to(torch.int64) - (rank >= size).to(torch.int64)
    rank += size * wrap
    origin += size * wrap

    # Weight of remainder k: the gap between the sorted offsets at ranks d - k and d + 1 - k.
    # `barycentric_features_grad` is the derivative of these two lines.
    ordered = torch.empty_like(offset).scatter_(0, rank, (elevated - origin) / size).flip(0)
    barycentric = ordered - torch.cat([ordered[-1:] - 1, ordered[:-1]])
    return Simplex(origin.to(torch.int64), rank, barycentric.t().contiguous())


def barycentric_features_grad(rank: Tensor, grad: Tensor, scale: float) -> Tensor:
    """The features' gradient (BN, d) from that of the barycentric weights (BN, d + 1).

    Within a simplex each weight is a difference of two elevated coordinates, chosen by rank
    (`enclosing_simplex`), and these are linear in the features (`elevate`).
    """
    size = rank.shape[1]
    # The coordinate of rank r is added to the weight of remainder d - r, taken from d + 1 - r.
    by_rank = (grad - grad.roll(-1, dims=1)).flip(1) / size  # (BN, d + 1)
    elevated = by_rank.gather(1, rank.long())
    return elevate_transposed(elevated.t(), scale)
