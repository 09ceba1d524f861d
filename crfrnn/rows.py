"""Products of pixel rows with small matrices, the same bits however the work is split."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 512  # rows in one product


def rows_product(v: Tensor, matrix: Tensor) -> Tensor:
    """v @ matrix for rows v (B, N, L) and a small matrix (L, K): (B, N, K).

    One large product is cut up by the number of threads and of images, and the cuts show in
    the last bits. Here every product is of CHUNK rows of one image, in the forward pass and
    in the gradient of the matrix, which is a sum over chunks.
    """
    return _RowsProduct.apply(v, matrix)  # type: ignore[no-any-return]


class _RowsProduct(torch.autograd.Function):
    """Saves v as it came: the softmax before it has saved the same tensor."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(v, matrix)
        batch, num_pixels, _ = v.shape
        padded = chunks(v)
        product = torch.bmm(padded, matrix.expand(padded.shape[0], -1, -1))
        own = product[: batch * padded_length(v) // CHUNK]
        return own.reshape(batch, padded_length(v), -1)[:, :num_pixels]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        v, matrix = ctx.saved_tensors
        (grad,) = grads
        to_v, to_matrix = ctx.needs_input_grad
        return (
            rows_product(grad, matrix.t()) if to_v else None,
            torch.bmm(chunks(v).transpose(1, 2), chunks(grad)).sum(0) if to_matrix else None,
        )


def chunks(v: Tensor) -> Tensor:
    """Rows (B, N, L) as (chunks, CHUNK, L), each of one image, filled up with zeros.

    At least two: a batch of one takes another path through the library.
    """
    padded = F.pad(v, (0, 0, 0, padded_length(v) - v.shape[1]))
    padded = padded.reshape(-1, CHUNK, v.shape[2])
    return padded if padded.shape[0] > 1 else F.pad(padded, (0, 0, 0, 0, 0, 1))


def padded_length(v: Tensor) -> int:
    """N, rounded up to whole chunks."""
    return -(-v.shape[1] // CHUNK) * CHUNK


def rows_scaled(v: Tensor, factor: Tensor) -> Tensor:
    """v * factor for rows v (B, N, L) and a number: (B, N, L).

    The gradient of the factor is summed over pixels first, for each image and label: the sum
    of everything at once would depend on the number of threads.
    """
    return v * factor.expand(v.shape[0], 1, v.shape[2])
