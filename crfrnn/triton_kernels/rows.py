"""Arithmetic of a mean-field update on pixel rows: what comes before and after the filters.

Rows are (R, L). The labels of a row, at most `MAX_LABELS` of this package, are in one program, so
that softmax and the products with (L, L) penalties never leave the registers. A product is three of
the tensor cores' own, of 11 bits each, which together are as precise as float32. More labels than
that do not fit into the registers: compiled for an H100, the kernels spill.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MIN_BLOCK = 16  # of a product of blocks
ELEMENTS = 1024  # rows times labels in one program
PROGRAMS = 1024  # at most, that each keep a sum over their rows


@triton.jit
def messages_kernel(
    logits,
    penalties,
    before,
    q,
    sent,
    num_rows,
    KERNELS: tl.constexpr,
    LABELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """q = softmax(logits), and what every kernel filters: sent[m] = before[m] (q P_m').

    q is rounded as it is stored, and the messages are made from what is stored.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    label = tl.arange(0, BLOCK)
    there = row < num_rows
    inside = there[:, None] & (label < LABELS)[None, :]
    place = row[:, None] * LABELS + label[None, :]
    logit = tl.load(logits + place, mask=inside, other=0.0)
    logit = tl.where((label < LABELS)[None, :], logit, float("-inf"))
    likelihood = tl.exp(logit - tl.max(logit, axis=1)[:, None])
    own = (likelihood / tl.sum(likelihood, axis=1)[:, None]).to(q.dtype.element_ty)
    tl.store(q + place, own, mask=inside)
    own = own.to(tl.float32)
    square = (label < LABELS)[:, None] & (label < LABELS)[None, :]
    for m in tl.static_range(KERNELS):
        # P', (l', l): what a unit of the message of l' costs l.
        cell = m * LABELS * LABELS + label[None, :] * LABELS + label[:, None]
        penalty = tl.load(penalties + cell, mask=square, other=0.0)
        message = tl.dot(own, penalty, input_precision="tf32x3")
        factor = tl.load(before + m * num_rows + row, mask=there, other=0.0)
        message = (message * factor[:, None]).to(sent.dtype.element_ty)
        own_place = (m * num_rows + row)[:, None] * LABELS + label[None, :]
        tl.store(sent + own_place, message, mask=inside)


@triton.jit
def messages_grad_kernel(
    q,
    received,
    penalties,
    logits_grad,
    penalty_sums,
    num_rows,
    num_blocks,
    KERNELS: tl.constexpr,
    LABELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of `messages_kernel` from what the rows ahead of it received, h_m.

    dlogits = q (g - <q, g>) with g = -sum_m h_m P_m, and the program's part of
    dP_m = -sum_i h_m(i) q(i)'. A program takes num_blocks blocks of rows in turn.
    """
    program = tl.program_id(0).to(tl.int64)
    label = tl.arange(0, BLOCK)
    square = (label < LABELS)[:, None] & (label < LABELS)[None, :]
    cell = label[:, None] * LABELS + label[None, :]
    for m in tl.static_range(KERNELS):
        if penalty_sums is not None:
            total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
            for block in range(num_blocks):
                row = (program * num_blocks + block) * ROWS + tl.arange(0, ROWS)
                inside = (row < num_rows)[:, None] & (label < LABELS)[None, :]
                place = row[:, None] * LABELS + label[None, :]
                own = tl.load(q + place, mask=inside, other=0.0).to(tl.float32)
                own_place = (m * num_rows + row)[:, None] * LABELS + label[None, :]
                h = tl.load(received + own_place, mask=inside, other=0.0)
                total -= tl.dot(tl.trans(h), own, input_precision="tf32x3")
            sums = penalty_sums + (program * KERNELS + m) * LABELS * LABELS
            tl.store(sums + cell, total, mask=square)
    for block in range(num_blocks):
        row = (program * num_blocks + block) * ROWS + tl.arange(0, ROWS)
        inside = (row < num_rows)[:, None] & (label < LABELS)[None, :]
        place = row[:, None] * LABELS + label[None, :]
        own = tl.load(q + place, mask=inside, other=0.0).to(tl.float32)
        to_q = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
        for m in tl.static_range(KERNELS):
            penalty = tl.load(penalties + m * LABELS * LABELS + cell, mask=square, other=0.0)
            own_place = (m * num_rows + row)[:, None] * LABELS + label[None, :]
            h = tl.load(received + own_place, mask=inside, other=0.0)
            to_q -= tl.dot(h, penalty, input_precision="tf32x3")
        to_logits = own * (to_q - tl.sum(own * to_q, axis=1)[:, None])
        tl.store(logits_grad + place, to_logits, mask=inside)


def messages(
    logits: Tensor, penalties: Tensor, before: Tensor, q: Tensor, dtype: torch.dtype
) -> Tensor:
    """`messages_kernel`: q is written, what the kernels filter is returned, (M, R, L).

    Args:
        logits: (R, L) float32, contiguous.
        penalties: (M, L, L) float32, contiguous.
        before: (M, R) float32, contiguous.
        q: (R, L), contiguous.
        dtype: of the result.
    """
    num_rows, labels = logits.shape
    sent = logits.new_empty(len(penalties), num_rows, labels, dtype=dtype)
    block, rows = _block(labels)
    messages_kernel[(triton.cdiv(num_rows, rows),)](
        logits,
        penalties,
        before,
        q,
        sent,
        num_rows,
        KERNELS=len(penalties),
        LABELS=labels,
        ROWS=rows,
        BLOCK=block,
        enable_fp_fusion=True,
    )
    return sent


def messages_grad(
    q: Tensor, received: Tensor, penalties: Tensor, *, to_penalties: bool
) -> tuple[Tensor, Tensor | None]:
    """`messages_grad_kernel`: the gradients to the logits, (R, L), and to P_m, (M, L, L).

    Args:
        q: (R, L), contiguous.
        received: h_m, (M, R, L) float32, contiguous.
        penalties: (M, L, L) float32, contiguous.
        to_penalties: whether the second is wanted.
    """
    num_kernels, num_rows, labels = received.shape
    block, rows = _block(labels)
    blocks = triton.cdiv(num_rows, rows)
    blocks_each = triton.cdiv(blocks, PROGRAMS)
    programs = triton.cdiv(blocks, blocks_each)
    logits_grad = torch.empty_like(received[0])
    sums = received.new_empty(programs, num_kernels, labels, labels) if to_penalties else None
    messages_grad_kernel[(programs,)](
        q,
        received,
        penalties,
        logits_grad,
        sums,
        num_rows,
        blocks_each,
        KERNELS=num_kernels,
        LABELS=labels,
        ROWS=rows,
        BLOCK=block,
        enable_fp_fusion=True,
    )
    return logits_grad, None if sums is None else sums.sum(0)


def _block(labels: int) -> tuple[int, int]:
    """Labels and rows of a program's block."""
    block = max(triton.next_power_of_2(labels), MIN_BLOCK)
    return block, max(ELEMENTS // block, MIN_BLOCK)
