"""The registered operators of `rows.py`, differentiable to any order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crfrnn import rows
from crfrnn.operators import operator


@operator("crfrnn::rows_product(Tensor v, Tensor matrix) -> Tensor")
def rows_product(v: Tensor, matrix: Tensor) -> Tensor:
    """`rows.product`: v @ matrix, (B, N, L) and (L, K) -> (B, N, K)."""
    return rows.product(v.contiguous(), matrix)


@rows_product.register_fake
def _(v: Tensor, matrix: Tensor) -> Tensor:
    return v.new_empty(*v.shape[:2], matrix.shape[1])


def _save_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    v, matrix = inputs
    # The softmax before it has saved the same v.
    ctx.save_for_backward(v if ctx.needs_input_grad[1] else None, matrix)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    v, matrix = ctx.saved_tensors
    to_v, to_matrix = ctx.needs_input_grad
    return (
        rows_product(grad, matrix.t()) if to_v else None,
        rows_inner(v, grad) if to_matrix else None,
    )


rows_product.register_autograd(_product_backward, setup_context=_save_product)


def label_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices over labels, (L, K) and (K, M), or T of each: `rows.product` again."""
    if a.ndim == 2:
        product: Tensor = rows_product(a[None], b)[0]
        return product
    return torch.stack([label_product(x, y) for x, y in zip(a, b, strict=True)])


@operator("crfrnn::rows_inner(Tensor a, Tensor b) -> Tensor")
def rows_inner(a: Tensor, b: Tensor) -> Tensor:
    """`rows.inner`: sum_i a_i b_i', (B, N, L) and (B, N, K) -> (L, K)."""
    return rows.inner(a.contiguous(), b.contiguous())


@rows_inner.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[2], b.shape[2])


def _save_inner(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _inner_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    to_a, to_b = ctx.needs_input_grad
    return (
        rows_product(b, grad.t()) if to_a else None,
        rows_product(a, grad) if to_b else None,
    )


rows_inner.register_autograd(_inner_backward, setup_context=_save_inner)


@operator("crfrnn::rows_softmax(Tensor logits) -> Tensor")
def rows_softmax(logits: Tensor) -> Tensor:
    """`rows.softmax`, with the backward of `rows.softmax_grad`."""
    return rows.softmax(logits)


@rows_softmax.register_fake
def _(logits: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _softmax_backward(ctx: Any, grad: Tensor) -> Tensor:
    (q,) = ctx.saved_tensors
    return rows.softmax_grad(q, grad)


rows_softmax.register_autograd(_softmax_backward, setup_context=_save_softmax)
