"""The permutohedral lattice in plain PyTorch: the readable specification.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice", Eurographics 2010; scales as in Krahenbuhl and Koltun, NIPS 2011.

    K v = slice(blur(splat(v))) = W B_d ... B_0 W' v

W holds, for each pixel, the barycentric weights of the d + 1 vertices of its
simplex; B_j blurs along lattice direction j with (1/2, 1, 1/2). The blurs do not
commute where a neighbour is missing, so the transpose runs them backwards:
K' v = W B_0' ... B_d' W' v, with B_j' = B_j.

All vertices of a batch live in one table: the image index is part of the key.
Every stage is a small sparse matrix with the same number of entries a row (or a
list of rows), which torch calls an embedding bag: no atomics, so the same bits on
any number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.filtering.linear import Filter

KEY_LIMIT = 2**62  # packed keys are int64; one bit is left for sums
RESOLUTION = 1e-2  # the rounding of a coordinate, in lattice cells, that is put up with


class LatticeOverflowError(ValueError):
    """The features reach farther than the lattice can tell apart: theta is too small."""


class LatticeFilter(Filter):
    """K v on a permutohedral lattice, built once from the features.

    Shapes: B images, N pixels, d feature dimensions, M vertices, L labels.

    Args:
        features: (B, N, d), already divided by theta.

    Raises:
        LatticeOverflowError: theta is so small that the keys do not fit.
    """

    def __init__(self, features: Tensor) -> None:
        batch, num_pixels, dim = features.shape
        elevated = elevate(features.detach().reshape(-1, dim))
        check_precision(elevated)
        simplex = enclosing_simplex(elevated)
        image_index = torch.arange(batch, device=features.device).repeat_interleave(num_pixels)
        keys, strides = pack_keys(simplex, image_index)

        # One sort gives the vertex table, each pixel's vertices and each vertex's pixels.
        ordered, order = torch.sort(keys.reshape(-1), stable=True)
        vertices, inverse, counts = torch.unique_consecutive(
            ordered, return_inverse=True, return_counts=True
        )
        # Half the bytes of an index are half the traffic, wherever they are enough.
        index = torch.int32 if order.numel() < 2**31 else torch.int64
        self.slice_vertices = torch.empty_like(order).scatter_(0, order, inverse)
        self.slice_vertices = self.slice_vertices.to(index).reshape(-1, dim + 1)  # (BN, d + 1)
        self.slice_weights = simplex.barycentric  # (BN, d + 1)
        self.splat_pixels = torch.div(order, dim + 1, rounding_mode="floor").to(index)
        self.splat_weights = simplex.barycentric.reshape(-1)[order]
        self.splat_offsets = (counts.cumsum(0) - counts).to(index)  # (M,)
        self.num_vertices = vertices.numel()
        # Each direction's stencil, (M + 1, 3): behind, ahead, the vertex itself.
        self.stencils = [s.to(index) for s in find_neighbours(vertices, strides)]
        # Makes K of a constant close to a constant: the gain of the blurs.
        self.gain = 1.0 / (1.0 + 2.0**-dim)

    def matvec(self, v: Tensor) -> Tensor:
        """K v: (B, N, L)."""
        return self._filter(v, self.stencils)

    def rmatvec(self, v: Tensor) -> Tensor:
        """K' v, the blurs in reverse order: (B, N, L)."""
        return self._filter(v, self.stencils[::-1])

    def _filter(self, v: Tensor, stencils: list[Tensor]) -> Tensor:
        values = self.splat(v.reshape(-1, v.shape[-1]))
        for stencil in stencils:
            values = blur(values, stencil)
        return self.slice_(values).reshape(v.shape)

    def splat(self, v: Tensor) -> Tensor:
        """W' v: (BN, L) -> (M + 1, L), the last row zero: the missing neighbour."""
        values = F.embedding_bag(
            self.splat_pixels,
            v,
            self.splat_offsets,
            mode="sum",
            per_sample_weights=self.splat_weights.to(v.dtype),
        )
        return F.pad(values, (0, 0, 0, 1))

    def slice_(self, values: Tensor) -> Tensor:
        """W values: (M + 1, L) -> (BN, L)."""
        weights = (self.slice_weights * self.gain).to(values.dtype)
        return F.embedding_bag(self.slice_vertices, values, mode="sum", per_sample_weights=weights)


def blur(values: Tensor, stencil: Tensor) -> Tensor:
    """(1/2, 1, 1/2) along one direction: (M + 1, L); the zero row stays zero."""
    weights = values.new_tensor([0.5, 0.5, 1.0]).expand(stencil.shape[0], 3).contiguous()
    return F.embedding_bag(stencil, values, mode="sum", per_sample_weights=weights)


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


def elevate(features: Tensor) -> Tensor:
    """Rotate and scale R^d onto the plane sum = 0 of R^(d + 1): (N, d) -> (d + 1, N).

    The scale sqrt(2/3) (d + 1) makes splat, blur and slice together a Gaussian of
    unit variance (Adams et al., section 3.1). Written as a running sum, not as a
    matrix product, so that the bits do not depend on N.
    """
    dim = features.shape[1]
    elevated = features.new_empty(dim + 1, features.shape[0])
    total = torch.zeros_like(elevated[0])
    for j in range(dim, 0, -1):
        scale = math.sqrt(2 / 3) * (dim + 1) / math.sqrt(j * (j + 1))
        scaled = features[:, j - 1] * scale
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def check_precision(elevated: Tensor) -> None:
    """Raise where a coordinate's own rounding is no longer small beside a lattice cell."""
    cells = elevated.abs().amax().item() / elevated.shape[0]
    if cells * torch.finfo(elevated.dtype).eps > RESOLUTION:
        raise LatticeOverflowError(
            f"the features reach {cells:.1e} cells of the permutohedral lattice, too far for "
            f"{elevated.dtype} to place a pixel within its cell: theta is too small. Use a larger "
            "theta, float64, or the exact filter."
        )


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
    ordered = torch.empty_like(offset).scatter_(0, rank, (elevated - origin) / size).flip(0)
    barycentric = ordered - torch.cat([ordered[-1:] - 1, ordered[:-1]])
    return Simplex(origin.to(torch.int64), rank, barycentric.t().contiguous())


def pack_keys(simplex: Simplex, image_index: Tensor) -> tuple[Tensor, Tensor]:
    """One int64 per (pixel, vertex): mixed-radix digits of (image, first d coordinates).

    The radix of a coordinate is its range with a margin for neighbours, so that a
    step to a neighbour never carries into another digit.

    Args:
        simplex: of N points, batch included.
        image_index: (N,), which image a pixel belongs to.

    Returns:
        keys: (N, d + 1), and the d strides of the coordinates, int64.
    """
    dim = simplex.origin.shape[0] - 1
    low = simplex.origin[:dim].amin(1) - 2 * (dim + 1)
    span = simplex.origin[:dim].amax(1) + 2 * (dim + 1) - low + 1
    radices = [int(image_index[-1]) + 1, *span.tolist()]
    if math.prod(radices) > KEY_LIMIT:
        raise LatticeOverflowError(
            f"the permutohedral lattice would span {' x '.join(map(str, radices[1:]))} cells for "
            f"{radices[0]} image(s), more than 2^62 keys: theta is too small for these features. "
            "Use a larger theta, fewer feature dimensions, or the exact filter."
        )
    strides = [math.prod(radices[k + 2 :]) for k in range(dim)]
    image_stride = math.prod(radices[1:])

    base = image_index * image_stride
    for k in range(dim):
        base = base + (simplex.origin[k] - low[k]) * strides[k]
    keys = base.repeat(dim + 1, 1)
    for remainder in range(1, dim + 1):
        for k in range(dim):
            wrapped = simplex.rank[k] > dim - remainder
            keys[remainder] += (remainder - wrapped * (dim + 1)) * strides[k]
    return keys.t().contiguous(), torch.tensor(strides, device=base.device)


def find_neighbours(vertices: Tensor, strides: Tensor) -> list[Tensor]:
    """The rows that each vertex gathers from, along each of the d + 1 directions.

    Direction j adds d to coordinate j and takes 1 from every other; the way back is
    the inverse table. A neighbour that no pixel touches is row M, which stays zero.

    Args:
        vertices: (M,), sorted packed keys.
        strides: (d,), of the coordinates in a key.

    Returns:
        d + 1 tables (M + 1, 3) int64: one step behind, one step ahead, the vertex itself.
    """
    size, dim = vertices.numel(), strides.numel()
    missing = torch.full((size + 1,), size, device=vertices.device)
    steps = [-strides.sum() + (dim + 1) * strides[j] for j in range(dim)] + [-strides.sum()]
    itself = torch.arange(size + 1, device=vertices.device)
    stencils = []
    for step in steps:
        target = vertices + step
        found = torch.searchsorted(vertices, target).clamp_(max=size - 1)
        present = vertices[found] == target
        ahead, behind = missing.clone(), missing.clone()
        ahead[:-1] = torch.where(present, found, size)
        behind[found[present]] = present.nonzero().squeeze(1)
        stencils.append(torch.stack([behind, ahead, itself], dim=1))
    return stencils
