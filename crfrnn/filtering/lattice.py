"""The permutohedral lattice in plain PyTorch: the readable specification.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice", Eurographics 2010; scales as in Krahenbuhl and Koltun, NIPS 2011.

    K v = slice(blur(splat(v))) = W B_d ... B_0 W' v

W holds, for each pixel, the barycentric weights of the d + 1 vertices of its
simplex; B_j blurs along lattice direction j with (1/2, 1, 1/2), or more widely on a
finer lattice with vertices inserted (`accuracy.py`). The blurs do not commute where a
neighbour is missing, so the transpose runs them backwards:
K' v = W B_0' ... B_d' W' v, with B_j' = B_j.

All vertices of a batch live in one table: the image index is part of the key.
Every stage is a small sparse matrix with the same number of entries a row (or a
list of rows), which torch calls an embedding bag: no atomics, so the same bits on
any number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.filtering.accuracy import LatticeAccuracy
from crfrnn.filtering.simplex import check_precision, elevate, enclosing_simplex
from crfrnn.filtering.vertices import (
    INSERTED_STEPS,
    find_neighbours,
    insert_neighbours,
    neighbour_steps,
    pack_keys,
)


class Lattice(NamedTuple):
    """The sparse matrices W, W' and B_j of a batch of B images with N pixels and M vertices.

    Attributes:
        slice_vertices: (BN, d + 1), the vertices of each pixel's simplex.
        slice_weights: (BN, d + 1), their barycentric weights, summing to 1.
        splat_pixels: (BN (d + 1),), the pixels around each vertex, vertex by vertex.
        splat_weights: (BN (d + 1),), the same barycentric weights in that order.
        splat_offsets: (M,), where each vertex's pixels begin; or (S,), where each segment of them
            begins, if long lists are cut (`split_segments`).
        splat_segments: (M + 1,), where each vertex's segments begin, and where the last one's end;
            (0,), if a vertex is one segment.
        stencils: (d + 1, M + 1, 2 reach + 1), the rows that each vertex gathers from, for each
            direction: behind, ahead, ..., itself. A missing neighbour is row M, which stays zero.
    """

    slice_vertices: Tensor
    slice_weights: Tensor
    splat_pixels: Tensor
    splat_weights: Tensor
    splat_offsets: Tensor
    splat_segments: Tensor
    stencils: Tensor


def build_lattice(features: Tensor, accuracy: LatticeAccuracy) -> tuple[Lattice, Tensor]:
    """The lattice around the features (B, N, d), already divided by theta.

    Returns:
        The lattice, and the rank (BN, d + 1) int8 of the coordinates within each pixel's
        simplex, of which the gradient is made.

    Raises:
        LatticeOverflowError: theta is so small that the keys do not fit.
    """
    batch, num_pixels, dim = features.shape
    elevated = elevate(features.reshape(-1, dim), accuracy.scale)
    check_precision(elevated)
    simplex = enclosing_simplex(elevated)
    image_index = torch.arange(batch, device=features.device).repeat_interleave(num_pixels)
    margin = accuracy.reach + INSERTED_STEPS * accuracy.insertion
    keys, strides = pack_keys(simplex.origin, simplex.rank, image_index, margin=margin)
    steps = neighbour_steps(strides)

    # One sort gives the touched vertices, each pixel's vertices and each vertex's pixels.
    ordered, order = torch.sort(keys.reshape(-1), stable=True)
    touched, inverse, counts = torch.unique_consecutive(
        ordered, return_inverse=True, return_counts=True
    )
    vertices = insert_neighbours(touched, steps) if accuracy.insertion else touched
    row = torch.searchsorted(vertices, touched)
    num_pixels_of = counts.new_zeros(vertices.numel()).scatter_(0, row, counts)

    # Half the bytes of an index are half the traffic, wherever they are enough.
    index = torch.int32 if max(order.numel(), vertices.numel()) < 2**31 else torch.int64
    slice_vertices = torch.empty_like(order).scatter_(0, order, row[inverse])
    stencils = find_neighbours(vertices, steps, reach=accuracy.reach)
    tables = Lattice(
        slice_vertices=slice_vertices.to(index).reshape(-1, dim + 1),
        slice_weights=simplex.barycentric,
        splat_pixels=torch.div(order, dim + 1, rounding_mode="floor").to(index),
        splat_weights=simplex.barycentric.reshape(-1)[order],
        splat_offsets=(num_pixels_of.cumsum(0) - num_pixels_of).to(index),
        splat_segments=torch.empty(0, dtype=index, device=features.device),
        stencils=torch.stack(stencils).to(index),
    )
    return tables, simplex.rank.t().to(torch.int8).contiguous()


def split_segments(lattice: Lattice, length: int) -> Lattice:
    """The same lattice, its lists of the pixels around a vertex cut to a length.

    As many segments as there could be are made without looking at the lists, for which a GPU
    would have to be waited for; those left over are empty and belong to no vertex.
    """
    begin, entries = lattice.splat_offsets.long(), lattice.splat_pixels.numel()
    counts = torch.diff(F.pad(begin, (0, 1), value=entries))
    segments_of = torch.div(counts + length - 1, length, rounding_mode="floor")
    first = F.pad(segments_of.cumsum(0), (1, 0))
    segment = torch.arange(begin.numel() + entries // length, device=begin.device)
    vertex = torch.searchsorted(first[:-1], segment, right=True) - 1
    offsets = (begin[vertex] + (segment - first[vertex]) * length).clamp_(max=entries)
    dtype = lattice.splat_offsets.dtype
    return lattice._replace(splat_offsets=offsets.to(dtype), splat_segments=first.to(dtype))


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """K v, or K' v by the blurs in reverse order, for v (B, N, L)."""
    values = splat_and_blur(lattice, v, accuracy, transposed=transposed)
    return slice_(lattice, values, accuracy).reshape(v.shape)


def lattice_weights_grad(
    lattice: Lattice, v: Tensor, grad: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """d <grad, K v> / d(barycentric weights): (BN, d + 1).

    W stands on both sides of K = W B W', so there are two terms,

        d/dW_ik = grad_i . (B W' v)_k + v_i . (B' W' grad)_k.
    """
    result = torch.zeros_like(lattice.slice_weights)
    for rows, values in (
        (grad, splat_and_blur(lattice, v, accuracy, transposed=transposed)),
        (v, splat_and_blur(lattice, grad, accuracy, transposed=not transposed)),
    ):
        flat = rows.reshape(-1, rows.shape[-1])
        for k, vertices in enumerate(lattice.slice_vertices.unbind(1)):
            result[:, k] += (flat * values[vertices]).sum(1)
    return result * accuracy.gain(lattice.slice_weights.shape[1] - 1)


def splat_and_blur(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """B_d ... B_0 W' v: (M + 1, L)."""
    values = splat(lattice, v.reshape(-1, v.shape[-1]))
    for stencil in lattice.stencils.flip(0) if transposed else lattice.stencils:
        values = blur(values, stencil, accuracy.taps)
    return values


def splat(lattice: Lattice, v: Tensor) -> Tensor:
    """W' v: (BN, L) -> (M + 1, L), the last row zero: the missing neighbour."""
    values = F.embedding_bag(
        lattice.splat_pixels,
        v,
        lattice.splat_offsets,
        mode="sum",
        per_sample_weights=lattice.splat_weights.to(v.dtype),
    )
    if lattice.splat_segments.numel():
        rows = torch.arange(len(values), device=v.device, dtype=lattice.splat_segments.dtype)
        values = F.embedding_bag(
            rows, values, lattice.splat_segments, mode="sum", include_last_offset=True
        )
    return F.pad(values, (0, 0, 0, 1))


def blur(values: Tensor, stencil: Tensor, taps: tuple[float, ...]) -> Tensor:
    """One direction: (M + 1, L) -> (M + 1, L); the zero row stays zero.

    Args:
        values: (M + 1, L), the last row zero.
        stencil: (M + 1, 2 reach + 1), from `find_neighbours`.
        taps: weights 0, 1, ... reach steps away.
    """
    row = [tap for tap in taps[1:] for _ in ("behind", "ahead")] + [taps[0]]
    weights = values.new_tensor(row).expand(stencil.shape).contiguous()
    return F.embedding_bag(stencil, values, mode="sum", per_sample_weights=weights)


def slice_(lattice: Lattice, values: Tensor, accuracy: LatticeAccuracy) -> Tensor:
    """W values, with the gain: (M + 1, L) -> (BN, L)."""
    gain = accuracy.gain(lattice.slice_weights.shape[1] - 1)
    weights = (lattice.slice_weights * gain).to(values.dtype)
    return F.embedding_bag(lattice.slice_vertices, values, mode="sum", per_sample_weights=weights)
