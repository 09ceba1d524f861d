"""What the GPU benchmark compares with: the same lattice as sparse products, dense axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crfrnn.filtering import separable
from crfrnn.filtering.accuracy import named
from crfrnn.filtering.lattice import build_lattice, lattice_filter
from eval.benchmark.gpu.dense_axes import DenseAxesFilter
from eval.benchmark.gpu.sparse import SparseFilter


@pytest.mark.parametrize("accuracy", ["standard", "fine"])
def test_sparse_products_are_the_lattice(accuracy: Any) -> None:
    """To the order of some hundred float64 additions; forward, transposed and backward."""
    features = 2 * torch.randn(2, 40, 3, dtype=torch.float64)
    v, grad = torch.rand(2, 2, 40, 4, dtype=torch.float64)
    tables, _ = build_lattice(features, named(accuracy))
    sparse = SparseFilter(tables, named(accuracy))
    forward, backward = (
        lattice_filter(tables, x, named(accuracy), transposed=transposed)
        for x, transposed in ((v, False), (grad, True))
    )
    leaf = v.clone().requires_grad_()
    filtered = sparse(leaf)
    torch.testing.assert_close(filtered, forward, rtol=1e-12, atol=1e-12)
    (to_v,) = torch.autograd.grad(filtered, leaf, grad)
    torch.testing.assert_close(to_v, backward, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sparse.transpose(grad), backward, rtol=1e-12, atol=1e-12)


def test_missing_neighbours_take_no_entry() -> None:
    """A single pixel has d + 1 vertices, each of which has the others for neighbours or nobody."""
    tables, _ = build_lattice(torch.rand(1, 1, 2, dtype=torch.float64), named("standard"))
    lattice = SparseFilter(tables, named("standard")).lattice
    missing = int((tables.stencils[:, :-1] == 3).sum())
    assert missing > 0
    assert sum(blur.values().numel() for blur in lattice.blurs) == 3 * 3 * 3 - missing


def test_dense_axes_are_the_separable_filter() -> None:
    theta = torch.tensor([1.5, 0.7, 3.0], dtype=torch.float64)
    v = torch.rand(2, 60, 3, dtype=torch.float64)
    expected = separable.separable_filter(theta, v, (4, 5, 3))
    kernel = DenseAxesFilter(theta, (4, 5, 3))
    torch.testing.assert_close(kernel(v), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(kernel.transpose(v), kernel(v))
