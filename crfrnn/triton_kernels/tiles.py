"""Pixels in tiles, as the exact filter streams them: their order, boxes, blocks and rounding."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

RECEIVERS = 128  # pixels that one program sums for
CHUNK = 32  # tiles whose boxes are looked at together: one for each lane of a warp
PIXELS = 64  # that one program brings into their order
UNIT = math.sqrt(0.5 * math.log2(math.e))  # of features: exp(-|f|^2 / 2) = 2^-|UNIT f|^2


@triton.jit
def to_tf32(x):
    """x to the nearest number of 11 bits, which a tensor core takes whole; float64 as it is."""
    if x.dtype == tl.float32:
        far = x * 8193.0  # 2^13 + 1 (Dekker 1971); exact under fused multiplication, too
        x = far - (far - x)
    return x


@triton.jit
def within_reach(boxes, tile, own, num_tiles, reach_squared, DIM: tl.constexpr):
    """Tell whether each tile's box, (CHUNK,), comes within reach of the box of tiles `own`."""
    there = tile < num_tiles
    gap_squared = tl.zeros(tile.shape, dtype=boxes.dtype.element_ty)
    for k in tl.static_range(DIM):
        lows, highs = boxes + k * num_tiles, boxes + (DIM + k) * num_tiles
        below = tl.min(tl.load(lows + own), 0) - tl.load(highs + tile, mask=there, other=0.0)
        above = tl.load(lows + tile, mask=there, other=0.0) - tl.max(tl.load(highs + own), 0)
        gap = tl.maximum(tl.maximum(below, above), 0.0)
        gap_squared += gap * gap
    return there & (gap_squared <= reach_squared)


@triton.jit
def arranged_rows_kernel(
    rows,
    order,
    arranged,
    num_pixels,
    num_padded,
    pixel_step,
    label_step,
    LABELS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """arranged[j, l] = rows[order[j], l] as tensor cores take it; 0 for further pixels, labels."""
    image = tl.program_id(2).to(tl.int64)
    j = tl.program_id(0) * TILE + tl.arange(0, TILE)
    label = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = j < num_pixels
    pixel = tl.load(order + image * num_pixels + j, mask=there, other=0)
    place = (image * num_pixels + pixel)[:, None] * LABELS + label[None, :]
    wanted = there[:, None] & (label < LABELS)[None, :]
    row = tl.load(rows + place, mask=wanted, other=0.0).to(arranged.dtype.element_ty)
    target = image * num_padded * tl.num_programs(1) * BLOCK + j[:, None].to(tl.int64) * pixel_step
    tl.store(arranged + target + label[None, :].to(tl.int64) * label_step, to_tf32(row))


class Blocks(NamedTuple):
    """How many pixels send at a time, and how many labels a program takes: it is registers.

    Attributes:
        tile: pixels that send; a box is drawn around each tile.
        labels: of `exact_filter`.
        grad_labels: of one product of `exact_features_grad`.
        registers: of a thread, that a second program may run beside; None: what it takes.
    """

    tile: int
    labels: int
    grad_labels: int
    registers: int | None


def blocks_of(features: Tensor, num_labels: int) -> Blocks:
    """Blocks that the compiler fits into registers, for features (B, N, d)."""
    fitting = max(triton.next_power_of_2(num_labels), 16)  # 16: the least of a tensor core
    if features.dtype == torch.float64:
        return Blocks(32, 16, min(fitting, 32), None)
    if features.shape[2] > 8:
        return Blocks(32, min(fitting, 32), min(fitting, 32), None)
    labels = min(fitting, 64)
    small = features.shape[2] <= 5 and labels <= 32
    return Blocks(64, labels, min(fitting, 32), 128 if small else None)


class Tiles(NamedTuple):
    """The pixels of a batch in their order, a tile at a time.

    Attributes:
        features: (B, d, P), P = N and up to the next whole block of receivers, in a unit where
            the kernel is 2^-|f_i - f_j|^2; the last pixel repeats.
        boxes: (B, 2, d, P / tile), the least and the largest feature of each tile.
        order: (B, N), the pixels as they follow each other here.
        reach_squared: beyond that squared distance the kernel is below epsilon / N.
    """

    features: Tensor
    boxes: Tensor
    order: Tensor
    reach_squared: float


def tiled(features: Tensor, order: Tensor, tile: int, epsilon: float) -> Tiles:
    """The pixels in their order, and what may be skipped between them."""
    num_pixels, dim = features.shape[1:]
    num_padded = triton.cdiv(num_pixels, RECEIVERS) * RECEIVERS
    padding = order[:, -1:].expand(-1, num_padded - num_pixels)
    pixels = torch.cat([order, padding], 1)[:, None].expand(-1, dim, -1)
    arranged = (features * UNIT).transpose(1, 2).gather(2, pixels)
    tiles = arranged.view(-1, dim, num_padded // tile, tile)
    boxes = torch.stack([tiles.amin(3), tiles.amax(3)], 1)
    reach_squared = math.log2(num_pixels / epsilon) if epsilon > 0 else math.inf
    # Outwards by more than the rounding of a distance.
    return Tiles(arranged, boxes, order, reach_squared * (1 + 2**-20))


def arranged_rows(v: Tensor, tiles: Tiles, block: int, *, labels_first: bool) -> Tensor:
    """v in the order of the tiles, its labels filled up with 0 to whole blocks.

    Args:
        v: (B, N, L), contiguous.
        tiles: of the pixels, in the dtype of the result.
        block: labels that are loaded at a time, a power of two.
        labels_first: (B, L', P), else (B, P, L'): tensor cores want what is summed over last.
    """
    batch, num_pixels, labels = v.shape
    num_padded, blocks = tiles.features.shape[2], triton.cdiv(labels, block)
    shape = [batch, num_padded, blocks * block]
    if labels_first:
        shape[1:] = reversed(shape[1:])
    arranged = tiles.features.new_empty(shape)
    steps = (1, num_padded) if labels_first else (blocks * block, 1)
    arranged_rows_kernel[num_padded // PIXELS, blocks, batch](
        v,
        tiles.order,
        arranged,
        num_pixels,
        num_padded,
        *steps,
        LABELS=labels,
        TILE=PIXELS,
        BLOCK=block,
        enable_fp_fusion=True,
    )
    return arranged
