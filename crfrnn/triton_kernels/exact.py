"""The Gaussian kernel summed exactly, streamed in tiles: `plain.exact_filter` on the GPU.

    (K v)_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j        d/df_i = sum_j k_ij (f_j - f_i) w_ij

A program keeps the sums of some receivers in registers and takes the senders a tile at a time, as
attention does: linear memory, no atomics, every sum in one order.

Precision. The exponent is a sum of squared differences, 2 d operations for a pair of pixels. As a
dot product of augmented features it would be d + 1, or none on tensor cores, but
|a|^2 + |b|^2 - 2 a.b leaves an error of 2^-24 |a|^2, and |a| is hundreds of theta; even from an
origin among the receivers it is as large as their tile, which is wide where pixels are sparse in
feature space. (That form compiled to hundreds of spilled registers, too.) The product with v is on
tensor cores in TF32. They drop 13 of 24 bits, an error of one sign of up to 2^-10 for each factor;
rounded to nearest beforehand (`to_tf32`) it is 2^-11 with either sign, together
|error| <= 2^-10 (K |v|)_i, reached only where nothing averages. float64 stays float64.

Skipping. Pixels are in Morton order; a box is drawn around each tile, and a tile is left out if its
box is so far from that of the receivers that no kernel reaches epsilon / N:

    |p - q|^2 > 2 ln(N / epsilon), so |error_i| <= epsilon / N sum_{j skipped} |v_j|

Share of the pairs of tiles that is left, on four photographs of 500 x 375 (mean, worst), with
epsilon = 2^-24, theta_alpha / theta_beta:

    tiles        80/13 Morton  Hilbert       67/3 Morton   Hilbert       30/3 Morton   Hilbert
    32 x 32      0.50, 0.59    0.49, 0.58    0.14, 0.16    0.13, 0.15    0.12, 0.13    0.11, 0.12
    64 x 64      0.52, 0.62    0.51, 0.60    0.16, 0.18    0.14, 0.16    0.15, 0.17    0.13, 0.15
    128 x 64     0.54, 0.64    0.52, 0.62    0.17, 0.19    0.15, 0.18    0.16, 0.19    0.15, 0.17
    128 x 128    0.55, 0.66    0.54, 0.63    0.18, 0.21    0.16, 0.19    0.18, 0.21    0.16, 0.19

With epsilon = 2^-14, the default in float32, 128 x 64 in Morton order leave 0.49, 0.15 and 0.15. Of
all pairs of pixels 0.41 (80/13) and 0.08 (67/3) lie within the reach of 2^-24: no order and no tile
does better than that. Hilbert's curve saves 3 to 10 % and costs as much in small steps; so would
the principal axes of the colours. A tile of 64 shares its loads and addresses among twice the pairs
of one of 32, and 128 receivers halve what is read from the L2 cache.

Time, predicted for an H200 and not measured. The inner loop compiles to 17 instructions a pair at
d = 5: 5 subtractions, 5 multiply-adds, an exponential, 3 to round, the rest addresses. The card
issues 132 * 128 * 1.98e9 = 3.3e13 a second, so all pairs of N = 187,500 take 18 ms; their
exponentials alone, 16 for each SM and cycle, 8.4 ms; the tensor cores, 64 flops a pair at some
490e12, 4.6 ms, beside the rest. T = 10 at 500 x 375 are eleven filters, one for the normaliser: at
80/13 11 * 18 * 0.49 = 97 ms if every cycle issues, some 125 ms if four in five do; at 67/3 some 40.
Memory: v in its order, 24 MB for 21 labels, and features, 4 MB.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from crfrnn.triton_kernels.tiles import (
    CHUNK,
    RECEIVERS,
    arranged_rows,
    blocks_of,
    tiled,
    to_tf32,
    within_reach,
)


@triton.jit
def gaussian(features, i, j, num_padded, DIM: tl.constexpr):
    """2^-|f_i - f_j|^2, (I, J). The difference comes before the square, as in `exact.gaussian`."""
    squared = tl.zeros((i.shape[0], j.shape[0]), dtype=features.dtype.element_ty)
    for k in tl.static_range(DIM):
        column = features + k * num_padded
        difference = tl.load(column + i)[:, None] - tl.load(column + j)[None, :]
        squared += difference * difference
    return tl.exp2(-squared)


@triton.jit
def exact_filter_kernel(
    features,
    boxes,
    v,
    order,
    filtered,
    num_pixels,
    num_padded,
    num_tiles,
    reach_squared,
    LABELS: tl.constexpr,
    DIM: tl.constexpr,
    RECEIVERS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """filtered[order[i]] = sum_j 2^-|f_i - f_j|^2 v_j over the tiles within reach, in order."""
    image = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * RECEIVERS + tl.arange(0, RECEIVERS)
    label = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    own = tl.program_id(0) * (RECEIVERS // TILE) + tl.arange(0, RECEIVERS // TILE)
    features += image * DIM * num_padded
    boxes += image * 2 * DIM * num_tiles
    v += (image * tl.num_programs(1) + tl.program_id(1)) * BLOCK * num_padded
    senders = v + tl.arange(0, BLOCK)[None, :] * num_padded
    total = tl.zeros((RECEIVERS, BLOCK), dtype=v.dtype.element_ty)
    for first in range(0, num_tiles, CHUNK):
        tile = first + tl.arange(0, CHUNK)
        near = within_reach(boxes, tile, own, num_tiles, reach_squared, DIM).to(tl.int32)
        rank = tl.cumsum(near, 0) * near  # 1, 2, ... for the tiles within reach
        # A sum of its own for each chunk: the accumulators of tensor cores do not round to nearest.
        part = tl.zeros((RECEIVERS, BLOCK), dtype=v.dtype.element_ty)
        for n in range(1, tl.sum(near, 0) + 1):
            j = tl.sum(tl.where(rank == n, tile, 0), 0) * TILE + tl.arange(0, TILE)
            kernel = to_tf32(gaussian(features, i, j, num_padded, DIM))
            sent = tl.load(senders + j[:, None])
            part = tl.dot(kernel, sent, part, input_precision="tf32")
        total += part
    there = i < num_pixels
    pixel = tl.load(order + image * num_pixels + i, mask=there, other=0)
    place = (image * num_pixels + pixel)[:, None] * LABELS + label[None, :]
    wanted = there[:, None] & (label < LABELS)[None, :]
    tl.store(filtered + place, total, mask=wanted)


def exact_filter(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    """K v but for kernels below epsilon / N, in the dtype of v: (B, N, L).

    Args:
        features: (B, N, d) in float32 or float64, 1 <= d <= 16.
        v: (B, N, L), contiguous.
        order: (B, N), pixels with near features after each other.
        epsilon: 0 skips nothing.
    """
    batch, num_pixels, labels = v.shape
    blocks = blocks_of(features, labels)
    tiles = tiled(features, order, blocks.tile, epsilon)
    rows = arranged_rows(v, tiles, blocks.labels, labels_first=True)
    filtered = features.new_empty(v.shape)
    _, dim, num_padded = tiles.features.shape
    exact_filter_kernel[num_padded // RECEIVERS, rows.shape[1] // blocks.labels, batch](
        tiles.features,
        tiles.boxes,
        rows,
        order,
        filtered,
        num_pixels,
        num_padded,
        num_padded // blocks.tile,
        tiles.reach_squared,
        LABELS=labels,
        DIM=dim,
        RECEIVERS=RECEIVERS,
        TILE=blocks.tile,
        BLOCK=blocks.labels,
        CHUNK=CHUNK,
        num_warps=8,
        num_stages=2,
        maxnreg=blocks.registers,
        enable_fp_fusion=True,
    )
    return filtered.to(v.dtype)
