"""The spatial Gaussian's Triton kernels, in the interpreter where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import triton_kernels
from crfrnn.filtering import cuda_separable, ops, separable
from tests.crfrnn.native_path import ROUNDINGS
from tests.crfrnn.triton_path import needs_triton

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


# oracle


# Sums of at most 71 non-negative terms, twice, in float64: 200 roundings of 2^-53 are 2e-14.
@every_case
def test_the_filter_is_the_plain_one(batch: int, shape: tuple[int, ...], labels: int) -> None:
    theta, v, _ = problem(batch, shape, labels)
    expected = exact(separable.separable_filter, theta, v, shape)
    close(cuda_separable.separable_filter(theta, v, shape), expected, rtol=1e-12)


@every_case
def test_the_gradient_of_theta_is_the_plain_one(
    batch: int, shape: tuple[int, ...], labels: int
) -> None:
    theta, v, grad = problem(batch, shape, labels)
    result = cuda_separable.separable_theta_grad(theta, v, grad, shape)
    close(result, exact(separable.separable_theta_grad, theta, v, grad, shape), rtol=1e-12)


@pytest.mark.parametrize("width", [0.3, 8.0, 100.0])
def test_the_band_is_as_wide_as_theta_asks(width: float) -> None:
    """From narrower than a pixel to wider than the grid."""
    _, v, grad = problem(1, (70,), 2)
    theta = torch.tensor([width], dtype=torch.float64, device=DEVICE)
    expected = exact(separable.separable_filter, theta, v, (70,))
    close(cuda_separable.separable_filter(theta, v, (70,)), expected, rtol=1e-12)
    result = cuda_separable.separable_theta_grad(theta, v, grad, (70,))
    close(result, exact(separable.separable_theta_grad, theta, v, grad, (70,)), rtol=1e-12)


# The rows' own rounding, once for each of two axes and once for what the band leaves out.
@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float32, ROUNDINGS), (torch.bfloat16, 3 * 2**-8), (torch.float16, 3 * 2**-11)],
)
def test_rows_of_every_precision(dtype: torch.dtype, rtol: float) -> None:
    theta, v, grad = problem(2, (19, 6), 3, dtype)
    result = cuda_separable.separable_filter(theta, v, (19, 6))
    assert result.dtype == dtype
    close(result, exact(separable.separable_filter, theta, v, (19, 6)), rtol)
    to_theta = cuda_separable.separable_theta_grad(theta, v, grad, (19, 6))
    assert to_theta.dtype == theta.dtype
    close(to_theta, exact(separable.separable_theta_grad, theta, v, grad, (19, 6)), rtol)


# invariants


def test_repetition_does_not_show_in_any_bit() -> None:
    theta, v, grad = problem(3, (7, 5), 3, torch.float32)
    results = [
        (
            cuda_separable.separable_filter(theta, v, (7, 5)),
            cuda_separable.separable_theta_grad(theta, v, grad, (7, 5)),
        )
        for _ in range(2)
    ]
    for first, again in zip(*results, strict=True):
        assert torch.equal(first, again)


# gradient, layout, edges


def test_expanded_and_transposed_arguments() -> None:
    theta, v, _ = problem(2, (4, 3), 3)
    both = theta[:1].expand(2)
    view = v.transpose(1, 2).contiguous().transpose(1, 2)
    ones = v.new_ones(()).expand(v.shape)
    expected = exact(separable.separable_filter, both, v, (4, 3))
    close(cuda_separable.separable_filter(both, view, (4, 3)), expected, rtol=1e-12)
    result = cuda_separable.separable_theta_grad(both, view, ones, (4, 3))
    close(result, exact(separable.separable_theta_grad, both, v, ones, (4, 3)), rtol=1e-12)


@every_case
def test_without_triton_dense_matrices_serve(
    monkeypatch: pytest.MonkeyPatch, batch: int, shape: tuple[int, ...], labels: int
) -> None:
    monkeypatch.setattr(triton_kernels, "available", lambda: False)
    theta, v, grad = problem(batch, shape, labels)
    expected = exact(separable.separable_filter, theta, v, shape)
    close(cuda_separable.separable_filter(theta, v, shape), expected, rtol=1e-12)
    result = cuda_separable.separable_theta_grad(theta, v, grad, shape)
    close(result, exact(separable.separable_theta_grad, theta, v, grad, shape), rtol=1e-12)


def test_rows_without_a_kernel_take_dense_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 with an older Triton."""
    monkeypatch.setattr("crfrnn.triton_kernels.separable.DTYPES", (torch.float32,))
    monkeypatch.setattr("crfrnn.triton_kernels.separable.correlate", None)
    theta, v, grad = problem(2, (4, 3), 3)
    expected = exact(separable.separable_filter, theta, v, (4, 3))
    close(cuda_separable.separable_filter(theta, v, (4, 3)), expected, rtol=1e-12)
    result = cuda_separable.separable_theta_grad(theta, v, grad, (4, 3))
    close(result, exact(separable.separable_theta_grad, theta, v, grad, (4, 3)), rtol=1e-12)


def test_along_a_long_axis_the_plain_file_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "available", lambda: False)
    monkeypatch.setattr(cuda_separable, "LONGEST", 3)
    monkeypatch.setattr(cuda_separable, "axis_matrices", None)
    theta, v, grad = problem(2, (4, 3), 3)
    result = cuda_separable.separable_filter(theta, v, (4, 3))
    assert torch.equal(result, separable.separable_filter(theta, v, (4, 3)))
    to_theta = cuda_separable.separable_theta_grad(theta, v, grad, (4, 3))
    assert torch.equal(to_theta, separable.separable_theta_grad(theta, v, grad, (4, 3)))


# the GPU itself


@pytest.mark.gpu  # the interpreter's products are NumPy's, whose bits depend on the column
def test_the_batch_does_not_show_in_any_bit() -> None:
    theta, v, _ = problem(3, (37, 25), 21, torch.float32)
    whole = ops.separable_filter(theta, v, [37, 25])
    parts = [ops.separable_filter(theta, image, [37, 25]) for image in v[:, None]]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.gpu
def test_nothing_waits_and_a_graph_captures_it() -> None:
    theta, v, grad = problem(2, (70, 33), 21, torch.float32)
    shape = [70, 33]
    expected = ops.separable_filter(theta, v, shape)
    expected_theta = ops.separable_theta_grad(theta, v, grad, shape)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # in which a host synchronisation raises
        captured = ops.separable_filter(theta, v, shape)
        captured_theta = ops.separable_theta_grad(theta, v, grad, shape)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(captured_theta, expected_theta)
    close(captured, exact(separable.separable_filter, theta, v, shape), ROUNDINGS)
