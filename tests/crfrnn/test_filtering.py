"""The filters: each against the exact sum, and every fast one against its own transpose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crfrnn.filtering import (
    NORMALIZATIONS,
    ExactFilter,
    Filter,
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
)
from crfrnn.filtering.exact import gaussian
from crfrnn.filtering.lattice import elevate, enclosing_simplex
from crfrnn.kernels import positions

SHAPE = (9, 13)
NUM_PIXELS = SHAPE[0] * SHAPE[1]


def smooth_features(batch: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Image-like features: two positions, then smooth guides, in units of theta."""
    generator = torch.Generator().manual_seed(dim)
    grid = positions(SHAPE, torch.empty((), dtype=dtype)) / 4
    mixing = torch.randn(batch, 2, dim, generator=generator, dtype=dtype)
    guide = torch.sin(grid @ mixing)
    return torch.cat([grid.expand(batch, -1, -1), guide], dim=2)[..., :dim].contiguous()


def build(name: str, dtype: torch.dtype = torch.float64, batch: int = 2) -> Filter:
    if name == "separable":
        return SeparableFilter(SHAPE, (3.0, 2.0), torch.empty((), dtype=dtype))
    features = smooth_features(batch, 5, dtype)
    return LatticeFilter(features) if name == "lattice" else ExactFilter(features)


FILTERS = ["exact", "separable", "lattice"]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("num_labels", [1, 7])
def test_shape(name: str, num_labels: int) -> None:
    v = torch.rand(2, NUM_PIXELS, num_labels, dtype=torch.float64)
    assert build(name)(v).shape == v.shape


def test_lattice_overflow_is_an_error() -> None:
    features = torch.tensor([[[0.0] * 5, [1e5] * 5]])
    with pytest.raises(LatticeOverflowError, match="theta is too small"):
        LatticeFilter(features)


def test_exact_equals_the_written_sum() -> None:
    features, v = smooth_features(2, 3), torch.rand(2, NUM_PIXELS, 4, dtype=torch.float64)
    difference = features[:, :, None] - features[:, None]
    kernel = torch.exp(-0.5 * difference.square().sum(-1))
    # Sums of 117 terms of order one: rounding alone.
    torch.testing.assert_close(ExactFilter(features)(v), kernel @ v, rtol=1e-12, atol=1e-12)


def test_exact_is_the_same_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    features, v = smooth_features(2, 3), torch.rand(2, NUM_PIXELS, 4, dtype=torch.float64)
    whole = ExactFilter(features)(v)
    monkeypatch.setattr("crfrnn.filtering.exact.TILE", 5 * NUM_PIXELS)
    torch.testing.assert_close(ExactFilter(features)(v), whole, rtol=1e-12, atol=1e-12)


def test_gaussian_keeps_its_accuracy_far_from_the_origin() -> None:
    a = torch.tensor([[1000.0], [1000.5]])
    torch.testing.assert_close(gaussian(a, a)[0, 1].item(), 0.8824969, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(9, 13), (150, 5), (1, 1), (1, 200)])
def test_separable_equals_exact(shape: tuple[int, int]) -> None:
    like = torch.empty((), dtype=torch.float64)
    v = torch.rand(2, shape[0] * shape[1], 3, dtype=torch.float64)
    grid = positions(shape, like) / torch.tensor([2.0, 3.0], dtype=torch.float64)  # x, y
    exact = ExactFilter(grid.expand(2, -1, -1))(v)
    # The dropped taps are each below eps / 2 of the centre.
    torch.testing.assert_close(
        SeparableFilter(shape, (3.0, 2.0), like)(v), exact, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_barycentric_weights_reproduce_the_point(dim: int) -> None:
    features = torch.randn(200, dim, dtype=torch.float64) * 3
    simplex = enclosing_simplex(elevate(features))
    weights = simplex.barycentric
    assert weights.min() > -1e-12
    torch.testing.assert_close(weights.sum(1), torch.ones(200, dtype=torch.float64))
    # sum_k weight_k vertex_k is the elevated point itself.
    point = torch.zeros_like(elevate(features))
    for remainder in range(dim + 1):
        shift = remainder - (dim + 1) * (simplex.rank > dim - remainder)
        point += weights[:, remainder] * (simplex.origin + shift)
    torch.testing.assert_close(point, elevate(features), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_lattice_is_close_to_exact(dim: int) -> None:
    """Method error of the standard lattice: 10 to 30 % of the message's variation (crf.md)."""
    features = smooth_features(1, dim)
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=torch.float64)
    v = torch.rand(1, NUM_PIXELS, 4, dtype=torch.float64)
    exact = Normalized(ExactFilter(features), "after", ones)(v)
    lattice = Normalized(LatticeFilter(features), "after", ones)(v)
    variation = (exact - exact.mean(1, keepdim=True)).norm()
    assert (lattice - exact).norm() < 0.35 * variation


def test_lattice_of_a_batch_is_each_image_alone() -> None:
    features, v = smooth_features(3, 5, torch.float32), torch.rand(3, NUM_PIXELS, 4)
    together = LatticeFilter(features)(v)
    alone = torch.cat([LatticeFilter(f[None])(w[None]) for f, w in zip(features, v, strict=True)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_transpose_is_the_adjoint(name: str, normalization: str) -> None:
    """<K x, y> = <x, K' y>: fails by orders of magnitude without the reversed blurs."""
    ones = torch.ones(2, NUM_PIXELS, 1, dtype=torch.float64)
    kernel = Normalized(build(name), normalization, ones)  # type: ignore[arg-type]
    x, y = torch.randn(2, 2, NUM_PIXELS, 3, dtype=torch.float64)
    left, right = (kernel.matvec(x) * y).sum(), (x * kernel.rmatvec(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FILTERS)
def test_after_normalisation_keeps_constants_and_before_keeps_sums(name: str) -> None:
    ones = torch.ones(2, NUM_PIXELS, 1, dtype=torch.float64)
    after = Normalized(build(name), "after", ones)(ones)
    torch.testing.assert_close(after, ones, rtol=1e-12, atol=1e-12)
    # Only an exactly symmetric K has equal row and column sums; the lattice is nearly so.
    before = Normalized(build(name), "before", ones)(ones).sum(1)
    tolerance = 1e-2 if name == "lattice" else 1e-12
    torch.testing.assert_close(before, ones.sum(1), rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradient(name: str, normalization: str) -> None:
    """gradcheck and gradgradcheck: a backward of D^-1 K' for D^-1 K fails here."""
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=torch.float64)
    kernel = Normalized(build(name, batch=1), normalization, ones)  # type: ignore[arg-type]
    v = torch.rand(1, NUM_PIXELS, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kernel, v)
    assert torch.autograd.gradgradcheck(kernel, v)


@pytest.mark.parametrize("name", FILTERS)
def test_layout_of_input_and_gradient_does_not_matter(name: str) -> None:
    kernel = build(name)
    v = torch.rand(2, 3, NUM_PIXELS, dtype=torch.float64).transpose(1, 2).requires_grad_()
    torch.testing.assert_close(kernel(v), kernel(v.detach().contiguous()))
    (kernel(v).sum() * 2).backward()  # type: ignore[no-untyped-call]  # an expanded gradient, stride 0
    ones = torch.ones_like(v, memory_format=torch.contiguous_format)
    torch.testing.assert_close(v.grad, 2 * kernel.rmatvec(ones))


@pytest.mark.parametrize("name", ["exact", "lattice"])
def test_one_pixel(name: str) -> None:
    features = torch.zeros(1, 1, 5, dtype=torch.float64)
    kernel = LatticeFilter(features) if name == "lattice" else ExactFilter(features)
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    v = torch.rand(1, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(Normalized(kernel, "after", ones)(v), v)
