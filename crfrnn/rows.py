"""Arithmetic on pixel rows with small matrices, the same bits however the work is split.

One large product is cut up by the number of threads and of images, and the cuts show in the
last bits. Here every product is of CHUNK rows of one image, and a sum over pixels is a sum
over chunks. Two chunks at least: a batch of one takes another path through the library.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, get_num_threads
from torch.nn import Parameter

from crfrnn.native import check_memory, empty_like, native_for

CHUNK = 512  # rows in one product
ALIGNMENT = 64  # bytes


def product(v: Tensor, matrix: Tensor) -> Tensor:
    """v @ matrix for rows v (B, N, L) and a small matrix (L, K): (B, N, K)."""
    if native_for(v, matrix) is not None and matrix.shape[0] == matrix.shape[1] and v.numel() > 0:
        return _native_product(v.contiguous(), matrix.contiguous())
    out = v.new_empty(*v.shape[:2], matrix.shape[1])
    for rows, result in zip(v, out, strict=True):
        body, rest = split(aligned(rows))
        if body.shape[0]:
            whole = result[: body.shape[0] * CHUNK].view(*body.shape[:2], matrix.shape[1])
            matrices = matrix.expand(body.shape[0], -1, -1)
            if is_aligned(whole):
                torch.bmm(body, matrices, out=whole)
            else:
                whole.copy_(torch.bmm(body, matrices))
        remaining = result[body.shape[0] * CHUNK :]
        small = torch.bmm(rest, matrix.expand(2, -1, -1)).flatten(0, 1)
        remaining.copy_(small[: remaining.shape[0]])
    return out


def _native_product(v: Tensor, matrix: Tensor) -> Tensor:
    """`product` for a square matrix, both contiguous."""
    native = native_for(v, matrix)
    assert native is not None
    out, labels = empty_like(v), v.shape[2]
    check_memory(
        native.crfrnn_product(
            v.data_ptr(),
            v.numel() // labels,
            labels,
            matrix.data_ptr(),
            out.data_ptr(),
            get_num_threads(),
        )
    )
    return out


def inner(a: Tensor, b: Tensor) -> Tensor:
    """sum_i a_i b_i' over all rows of a (B, N, L) and b (B, N, K): (L, K)."""
    sums = []
    for a_rows, b_rows in zip(a, b, strict=True):
        chunks = zip(split(aligned(a_rows)), split(aligned(b_rows)), strict=True)
        for a_chunks, b_chunks in chunks:
            sums.append(torch.bmm(a_chunks.transpose(1, 2), b_chunks).sum(0))
    return torch.stack(sums).sum(0)


def aligned(x: Tensor) -> Tensor:
    """x, copied where its memory begins at another place than memory of its own would.

    An image in the middle of a batch does, and the sums of the library depend on that, too.
    """
    return x if is_aligned(x) else x.clone()


def is_aligned(x: Tensor) -> bool:
    """Whether the memory of x begins at a multiple of ALIGNMENT, as a new tensor's does."""
    return x.data_ptr() % ALIGNMENT == 0


def split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, L) as whole chunks (C, CHUNK, L), a view, and the rest (2, CHUNK, L) with zeros."""
    count = rows.shape[0] // CHUNK
    count = count if count > 1 else 0
    body, rest = rows[: count * CHUNK], rows[count * CHUNK :]
    rest = F.pad(rest, (0, 0, 0, 2 * CHUNK - rest.shape[0]))
    width = rows.shape[1]
    return body.reshape(count, CHUNK, width), rest.reshape(2, CHUNK, width)


def softmax(logits: Tensor) -> Tensor:
    """softmax over the last axis, contiguous: any shape."""
    native = native_for(logits)
    if native is None or logits.numel() == 0:
        return logits.softmax(dim=-1).contiguous()
    logits, q, labels = logits.contiguous(), empty_like(logits), logits.shape[-1]
    check_memory(
        native.crfrnn_softmax(
            logits.data_ptr(), logits.numel() // labels, labels, q.data_ptr(), get_num_threads()
        )
    )
    return q


def softmax_grad(q: Tensor, grad: Tensor) -> Tensor:
    """What logits receive from the gradient of q = softmax(logits) over the last axis.

    The backward of torch's own softmax is another for one thread than for several.
    """
    return q * (grad - (q * grad).sum(-1, keepdim=True))


def pixel_major(x: Tensor) -> Tensor:
    """(B, L, *grid) as contiguous rows (B, N, L), N in row-major order."""
    rows = x.flatten(2).transpose(1, 2)
    if torch.compiler.is_compiling() or rows.is_contiguous():
        return rows.contiguous()
    return empty_like(rows).copy_(rows)


def rows_scaled(v: Tensor, log_factor: Tensor) -> Tensor:
    """v * exp(log_factor) for rows v (B, N, L) and a number; v itself for a fixed factor of 1.

    On a GPU a factor of 1 is multiplied with, which is cheaper than waiting for its value.

    The gradient of the factor is summed over pixels first, for each image and label: the sum
    of everything at once would depend on the number of threads.
    """
    fixed = not isinstance(log_factor, Parameter) and not torch.compiler.is_compiling()
    if fixed and log_factor.device.type == "cpu" and log_factor == 0:
        return v
    return v * log_factor.exp().to(v.dtype).expand(v.shape[0], 1, v.shape[2])
