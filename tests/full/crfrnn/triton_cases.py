"""Launches of every kernel, with the dtypes and sizes that occur, for `triton_compile.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from crfrnn.filtering.lattice import ACCURACIES, build_lattice, split_segments
from crfrnn.triton_kernels import build, exact, exact_grad, neighbours, rows, segments, separable

LABELS = 21
ROWS = (torch.float32, torch.float64, torch.bfloat16)


def lattice(dtype: torch.dtype, num_pixels: int = 300) -> None:
    """Splat, all blurs, slice with and without the end of an update, and the weights' gradient."""
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    features = torch.randn(1, num_pixels, 5, dtype=sums)
    for accuracy in ACCURACIES.values():
        tables = split_segments(build_lattice(features, accuracy)[0], 32)
        v = torch.rand(num_pixels, LABELS, dtype=dtype)
        values = v.new_empty(tables.stencils.shape[1], LABELS, dtype=sums)
        parts = v.new_empty(tables.splat_offsets.numel(), LABELS, dtype=sums)
        entries = tables.splat_pixels, tables.splat_weights
        segments.segment_sum(v, tables.splat_offsets, parts, entries)
        segments.segment_sum(parts, tables.splat_segments, values[:-1], None)
        segments.blur(values, tables.stencils[0], accuracy.taps)
        gain = accuracy.gain(5)
        segments.slice_(values, tables.slice_vertices, tables.slice_weights, gain)
        base, after = torch.empty_like(v), v.new_empty(num_pixels)
        weights = tables.slice_weights
        segments.slice_(values, tables.slice_vertices, weights, gain, after=after, base=base)
        segments.corner_products(values, tables.slice_vertices, v)


def lattice_build(dtype: torch.dtype, dim: int, num_pixels: int = 300) -> None:
    """Simplices, keys, tables and stencils."""
    features = torch.randn(num_pixels, dim, dtype=dtype)
    weights, ranks, digits, _ = build.simplices(features, 1.0)
    strides = torch.ones(dim + 1, dtype=torch.int64)
    keys = build.packed_keys(digits, ranks, strides[1:], strides, num_pixels)
    build.sorted_tables(keys, weights)
    for accuracy in ACCURACIES.values():
        neighbours.stencils(torch.arange(num_pixels), strides, reach=accuracy.reach)


def updates(num_labels: int, dtype: torch.dtype, num_pixels: int = 300) -> None:
    """Messages from logits, and their gradient."""
    logits, q = torch.rand(num_pixels, num_labels), torch.rand(num_pixels, num_labels, dtype=dtype)
    penalties, before = torch.rand(2, num_labels, num_labels), torch.rand(2, num_pixels)
    rows.messages(logits, penalties, before, q, dtype)
    received = torch.rand(2, num_pixels, num_labels)
    for to_penalties in (False, True):
        rows.messages_grad(q, received, penalties, to_penalties=to_penalties)


def spatial(dtype: torch.dtype, size: int = 20, labels: int = LABELS) -> None:
    """One axis of the spatial Gaussian, and its width's gradient."""
    v = torch.rand(1, size, labels, dtype=dtype)
    theta = torch.tensor(3.0, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    separable.correlate(theta, v, size, labels)
    separable.theta_grad(theta, v, v, size, labels)


def exact_sums(dtype: torch.dtype, num_labels: int, dim: int, num_pixels: int = 300) -> None:
    """The exact filter and its gradient, of rows that they sum in float32 or float64."""
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    features = torch.rand(1, num_pixels, dim, dtype=sums)
    v = torch.rand(1, num_pixels, num_labels, dtype=dtype)
    order = torch.arange(num_pixels)[None]
    exact.exact_filter(features, v, order, 2**-14)
    exact_grad.exact_features_grad(features, v, v, order, 2**-14)


def one_pixel() -> None:
    """Triton compiles anew for an argument of 1, which is then no number of its own."""
    lattice(torch.float32, 1)
    lattice_build(torch.float32, 2, 1)
    updates(2, torch.float32, 1)
    spatial(torch.float32, 1, 1)
    exact_sums(torch.float32, 2, 1, 1)


CASES: dict[str, Callable[[], None]] = {
    "one pixel": one_pixel,
    **{f"lattice {dtype}": lambda dtype=dtype: lattice(dtype) for dtype in ROWS},  # type: ignore[misc]
    **{f"spatial {dtype}": lambda dtype=dtype: spatial(dtype) for dtype in ROWS},  # type: ignore[misc]
    **{
        f"build {dtype} d = {dim}": lambda dtype=dtype, dim=dim: lattice_build(dtype, dim)  # type: ignore[misc]
        for dtype, dim in ((torch.float32, 5), (torch.float64, 3), (torch.float32, 16))
    },
    **{
        f"updates {dtype} L = {labels}": lambda dtype=dtype, labels=labels: updates(labels, dtype)  # type: ignore[misc]
        for dtype, labels in ((torch.float32, 21), (torch.bfloat16, 21), (torch.float32, 64))
    },
    **{
        f"exact {case}": lambda case=case: exact_sums(*case)  # type: ignore[misc]
        for case in (
            (torch.float32, 21, 5),
            (torch.float32, 1, 5),
            (torch.float32, 256, 5),
            (torch.float32, 21, 8),
            (torch.float32, 21, 16),
            (torch.bfloat16, 21, 5),
            (torch.float64, 21, 3),
        )
    },
}
