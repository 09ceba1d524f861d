"""The spatial Gaussian along one axis of a grid, as a banded matrix product.

K is a product over axes, and along one axis of `size` pixels it is a Toeplitz matrix,

    (K v)_x = sum_s exp(-(x - s)^2 / (2 theta^2)) v_s,

whose band is as wide as float rounding lets the Gaussian be seen: |x - s| <= reach theta. A
program computes BLOCK_X rows of it for BLOCK_C columns (a column is one label of one line of
pixels along the axis): the weights of a piece of the band are made in registers from theta, which
stays in the GPU's memory, and multiplied with that piece's rows.

Why so (arithmetic for 500 x 500 pixels, 21 labels, theta 3 in float32, so 21 MB and a reach of 18
pixels; not measured). Reading and writing v once is 42 MB an axis, 10 us at 4 TB/s.
- dense (size, size) matrices, one library product an axis: 2 * 500 * 5.25e6 = 5.3 GFLOP, 105 us
  at 50 TFLOP/s, the ceiling of float32 without tensor cores;
- one multiplication for each tap: 37 taps, 0.4 GFLOP, 8 us; but each wants an operand of its own
  from the first-level cache, 37 * 21 MB at 30 TB/s: 26 us;
- the band in pieces: (32 + 2 * 18) sources for 32 rows in pieces of 16 are 80, 0.84 GFLOP: three
  times that on the tensor cores ("tf32x3": each factor as the sum of two of 11 bits, without the
  product of the lower ones), 13 us at 200 TFLOP/s. Close to the memory's own time, and it stays
  there as theta grows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows that the kernels take. An older Triton has no product of float64.
DOUBLES = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6)
DTYPES = (torch.float16, torch.bfloat16, torch.float32) + (torch.float64,) * DOUBLES
BLOCK_X, BLOCK_S, BLOCK_C = 32, 16, 128  # rows of the band, its pieces, columns


@triton.jit
def _band_times_rows(
    theta, v, first, x, start, inside, size, inner,
    REACH: tl.constexpr, DERIVATIVE: tl.constexpr, PRECISION: tl.constexpr,
    SUM: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sum_s k(x - s) v_s for rows x (BLOCK_X, 1) and columns that start at `start` (1, BLOCK_C).

    With DERIVATIVE, k is d/d theta of the Gaussian: (x - s)^2 / theta^3 times itself.
    """
    width = tl.load(theta).to(SUM)
    exponent = -0.5 / (width * width)
    reach = tl.minimum(width * REACH + 1, size).to(tl.int32)
    begin = tl.maximum(first - reach, 0)
    end = tl.minimum(first + BLOCK_X + reach, size)
    total = tl.zeros([BLOCK_X, BLOCK_C], dtype=SUM)
    for piece in range(begin, end, BLOCK_S):
        s = piece + tl.arange(0, BLOCK_S)
        squared = ((x - s[None, :]) * (x - s[None, :])).to(SUM)
        weights = tl.exp(exponent * squared)
        if DERIVATIVE:
            weights = weights * squared / (width * width * width)
        s = s[:, None]
        rows = tl.load(v + start + s.to(tl.int64) * inner, mask=inside & (s < size), other=0.0)
        total = tl.dot(weights, rows.to(SUM), total, input_precision=PRECISION, out_dtype=SUM)
    return total


@triton.jit
def _place(size, inner, num_columns, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr):
    """Place a program; programs on the same columns follow each other.

    Returns the first row, the rows (BLOCK_X, 1), and of the columns (1, BLOCK_C) where each begins
    and whether there is one.
    """
    blocks = tl.cdiv(size, BLOCK_X)
    first = tl.program_id(0) % blocks * BLOCK_X
    x = first + tl.arange(0, BLOCK_X)[:, None]
    column = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    # v is (outer, size, inner) in memory, and a column one place in outer and inner.
    start = column // inner * size * inner + column % inner
    return first, x, start, column < num_columns


@triton.jit
def correlate_kernel(
    theta, v, out, size, inner, num_columns,
    REACH: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out = K v along the middle axis of (outer, size, inner)."""
    first, x, start, inside = _place(size, inner, num_columns, BLOCK_X, BLOCK_C)
    total = _band_times_rows(
        theta, v, first, x, start, inside, size, inner,
        REACH, False, PRECISION, SUM, BLOCK_X, BLOCK_S, BLOCK_C,
    )  # fmt: skip
    to = out + start + x.to(tl.int64) * inner
    tl.store(to, total.to(out.dtype.element_ty), mask=inside & (x < size))


@triton.jit
def derivative_kernel(
    theta, v, grad, sums, size, inner, num_columns,
    REACH: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Each program's part of <grad, dK/d theta v> along the middle axis of (outer, size, inner)."""
    first, x, start, inside = _place(size, inner, num_columns, BLOCK_X, BLOCK_C)
    total = _band_times_rows(
        theta, v, first, x, start, inside, size, inner,
        REACH, True, PRECISION, SUM, BLOCK_X, BLOCK_S, BLOCK_C,
    )  # fmt: skip
    at = grad + start + x.to(tl.int64) * inner
    received = tl.load(at, mask=inside & (x < size), other=0.0).to(SUM)
    tl.store(sums + tl.program_id(0), tl.sum(tl.sum(received * total, axis=1), axis=0))


def correlate(theta: Tensor, v: Tensor, size: int, inner: int) -> Tensor:
    """K v along one axis: the middle one of v as (outer, size, inner), in v's own shape.

    Args:
        theta: (), of this axis, pixels; read by the GPU alone.
        v: contiguous, float16, bfloat16, float32 or float64; sums are float32, or float64.
        size: pixels along the axis.
        inner: elements from one pixel to the next.
    """
    out = torch.empty_like(v)
    grid, arguments, options = _launch(v, size, inner)
    correlate_kernel[grid](theta, v, out, *arguments, **options)
    return out


def theta_grad(theta: Tensor, v: Tensor, grad: Tensor, size: int, inner: int) -> Tensor:
    """d <grad, K v> / d theta along one axis, float64: (). As `correlate`; grad as v."""
    grid, arguments, options = _launch(v, size, inner)
    dtype = torch.float64 if v.dtype == torch.float64 else torch.float32
    sums = torch.empty(grid, dtype=dtype, device=v.device)
    derivative_kernel[grid](theta, v, grad, sums, *arguments, **options)
    return sums.sum(dtype=torch.float64)


def _launch(
    v: Tensor, size: int, inner: int
) -> tuple[tuple[int], tuple[int, int, int], dict[str, Any]]:
    """Grid, trailing arguments and constants of either kernel."""
    columns = v.numel() // size
    double = v.dtype == torch.float64
    constants = {
        # Taps further out are each below half a unit in the last place of the middle one, and
        # together below that of the sum.
        "REACH": math.sqrt(-2 * math.log(torch.finfo(v.dtype).eps / 2)),
        "PRECISION": "ieee" if double else "tf32x3",
        "SUM": tl.float64 if double else tl.float32,
        "BLOCK_X": BLOCK_X, "BLOCK_S": BLOCK_S, "BLOCK_C": BLOCK_C,
        "enable_fp_fusion": True,
    }  # fmt: skip
    grid = triton.cdiv(size, BLOCK_X) * triton.cdiv(columns, BLOCK_C)
    return (grid,), (size, inner, columns), constants
