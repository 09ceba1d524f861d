"""The spatial Gaussian's Triton kernels, in the interpreter where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import triton_kernels
from crfrnn.filtering import cuda_separable, separable
from tests.crfrnn.native_path import ROUNDINGS
from tests.full.crfrnn.triton_path import needs_triton

pytestmark = needs_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Grids of one to three axes; more than one block of rows (32), more than one piece (16).
CASES: list[tuple[int, tuple[int, ...], int]] = [
    (1, (1,), 1),
    (1, (1, 1), 3),
    (2, (5,), 2),
    (3, (3, 4), 8),
    (2, (2, 3, 5), 21),
    (1, (2, 2), 256),
    (1, (71,), 2),
    (1, (35, 18), 1),
]
every_case = pytest.mark.parametrize(("batch", "shape", "labels"), CASES)


def problem(
    batch: int, shape: Sequence[int], labels: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """theta (ndim,), one width for each axis; v and a gradient (B, N, L)."""
    count = torch.Size(shape).numel()
    v, grad = torch.rand(2, batch, count, labels, dtype=torch.float64).to(DEVICE, dtype)
    theta = 0.5 + 2.5 * torch.rand(len(shape), dtype=torch.float64)
    return theta.to(DEVICE, torch.float64 if dtype == torch.float64 else torch.float32), v, grad


def exact(function: Any, *arguments: Any) -> Tensor:
    """The plain function in float64 on the CPU."""
    *tensors, shape = arguments
    result: Tensor = function(*(x.double().cpu() for x in tensors), shape)
    return result


def close(actual: Tensor, expected: Tensor, rtol: float) -> None:
    torch.testing.assert_close(actual.double().cpu(), expected, rtol=rtol, atol=0)


def assert_plain(
    theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int], rtol: float = 1e-12
) -> None:
    """Filter and gradient of theta, against the plain functions in float64.

    Sums of at most 71 non-negative terms, twice: in float64, 200 roundings of 2^-53 are 2e-14.
    """
    filtered = cuda_separable.separable_filter(theta, v, shape)
    assert filtered.dtype == v.dtype
    close(filtered, exact(separable.separable_filter, theta, v, shape), rtol)
    to_theta = cuda_separable.separable_theta_grad(theta, v, grad, shape)
    assert to_theta.dtype == theta.dtype
    close(to_theta, exact(separable.separable_theta_grad, theta, v, grad, shape), rtol)


@every_case
def test_filter_and_gradient_of_theta_are_the_plain_ones(
    batch: int, shape: tuple[int, ...], labels: int
) -> None:
    assert_plain(*problem(batch, shape, labels), shape)


@pytest.mark.parametrize("width", [0.3, 8.0, 100.0])
def test_the_band_is_as_wide_as_theta_asks(width: float) -> None:
    """From narrower than a pixel to wider than the grid."""
    _, v, grad = problem(1, (70,), 2)
    theta = torch.tensor([width], dtype=torch.float64, device=DEVICE)
    assert_plain(theta, v, grad, (70,))


# The rows' own rounding, once for each of two axes and once for what the band leaves out.
@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float32, ROUNDINGS), (torch.bfloat16, 3 * 2**-8), (torch.float16, 3 * 2**-11)],
)
def test_rows_of_every_precision(dtype: torch.dtype, rtol: float) -> None:
    assert_plain(*problem(2, (19, 6), 3, dtype), (19, 6), rtol)


def test_expanded_and_transposed_arguments() -> None:
    theta, v, _ = problem(2, (4, 3), 3)
    both = theta[:1].expand(2)
    view = v.transpose(1, 2).contiguous().transpose(1, 2)
    ones = v.new_ones(()).expand(v.shape)
    assert_plain(both, view, ones, (4, 3))


@every_case
def test_without_triton_dense_matrices_serve(
    monkeypatch: pytest.MonkeyPatch, batch: int, shape: tuple[int, ...], labels: int
) -> None:
    monkeypatch.setattr(triton_kernels, "available", lambda: False)
    assert_plain(*problem(batch, shape, labels), shape)


def test_rows_without_a_kernel_take_dense_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 with an older Triton."""
    monkeypatch.setattr("crfrnn.triton_kernels.separable.DTYPES", (torch.float32,))
    monkeypatch.setattr("crfrnn.triton_kernels.separable.correlate", None)
    assert_plain(*problem(2, (4, 3), 3), (4, 3))


def test_along_a_long_axis_the_plain_file_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "available", lambda: False)
    monkeypatch.setattr(cuda_separable, "LONGEST", 3)
    monkeypatch.setattr(cuda_separable, "axis_matrices", None)
    theta, v, grad = problem(2, (4, 3), 3)
    result = cuda_separable.separable_filter(theta, v, (4, 3))
    assert torch.equal(result, separable.separable_filter(theta, v, (4, 3)))
    to_theta = cuda_separable.separable_theta_grad(theta, v, grad, (4, 3))
    assert torch.equal(to_theta, separable.separable_theta_grad(theta, v, grad, (4, 3)))
