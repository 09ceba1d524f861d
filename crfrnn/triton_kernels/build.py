"""Building a permutohedral lattice: simplices, keys and the tables between pixels and vertices.

`lattice.py` says the same in plain PyTorch. What depends on
the data, such as the strides of the keys, stays in the GPU's memory: the host reads nothing here.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

COMPARISONS = 2048  # POINTS x (d + 1) x (d + 1), in one program of simplices
ENTRIES = 256  # in one program of anything else


@triton.jit
def simplex_kernel(
    features,
    weights,
    ranks,
    digits,
    reach,
    num_points,
    SCALES: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    POINTS: tl.constexpr,
):
    """The simplex around each point: `elevate`, `enclosing_simplex` and the digits of its key.

    Coordinates run along the second axis, PADDED of them, SIZE = d + 1 of them real.
    """
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    axis = tl.arange(0, PADDED)
    there, real = (point < num_points), (axis < SIZE)[None, :]
    DIM: tl.constexpr = SIZE - 1

    total = tl.zeros((POINTS,), dtype=features.dtype.element_ty)
    elevated = tl.zeros((POINTS, PADDED), dtype=features.dtype.element_ty)
    for step in tl.static_range(DIM):
        # The last axis first: j = DIM - step.
        place = point.to(tl.int64) * DIM + DIM - 1 - step
        x = tl.load(features + place, mask=there, other=0.0) * SCALES[DIM - 1 - step]
        own = total - (DIM - step) * x
        elevated = tl.where((axis == DIM - step)[None, :], own[:, None], elevated)
        total += x
    elevated = tl.where((axis == 0)[None, :], total[:, None], elevated)
    # The compiled maximum leaves NaN out.
    size = tl.where(elevated == elevated, tl.abs(elevated), float("inf"))
    tl.store(reach + tl.program_id(0), tl.max(tl.max(size, axis=1), axis=0))

    down = tl.floor(elevated / SIZE) * SIZE
    up = tl.ceil(elevated / SIZE) * SIZE
    origin = tl.where(up - elevated < elevated - down, up, down)
    excess = tl.floor(tl.sum(tl.where(real, origin, 0.0), axis=1) / SIZE + 0.5).to(tl.int32)

    offset = elevated - origin
    mine, other = offset[:, :, None], offset[:, None, :]
    earlier = (axis[None, :] < axis[:, None])[None, :, :]
    ahead = ((other > mine) | ((other == mine) & earlier)) & real[:, None, :]
    rank = tl.sum(ahead.to(tl.int32), axis=2) + excess[:, None]
    wrap = (rank < 0).to(tl.int32) - (rank >= SIZE).to(tl.int32)
    rank += SIZE * wrap
    origin += (SIZE * wrap).to(origin.dtype)

    corner = point.to(tl.int64)[:, None] * SIZE + axis[None, :]
    tl.store(ranks + corner, rank.to(tl.int8), mask=there[:, None] & real)

    # The weight of remainder k: the coordinate of rank d - k less that of the rank after it.
    value = tl.where(real, (elevated - origin) / SIZE, 0.0)
    wanted = (DIM - axis)[None, None, :]
    next_one = tl.where(axis == 0, 0, SIZE - axis)[None, None, :]
    taken, given = rank[:, :, None] == wanted, rank[:, :, None] == next_one
    valid = real[:, :, None]
    larger = tl.sum(tl.where(taken & valid, value[:, :, None], 0.0), axis=1)
    smaller = tl.sum(tl.where(given & valid, value[:, :, None], 0.0), axis=1)
    weight = larger - tl.where((axis == 0)[None, :], smaller - 1.0, smaller)
    tl.store(weights + corner, weight, mask=there[:, None] & real)

    last = tl.sum(tl.where((axis == DIM)[None, :], origin, 0.0), axis=1)
    # A whole number, up to the rounding of the division.
    digit = tl.floor((origin - last[:, None]) / SIZE + 0.5).to(digits.dtype.element_ty)
    place = point.to(tl.int64)[:, None] * DIM + axis[None, :]
    tl.store(digits + place, digit, mask=there[:, None] & (axis < DIM)[None, :])


@triton.jit
def keys_kernel(
    digits,
    ranks,
    low,
    strides,
    keys,
    num_points,
    num_pixels,
    image_stride,
    SIZE: tl.constexpr,
    POINTS: tl.constexpr,
):
    """One key for each vertex of each point's simplex: `pack_keys`, given low and the strides."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    there = point < num_points
    DIM: tl.constexpr = SIZE - 1
    point = point.to(tl.int64)
    base = (point // num_pixels) * tl.load(image_stride)
    for k in tl.static_range(DIM):
        digit = tl.load(digits + point * DIM + k, mask=there, other=0).to(tl.int64)
        base += (digit - tl.load(low + k)) * tl.load(strides + k)
    last_rank = tl.load(ranks + point * SIZE + DIM, mask=there, other=0).to(tl.int32)
    for remainder in tl.static_range(SIZE):
        key = base
        last = (last_rank > DIM - remainder).to(tl.int64)
        for k in tl.static_range(DIM):
            rank = tl.load(ranks + point * SIZE + k, mask=there, other=0).to(tl.int32)
            key += (last - (rank > DIM - remainder).to(tl.int64)) * tl.load(strides + k)
        tl.store(keys + point * SIZE + remainder, key, mask=there)


@triton.jit
def tables_kernel(
    ordered,
    order,
    number,
    weights,
    slice_vertices,
    splat_pixels,
    splat_weights,
    offsets,
    vertices,
    num_entries,
    SIZE: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """The sorted keys as tables: a vertex begins where a key differs from the one before it.

    number counts these places, up to and with each entry.
    """
    entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    there = entry < num_entries
    source = tl.load(order + entry, mask=there, other=0)
    count = tl.load(number + entry, mask=there, other=0)
    before = tl.load(number + entry - 1, mask=there & (entry > 0), other=0)
    vertex, first = count - 1, there & (count > before)
    tl.store(slice_vertices + source, vertex, mask=there)
    tl.store(splat_pixels + entry, (source // SIZE).to(tl.int32), mask=there)
    tl.store(splat_weights + entry, tl.load(weights + source, mask=there), mask=there)
    tl.store(offsets + vertex, entry, mask=first)
    tl.store(vertices + vertex, tl.load(ordered + entry, mask=there), mask=first)


def simplices(features: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`elevate` and `enclosing_simplex` of the features (P, d).

    Returns:
        Barycentric weights (P, d + 1), ranks (P, d + 1) int8, the digits of the remainder-0
        vertices (P, d), and the largest absolute elevated coordinate, ().
    """
    num_points, dim = features.shape
    size, padded = dim + 1, triton.next_power_of_2(dim + 1)
    points = COMPARISONS // padded**2
    programs = triton.cdiv(num_points, points)
    weights = features.new_empty(num_points, size)
    ranks = features.new_empty(num_points, size, dtype=torch.int8)
    wide = torch.int64 if features.dtype == torch.float64 else torch.int32
    digits = features.new_empty(num_points, dim, dtype=wide)
    reach = features.new_empty(programs)
    simplex_kernel[(programs,)](
        features,
        weights,
        ranks,
        digits,
        reach,
        num_points,
        SCALES=tuple(scale * size / math.sqrt(j * (j + 1)) for j in range(1, size)),
        SIZE=size,
        PADDED=padded,
        POINTS=points,
        enable_fp_fusion=True,
    )
    return weights, ranks, digits, reach.amax()


def packed_keys(
    digits: Tensor, ranks: Tensor, low: Tensor, strides: Tensor, num_pixels: int
) -> Tensor:
    """`pack_keys`: (P, d + 1) int64.

    Args:
        digits: (P, d).
        ranks: (P, d + 1).
        low: (d,) int64, what is subtracted from the digits.
        strides: (d + 1,) int64, of the image and the digits.
        num_pixels: of an image.
    """
    num_points, size = ranks.shape
    keys = strides.new_empty(num_points, size)
    keys_kernel[(triton.cdiv(num_points, ENTRIES),)](
        digits,
        ranks,
        low,
        strides[1:],
        keys,
        num_points,
        num_pixels,
        strides,
        SIZE=size,
        POINTS=ENTRIES,
        enable_fp_fusion=True,
    )
    return keys


def sorted_tables(
    keys: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Build the tables of `Lattice` between pixels and vertices, by one stable sort.

    Args:
        keys: (P, d + 1).
        weights: (P, d + 1), barycentric.

    Returns:
        slice_vertices (P, d + 1), splat_pixels and splat_weights (E,), splat_offsets and the
        sorted keys of the vertices, (E,) of which the first M count, and M, (1,).
    """
    ordered, order = torch.sort(keys.reshape(-1), stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    number = first.cumsum(0, dtype=torch.int32)
    slice_vertices = number.new_empty(keys.shape)
    splat_pixels, offsets = torch.empty_like(number), torch.empty_like(number)
    splat_weights = weights.new_empty(number.shape)
    vertices = torch.empty_like(ordered)
    tables_kernel[(triton.cdiv(number.numel(), ENTRIES),)](
        ordered,
        order,
        number,
        weights,
        slice_vertices,
        splat_pixels,
        splat_weights,
        offsets,
        vertices,
        number.numel(),
        SIZE=keys.shape[1],
        ENTRIES=ENTRIES,
        enable_fp_fusion=True,
    )
    return slice_vertices, splat_pixels, splat_weights, offsets, vertices, number[-1:]
