"""The gradient of `exact.py` to the features, in one pass over the same tiles."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from crfrnn.triton_kernels.exact import gaussian
from crfrnn.triton_kernels.tiles import (
    CHUNK,
    UNIT,
    arranged_rows,
    blocks_of,
    tiled,
    to_tf32,
    within_reach,
)

RECEIVERS = 64  # pixels whose features one program sums the gradient of


@triton.jit
def exact_features_grad_kernel(
    features,
    boxes,
    v,
    grad,
    order,
    features_grad,
    num_pixels,
    num_padded,
    num_tiles,
    reach_squared,
    SCALE: tl.constexpr,
    LABELS: tl.constexpr,
    DIM: tl.constexpr,
    RECEIVERS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """features_grad[order[i]] = SCALE sum_j k_ij (f_j - f_i) (grad_i . v_j + v_i . grad_j).

    The two moments, of f_j and of 1, are the columns of one product. Both count from the first
    receiver, and f_j enters it in two parts of 11 bits, so that little cancels.
    """
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * RECEIVERS + tl.arange(0, RECEIVERS)
    own = tl.program_id(0) * (RECEIVERS // TILE) + tl.arange(0, RECEIVERS // TILE)
    features += image * DIM * num_padded
    boxes += image * 2 * DIM * num_tiles
    v += image * num_padded * LABELS
    grad += image * num_padded * LABELS
    column = tl.arange(0, COLUMNS)
    columns = features + column[None, :] * num_padded
    known = (column < DIM)[None, :]
    one = (column == DIM)[None, :]
    label = tl.arange(0, BLOCK)
    origin = tl.load(columns + tl.program_id(0) * RECEIVERS, mask=known, other=0.0)
    moments = tl.zeros((RECEIVERS, COLUMNS), dtype=features.dtype.element_ty)
    for first in range(0, num_tiles, CHUNK):
        tile = first + tl.arange(0, CHUNK)
        near = within_reach(boxes, tile, own, num_tiles, reach_squared, DIM).to(tl.int32)
        rank = tl.cumsum(near, 0) * near  # 1, 2, ... for the tiles within reach
        part = tl.zeros((RECEIVERS, COLUMNS), dtype=features.dtype.element_ty)
        for n in range(1, tl.sum(near, 0) + 1):
            j = tl.sum(tl.where(rank == n, tile, 0), 0) * TILE + tl.arange(0, TILE)
            weight = tl.zeros((RECEIVERS, TILE), dtype=features.dtype.element_ty)
            for start in range(0, LABELS, BLOCK):
                receiver = i[:, None] * LABELS + (start + label)[None, :]
                sender = j[None, :] * LABELS + (start + label)[:, None]
                own_grad, its_v = tl.load(grad + receiver), tl.load(v + sender)
                weight = tl.dot(own_grad, its_v, weight, input_precision="tf32")
                own_v, its_grad = tl.load(v + receiver), tl.load(grad + sender)
                weight = tl.dot(own_v, its_grad, weight, input_precision="tf32")
            weight = to_tf32(weight * gaussian(features, i, j, num_padded, DIM))
            moved = tl.load(columns + j[:, None], mask=known, other=0.0) - origin
            moved = tl.where(one, 1.0, moved)
            high = to_tf32(moved)
            part = tl.dot(weight, high, part, input_precision="tf32")
            part = tl.dot(weight, moved - high, part, input_precision="tf32")
        moments += part
    moved = tl.load(columns + i[:, None], mask=known, other=0.0) - origin
    mass = tl.sum(tl.where(one, moments, 0.0), 1)[:, None]
    there = i < num_pixels
    pixel = tl.load(order + image * num_pixels + i, mask=there, other=0)
    place = (image * num_pixels + pixel)[:, None] * DIM + column[None, :]
    summed = SCALE * (moments - mass * moved)
    tl.store(features_grad + place, summed, mask=there[:, None] & known)


def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float
) -> Tensor:
    """`ops.gaussian_features_grad` of `exact_filter`, whose arguments these are: (B, N, d).

    What is skipped adds at most sqrt(2 ln(N / epsilon)) epsilon / N |grad_i . v_j + v_i . grad_j|
    of each pixel.
    """
    batch, num_pixels, labels = v.shape
    blocks = blocks_of(features, labels)
    tiles = tiled(features, order, blocks.tile, epsilon)
    rows = [arranged_rows(x, tiles, blocks.grad_labels, labels_first=False) for x in (v, grad)]
    features_grad = torch.empty_like(features)
    _, dim, num_padded = tiles.features.shape
    exact_features_grad_kernel[num_padded // RECEIVERS, batch](
        tiles.features,
        tiles.boxes,
        *rows,
        order,
        features_grad,
        num_pixels,
        num_padded,
        num_padded // blocks.tile,
        tiles.reach_squared,
        SCALE=1 / UNIT,
        LABELS=rows[0].shape[2],
        DIM=dim,
        RECEIVERS=RECEIVERS,
        TILE=blocks.tile,
        BLOCK=blocks.grad_labels,
        COLUMNS=16 if dim < 16 else 32,
        CHUNK=CHUNK,
        num_warps=4 if dim <= 8 else 8,
        num_stages=2,
        enable_fp_fusion=True,
    )
    return features_grad
