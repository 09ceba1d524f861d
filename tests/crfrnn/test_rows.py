"""Products of rows: against the plain product, and the same bits however they are split."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from crfrnn import ops
from crfrnn.ops import pixel_major, rows_inner
from crfrnn.plain import CHUNK


def rows_product(v: Tensor, matrix: Tensor) -> Tensor:
    product: Tensor = ops.rows_product(v, matrix, "automatic")
    return product


@pytest.mark.parametrize("num_pixels", [1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
def test_equals_the_plain_product(num_pixels: int) -> None:
    v = torch.randn(3, num_pixels, 5, dtype=torch.float64)
    w = torch.randn(3, num_pixels, 4, dtype=torch.float64)
    matrix = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(rows_product(v, matrix), v @ matrix, rtol=1e-12, atol=1e-12)
    expected = torch.einsum("bnl,bnk->lk", v, w)
    # Sums of up to 7700 terms of order one in another order.
    torch.testing.assert_close(rows_inner(v, w), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("labels", [1, 3, 8, 21, 40])
def test_softmax_is_that_of_torch(labels: int) -> None:
    logits = torch.randn(2, 50, labels) * 20
    for x in (logits, logits.transpose(0, 1)):
        # Within rounding of an exponential and a sum of up to 40 terms.
        torch.testing.assert_close(
            ops.rows_softmax(x, "automatic"), x.softmax(-1), rtol=1e-6, atol=1e-7
        )


def test_pixel_major_is_a_transposition() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    rows = pixel_major(x)
    assert rows.is_contiguous()
    assert torch.equal(rows, x.flatten(2).transpose(1, 2))
    (grad,) = torch.autograd.grad((rows * rows.detach()).sum(), x)
    assert torch.equal(grad, x)


def test_gradient() -> None:
    v = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rows_product, (v, matrix))
    assert torch.autograd.gradgradcheck(rows_product, (v, matrix))
    assert torch.autograd.gradcheck(rows_inner, (v, torch.randn_like(v)))


@pytest.mark.parametrize("labels", [2, 9, 150])
def test_threads_and_other_images_do_not_change_the_bits(
    labels: int, threads: Callable[[int], None]
) -> None:
    v, grad = torch.randn(2, 3, 3000, labels)
    matrix = torch.randn(labels, labels)
    product, inner = rows_product(v, matrix), rows_inner(v, grad)
    assert torch.equal(rows_product(v[1:2], matrix), product[1:2])
    for count in (2, 3, 4):
        threads(count)
        assert torch.equal(rows_product(v, matrix), product)
        assert torch.equal(rows_inner(v, grad), inner)
