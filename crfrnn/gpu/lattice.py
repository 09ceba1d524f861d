"""The lattice on the GPU: the same tables and sums as `lattice.py`, by the kernels of Triton.

Functions of the same names and meanings as the plain ones, which serve whatever the kernels do
not: features of more than 16 dimensions, tables of more than 2^31 entries, no Triton, and the
build of a lattice with vertices inserted. Every sum has a fixed order: the same bits on every run.

A build waits for the GPU once, for the number of vertices, because the tables are as large as
that; an application does not wait, so a CUDA graph can capture it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crfrnn import lattice as plain_lattice
from crfrnn import triton_kernels
from crfrnn.lattice import (
    KEY_LIMIT,
    Lattice,
    LatticeAccuracy,
    largest_precise,
    split_segments,
)

MAX_DIM = 16  # of the features
MAX_ENTRIES = 2**30  # of a table of int32: the last program's numbers may go beyond
# Entries of a list that are summed one after another, and then their sums: up to 13,000 pixels are
# around a vertex of a photograph at theta 80/13.
SEGMENT = 128


def serves(rows: Tensor) -> bool:
    """Tell whether the kernels sum rows of that dtype."""
    return rows.is_floating_point() and triton_kernels.available()


def build_lattice(features: Tensor, accuracy: LatticeAccuracy) -> tuple[Lattice, Tensor]:
    """`lattice.build_lattice`, with long segments split."""
    batch, num_pixels, dim = features.shape
    entries = batch * num_pixels * (dim + 1)
    supported = 1 <= dim <= MAX_DIM and 0 < entries <= MAX_ENTRIES and not accuracy.insertion
    if not (supported and features.dtype in (torch.float32, torch.float64) and serves(features)):
        plain, rank = plain_lattice.build_lattice(features, accuracy)
        return split_segments(plain, SEGMENT), rank
    from crfrnn.triton_kernels import build, neighbours

    features = features.reshape(-1, dim).contiguous()
    weights, rank, digits, reach = build.simplices(features, accuracy.scale)
    # Mixed-radix digits, as `vertices.pack_keys` has them.
    low = digits.amin(0).long() - accuracy.reach - 1
    spans = digits.amax(0).long() + accuracy.reach + 1 - low + 1
    strides = torch.cat([spans, spans.new_ones(1)]).flip(0).cumprod(0).flip(0)
    keys = build.packed_keys(digits, rank, low, strides, num_pixels)
    tables = build.sorted_tables(keys, weights)
    slice_vertices, splat_pixels, splat_weights, splat_offsets, vertices, count = tables

    numbers = torch.stack([count[0].double(), reach.double(), spans.double().prod() * batch])
    num_vertices, largest, cells = numbers.tolist()  # the host waits here, and nowhere else
    if not largest <= largest_precise(features.dtype, dim + 1) or cells > KEY_LIMIT:
        # Raises, in words.
        return plain_lattice.build_lattice(features.reshape(batch, num_pixels, dim), accuracy)
    vertices = vertices[: int(num_vertices)]
    steps = torch.cat([strides[1:], -strides[1:].sum(0, keepdim=True)])
    built = Lattice(
        slice_vertices=slice_vertices,
        slice_weights=weights,
        splat_pixels=splat_pixels,
        splat_weights=splat_weights,
        splat_offsets=splat_offsets[: int(num_vertices)],
        splat_segments=splat_offsets.new_empty(0),
        stencils=neighbours.stencils(vertices, steps, reach=accuracy.reach),
    )
    return split_segments(built, SEGMENT), rank


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.lattice_filter`; rows in half precision are summed in float32."""
    if not _serves(lattice, v):
        return plain_lattice.lattice_filter(lattice, v, accuracy, transposed=transposed)
    values = splat_and_blur(lattice, v, accuracy, transposed=transposed)
    return slice_(lattice, values, accuracy).to(v.dtype).reshape(v.shape)


def lattice_weights_grad(
    lattice: Lattice, v: Tensor, grad: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.lattice_weights_grad`."""
    if not _serves(lattice, v):
        return plain_lattice.lattice_weights_grad(lattice, v, grad, accuracy, transposed=transposed)
    from crfrnn.triton_kernels import segments

    def received(rows: Tensor, filtered: Tensor, *, transposed: bool) -> Tensor:
        values = splat_and_blur(lattice, filtered, accuracy, transposed=transposed)
        flat = rows.reshape(-1, rows.shape[-1]).contiguous()
        return segments.corner_products(values, lattice.slice_vertices, flat)

    total = received(grad, v, transposed=transposed) + received(v, grad, transposed=not transposed)
    gain = accuracy.gain(lattice.slice_weights.shape[1] - 1)
    return (total * gain).to(lattice.slice_weights.dtype)


def splat_and_blur(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.splat_and_blur`, but the last row is not there to be read: (M + 1, L)."""
    from crfrnn.triton_kernels import segments

    values = splat(lattice, v.reshape(-1, v.shape[-1]).contiguous())
    stencils = lattice.stencils.unbind()
    for stencil in reversed(stencils) if transposed else stencils:
        values = segments.blur(values, stencil, accuracy.taps)
    return values


def splat(lattice: Lattice, v: Tensor) -> Tensor:
    """`lattice.splat`: (BN, L) -> (M + 1, L) in the dtype of sums, the last row left as it is."""
    from crfrnn.triton_kernels import segments

    entries = lattice.splat_pixels, lattice.splat_weights
    num_vertices = lattice.stencils.shape[1] - 1
    values = v.new_empty(num_vertices + 1, v.shape[1], dtype=_sum_dtype(v))
    if not lattice.splat_segments.numel():
        segments.segment_sum(v, lattice.splat_offsets, values[:-1], entries)
        return values
    parts = values.new_empty(lattice.splat_offsets.numel(), v.shape[1])
    segments.segment_sum(v, lattice.splat_offsets, parts, entries)
    segments.segment_sum(parts, lattice.splat_segments, values[:-1], None)
    return values


def slice_(
    lattice: Lattice,
    values: Tensor,
    accuracy: LatticeAccuracy,
    *,
    after: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor:
    """`lattice.slice_`: (M + 1, L) -> (BN, L); with a base, base - after times that."""
    from crfrnn.triton_kernels import segments

    gain = accuracy.gain(lattice.slice_weights.shape[1] - 1)
    return segments.slice_(
        values, lattice.slice_vertices, lattice.slice_weights, gain, after=after, base=base
    )


def _serves(lattice: Lattice, v: Tensor) -> bool:
    return lattice.slice_vertices.dtype == torch.int32 and v.numel() > 0 and serves(v)


def _sum_dtype(v: Tensor) -> torch.dtype:
    return torch.float64 if v.dtype == torch.float64 else torch.float32
