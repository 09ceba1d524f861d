"""Splat, blur and slice of the permutohedral lattice: sums over lists of rows.

Every output row is summed by one program, in the order of its list: no atomics, the same bits on
every run. Rows are (R, L), row-major, and a program takes a few of them with a block of labels.
Sums are in float32, or float64 for rows of float64; half-precision rows are read and written as
they are. `lattice.py` has the same sums in plain PyTorch. Numbers that change with the
image are no part of what a kernel is compiled for.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # of the output, in one program
MAX_BLOCK = 64  # labels in one program


@triton.jit(do_not_specialize=["num_segments", "num_offsets", "num_entries"])
def segment_sum_kernel(
    rows,
    sources,
    weights,
    offsets,
    sums,
    num_segments,
    num_offsets,
    num_entries,
    LABELS: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """sums[s] = sum of weights[e] rows[sources[e]] over the entries e of segment s.

    Segment s begins at offsets[s] and ends at the next offset, or with the entries. Without sources
    and weights the entries are the rows themselves.
    """
    segment = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    label = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there, wanted = segment < num_segments, (label < LABELS)[None, :]
    begin = tl.load(offsets + segment, mask=there, other=0)
    end = tl.load(offsets + segment + 1, mask=segment + 1 < num_offsets, other=num_entries)
    length = tl.where(there, end - begin, 0)
    total = tl.zeros((ROWS, BLOCK), dtype=SUM)
    for k in range(tl.max(length, axis=0)):
        entry, more = begin + k, k < length
        source = entry
        if sources is not None:
            source = tl.load(sources + entry, mask=more, other=0)
        place = source.to(tl.int64)[:, None] * LABELS + label[None, :]
        row = tl.load(rows + place, mask=more[:, None] & wanted, other=0.0).to(SUM)
        if weights is not None:
            row *= tl.load(weights + entry, mask=more, other=0.0).to(SUM)[:, None]
        total += row
    place = segment.to(tl.int64)[:, None] * LABELS + label[None, :]
    tl.store(sums + place, total.to(sums.dtype.element_ty), mask=there[:, None] & wanted)


@triton.jit(do_not_specialize=["num_vertices"])
def blur_kernel(
    values,
    stencil,
    blurred,
    num_vertices,
    TAPS: tl.constexpr,
    LABELS: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """blurred[m] = sum_k TAPS[k] (values[k steps behind m] + values[k steps ahead of m]).

    A row of the stencil names them: behind, ahead, two behind, ..., m itself; num_vertices stands
    for a neighbour that is missing, whose row of zeros is not read but written.
    """
    vertex = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    label = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there, wanted = vertex < num_vertices, (label < LABELS)[None, :]
    WIDTH: tl.constexpr = 2 * len(TAPS) - 1
    place = vertex.to(tl.int64)[:, None] * LABELS + label[None, :]
    total = tl.zeros((ROWS, BLOCK), dtype=SUM)
    for k in tl.static_range(WIDTH - 1):
        neighbour = tl.load(stencil + vertex.to(tl.int64) * WIDTH + k, mask=there, other=0)
        found = there & (neighbour < num_vertices)
        source = neighbour.to(tl.int64)[:, None] * LABELS + label[None, :]
        row = tl.load(values + source, mask=found[:, None] & wanted, other=0.0)
        total += TAPS[1 + k // 2] * row.to(SUM)
    row = tl.load(values + place, mask=there[:, None] & wanted, other=0.0)
    total += TAPS[0] * row.to(SUM)
    zero_row = (vertex == num_vertices)[:, None] & wanted
    tl.store(
        blurred + place,
        total.to(blurred.dtype.element_ty),
        mask=(there[:, None] & wanted) | zero_row,
    )


@triton.jit
def slice_kernel(
    values,
    vertices,
    weights,
    after,
    base,
    filtered,
    num_pixels,
    GAIN: tl.constexpr,
    SIZE: tl.constexpr,
    LABELS: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """filtered[i] = GAIN sum_k weights[i, k] values[vertices[i, k]].

    With after and base, (N,) and rows, it is base[i] - after[i] times that: the end of an update.
    """
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    label = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < num_pixels
    wanted = there[:, None] & (label < LABELS)[None, :]
    total = tl.zeros((ROWS, BLOCK), dtype=SUM)
    for k in tl.static_range(SIZE):
        corner = pixel.to(tl.int64) * SIZE + k
        vertex = tl.load(vertices + corner, mask=there, other=0)
        weight = tl.load(weights + corner, mask=there, other=0.0) * GAIN
        source = vertex.to(tl.int64)[:, None] * LABELS + label[None, :]
        row = tl.load(values + source, mask=wanted, other=0.0).to(SUM)
        total += weight.to(SUM)[:, None] * row
    place = pixel.to(tl.int64)[:, None] * LABELS + label[None, :]
    if after is not None:
        total *= tl.load(after + pixel, mask=there, other=0.0).to(SUM)[:, None]
    if base is not None:
        total = tl.load(base + place, mask=wanted, other=0.0).to(SUM) - total
    tl.store(filtered + place, total.to(filtered.dtype.element_ty), mask=wanted)


@triton.jit
def corner_products_kernel(
    values,
    vertices,
    rows,
    products,
    num_pixels,
    SIZE: tl.constexpr,
    LABELS: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """products[i, k] = rows[i] . values[vertices[i, k]]: what the weights of slicing receive."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = pixel < num_pixels
    for k in tl.static_range(SIZE):
        corner = pixel.to(tl.int64) * SIZE + k
        vertex = tl.load(vertices + corner, mask=there, other=0).to(tl.int64)
        total = tl.zeros((ROWS,), dtype=SUM)
        for first in range(0, LABELS, BLOCK):
            label = first + tl.arange(0, BLOCK)
            wanted = there[:, None] & (label < LABELS)[None, :]
            own = pixel.to(tl.int64)[:, None] * LABELS + label[None, :]
            other = vertex[:, None] * LABELS + label[None, :]
            row = tl.load(rows + own, mask=wanted, other=0.0).to(SUM)
            value = tl.load(values + other, mask=wanted, other=0.0).to(SUM)
            total += tl.sum(row * value, axis=1)
        tl.store(products + corner, total.to(products.dtype.element_ty), mask=there)


def sum_type(rows: Tensor) -> tl.dtype:
    """Return what rows of that dtype are summed in."""
    return tl.float64 if rows.dtype == torch.float64 else tl.float32


def block(num_labels: int) -> int:
    """Labels that a program takes at a time: a power of two."""
    return min(int(triton.next_power_of_2(num_labels)), MAX_BLOCK)


def grid(num_rows: int, num_labels: int) -> tuple[int, int]:
    """Programs for all rows and labels."""
    return triton.cdiv(num_rows, ROWS), triton.cdiv(num_labels, block(num_labels))


def segment_sum(
    rows: Tensor, offsets: Tensor, sums: Tensor, entries: tuple[Tensor, Tensor] | None
) -> None:
    """`segment_sum_kernel` into sums.

    Args:
        rows: (R, L).
        offsets: (S,), where each segment begins; or (S + 1,), and where the last one ends.
        sums: (S, L), contiguous.
        entries: sources and weights, (E,) each; None: the rows in order, each once.
    """
    sources, weights = (None, None) if entries is None else entries
    num_segments, labels = sums.shape
    segment_sum_kernel[grid(num_segments, labels)](
        rows,
        sources,
        weights,
        offsets,
        sums,
        num_segments,
        offsets.numel(),
        rows.shape[0] if sources is None else sources.numel(),
        LABELS=labels,
        SUM=sum_type(rows),
        ROWS=ROWS,
        BLOCK=block(labels),
        enable_fp_fusion=True,
    )


def blur(values: Tensor, stencil: Tensor, taps: tuple[float, ...]) -> Tensor:
    """`lattice.blur`: (M + 1, L) -> (M + 1, L), the last row zero; that of values is not read."""
    num_rows, labels = values.shape
    blurred = torch.empty_like(values)
    blur_kernel[grid(num_rows, labels)](
        values,
        stencil,
        blurred,
        num_rows - 1,
        TAPS=taps,
        LABELS=labels,
        SUM=sum_type(values),
        ROWS=ROWS,
        BLOCK=block(labels),
        enable_fp_fusion=True,
    )
    return blurred


def slice_(
    values: Tensor,
    vertices: Tensor,
    weights: Tensor,
    gain: float,
    *,
    after: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor:
    """`lattice.slice_`, (M + 1, L) -> (BN, L), and with after and base the end of an update.

    Args:
        values: (M + 1, L).
        vertices: (BN, d + 1).
        weights: (BN, d + 1).
        gain: of the lattice.
        after: BN factors, or None for 1.
        base: (BN, L), of which the result is subtracted, or None; of the result's dtype.
    """
    (pixels, size), labels = vertices.shape, values.shape[1]
    filtered = (values if base is None else base).new_empty(pixels, labels)
    after = None if after is None else after.contiguous()
    slice_kernel[grid(pixels, labels)](
        values,
        vertices,
        weights,
        after,
        base,
        filtered,
        pixels,
        GAIN=gain,
        SIZE=size,
        LABELS=labels,
        SUM=sum_type(filtered),
        ROWS=ROWS,
        BLOCK=block(labels),
        enable_fp_fusion=True,
    )
    return filtered


def corner_products(values: Tensor, vertices: Tensor, rows: Tensor) -> Tensor:
    """rows[i] . values[vertices[i, k]]: (BN, d + 1), in the dtype of sums."""
    pixels, size = vertices.shape
    labels = rows.shape[1]
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    products = rows.new_empty(pixels, size, dtype=dtype)
    corner_products_kernel[(triton.cdiv(pixels, ROWS),)](
        values,
        vertices,
        rows,
        products,
        pixels,
        SIZE=size,
        LABELS=labels,
        SUM=sum_type(rows),
        ROWS=ROWS,
        BLOCK=block(labels),
        enable_fp_fusion=True,
    )
    return products
