"""The vertex table of a permutohedral lattice: packed keys, and who neighbours whom.

The lattice in R^d is spanned by d + 1 directions u_0 .. u_d that sum to zero, so a vertex is
a_0 u_0 + ... + a_(d-1) u_(d-1) with integers a_k: one step along u_k adds 1 to a_k, and one
along u_d takes 1 from all. In elevated coordinates x (Adams et al. 2010, section 3.1) u_k adds
d to x_k and takes 1 from every other, so a_k = (x_k - x_d) / (d + 1). The keys pack the a_k:
packing x_k itself would waste a factor (d + 1)^(d - 1) of the int64, since only one in as many
integer points of the plane is a vertex.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KEY_LIMIT = 2**62  # packed keys are int64; one bit is left for sums
INSERTED_STEPS = 2  # how far from a pixel's own vertices vertices are inserted
CONNECTED = 4  # of 2 (d + 1) neighbours; 3 or 5: fewer errors or fewer vertices, by a tenth or two


class LatticeOverflowError(ValueError):
    """The features reach farther than the lattice can tell apart: theta is too small."""


def pack_keys(
    origin: Tensor, rank: Tensor, image_index: Tensor, *, margin: int
) -> tuple[Tensor, list[int]]:
    """One int64 per (pixel, vertex): mixed-radix digits of (image, a_0, ..., a_(d-1)).

    The radix of a digit is its range with a margin, so that a step to a neighbour never carries
    into another digit.

    Args:
        origin: (d + 1, N) int64, each pixel's remainder-0 vertex in elevated coordinates.
        rank: (d + 1, N) int64, the rank of each coordinate within the simplex.
        image_index: (N,), which image a pixel belongs to.
        margin: steps that will ever be made from a pixel's own vertices.

    Returns:
        keys: (N, d + 1), and the d strides of the digits.

    Raises:
        LatticeOverflowError: the digits do not fit into 62 bits.
    """
    dim = origin.shape[0] - 1
    digits = torch.div(origin[:dim] - origin[dim], dim + 1, rounding_mode="floor")  # exact
    low = digits.amin(1) - margin - 1  # the other vertices of a simplex differ by at most one
    spans = (digits.amax(1) + margin + 1 - low + 1).tolist()
    radices = [int(image_index[-1]) + 1, *spans]
    if math.prod(radices) > KEY_LIMIT:
        raise LatticeOverflowError(
            f"the permutohedral lattice would span {' x '.join(map(str, spans))} cells for "
            f"{radices[0]} image(s), more than 2^62 keys: theta is too small for these features. "
            "Use a larger theta, fewer feature dimensions, or the exact filter."
        )
    strides = [math.prod(radices[k + 2 :]) for k in range(dim)]

    base = image_index * math.prod(spans)
    for k in range(dim):
        base = base + (digits[k] - low[k]) * strides[k]
    keys = base.repeat(dim + 1, 1)
    for remainder in range(1, dim + 1):
        # Remainder r lies one step back along the directions of the r last ranks.
        wrapped = (rank > dim - remainder).to(torch.int64)
        for k in range(dim):
            keys[remainder] += (wrapped[dim] - wrapped[k]) * strides[k]
    return keys.t().contiguous(), strides


def neighbour_steps(strides: list[int]) -> list[int]:
    """What one step along each of the d + 1 directions adds to a key."""
    return [*strides, -sum(strides)]


def insert_neighbours(vertices: Tensor, steps: list[int]) -> Tensor:
    """The table with the vertices through which blurs carry values from pixel to pixel.

    A value goes from vertex to vertex along one direction after the other, and is lost where a
    vertex on its way is missing. All neighbours are inserted, so that no way over three
    directions is lost; then, of their neighbours in turn, those that have at least
    `CONNECTED` neighbours: one with fewer is seldom on a way between two pixels.

    Args:
        vertices: (M,), sorted packed keys; a margin of `INSERTED_STEPS` is needed.
        steps: from `neighbour_steps`.

    Returns:
        (M',) sorted packed keys, M' > M.
    """
    vertices = torch.unique(torch.cat([vertices, *_neighbours(vertices, steps)]))
    candidates, counts = torch.unique(torch.cat(_neighbours(vertices, steps)), return_counts=True)
    table: Tensor = torch.unique(torch.cat([vertices, candidates[counts >= CONNECTED]]))
    return table


def _neighbours(vertices: Tensor, steps: list[int]) -> list[Tensor]:
    return [vertices + sign * step for step in steps for sign in (-1, 1)]


def find_neighbours(vertices: Tensor, steps: list[int], *, reach: int) -> list[Tensor]:
    """The rows that each vertex gathers from, along each of the d + 1 directions.

    The way back is the inverse table. A neighbour that is not in the table is row M, which
    stays zero.

    Args:
        vertices: (M,), sorted packed keys.
        steps: from `neighbour_steps`.
        reach: steps to go on each side.

    Returns:
        d + 1 tables (M + 1, 2 reach + 1) int64: one step behind, one step ahead, two steps
        behind, ..., the vertex itself.
    """
    size = vertices.numel()
    missing = torch.full((size + 1,), size, device=vertices.device)
    itself = torch.arange(size + 1, device=vertices.device)
    stencils = []
    for step in steps:
        columns = []
        for hop in range(1, reach + 1):
            target = vertices + hop * step
            found = torch.searchsorted(vertices, target).clamp_(max=size - 1)
            present = vertices[found] == target
            ahead, behind = missing.clone(), missing.clone()
            ahead[:-1] = torch.where(present, found, size)
            behind[found[present]] = present.nonzero().squeeze(1)
            columns += [behind, ahead]
        stencils.append(torch.stack([*columns, itself], dim=1))
    return stencils
