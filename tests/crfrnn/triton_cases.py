"""Launches of every kernel, with the dtypes and sizes that occur, for `triton_compile.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from crfrnn.filtering.accuracy import ACCURACIES
from crfrnn.filtering.lattice import build_lattice, split_segments
from crfrnn.triton_kernels import build, segments

LABELS = 21
NUM_PIXELS = 300
ROWS = (torch.float32, torch.float64, torch.bfloat16)


def lattice(dtype: torch.dtype) -> None:
    """Splat, all blurs, slice with and without the end of an update, and the weights' gradient."""
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    features = torch.randn(1, NUM_PIXELS, 5, dtype=sums)
    for accuracy in ACCURACIES.values():
        tables = split_segments(build_lattice(features, accuracy)[0], 32)
        v = torch.rand(NUM_PIXELS, LABELS, dtype=dtype)
        values = v.new_empty(tables.stencils.shape[1], LABELS)
        parts = v.new_empty(tables.splat_offsets.numel(), LABELS, dtype=sums)
        entries = tables.splat_pixels, tables.splat_weights
        segments.segment_sum(v, tables.splat_offsets, parts, entries)
        segments.segment_sum(parts, tables.splat_segments, values, None)
        segments.blur(values, tables.stencils[0], accuracy.taps)
        gain = accuracy.gain(5)
        segments.slice_(values, tables.slice_vertices, tables.slice_weights, gain)
        base, after = torch.empty_like(v), v.new_empty(NUM_PIXELS)
        weights = tables.slice_weights
        segments.slice_(values, tables.slice_vertices, weights, gain, after=after, base=base)
        segments.corner_products(values, tables.slice_vertices, v)


def lattice_build(dtype: torch.dtype, dim: int) -> None:
    """Simplices, keys, tables and stencils."""
    features = torch.randn(NUM_PIXELS, dim, dtype=dtype)
    weights, ranks, digits, _ = build.simplices(features, 1.0)
    strides = torch.ones(dim + 1, dtype=torch.int64)
    keys = build.packed_keys(digits, ranks, strides[1:], strides, NUM_PIXELS)
    build.sorted_tables(keys, weights)
    for accuracy in ACCURACIES.values():
        build.stencils(torch.arange(50), strides, reach=accuracy.reach)


CASES: dict[str, Callable[[], None]] = {
    **{f"lattice {dtype}": lambda dtype=dtype: lattice(dtype) for dtype in ROWS},  # type: ignore[misc]
    **{
        f"build {dtype} d = {dim}": lambda dtype=dtype, dim=dim: lattice_build(dtype, dim)  # type: ignore[misc]
        for dtype, dim in ((torch.float32, 5), (torch.float64, 3), (torch.float32, 16))
    },
}
