"""The filters: each is the exact sum, or as near to it as its method allows."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from crfrnn.filters import (
    ExactFilter,
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.kernels import positions
from crfrnn.lattice import pack_keys
from crfrnn.plain import gaussian

SHAPE = (9, 13)
NUM_PIXELS = SHAPE[0] * SHAPE[1]
DOUBLE = torch.float64


def smooth_features(batch: int, dim: int) -> Tensor:
    """Image-like features: two positions, then smooth guides, in units of theta."""
    generator = torch.Generator().manual_seed(dim)
    grid = positions(SHAPE, torch.empty((), dtype=DOUBLE)) / 4
    mixing = torch.randn(batch, 2, dim, generator=generator, dtype=DOUBLE)
    guide = torch.sin(grid @ mixing)
    return torch.cat([grid.expand(batch, -1, -1), guide], dim=2)[..., :dim].contiguous()


def written_kernel(features: Tensor) -> Tensor:
    return torch.exp(-0.5 * (features[:, :, None] - features[:, None]).square().sum(-1))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Sums of some hundred terms of order one: rounding alone."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# sums written out


@pytest.mark.parametrize("tile", [50, 2048])
def test_exact_is_the_written_sum_in_tiles_of_any_size(tile, monkeypatch) -> None:
    monkeypatch.setattr("crfrnn.plain.TILE", tile)
    features, v = smooth_features(2, 3), torch.rand(2, NUM_PIXELS, 4, dtype=DOUBLE)
    assert_equal(ExactFilter(features)(v), written_kernel(features) @ v)
    far = torch.tensor([[1000.0], [1000.5]])
    torch.testing.assert_close(gaussian(far, far)[0, 1].item(), 0.8824969, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"epsilon must be a number in \[0, 1\)"):
        ExactFilter(features, epsilon=1.0)


def test_window_is_the_exact_sum_over_its_offsets() -> None:
    """Radius 5 in steps of 2 pixels: farther than the shorter axis is long."""
    features, v = smooth_features(2, 5), torch.rand(2, NUM_PIXELS, 3, dtype=DOUBLE)
    place = positions(SHAPE, features)
    offset = (place[:, None] - place).abs()
    inside = ((offset <= 10) & (offset % 2 == 0)).all(-1)
    kernel = WindowFilter(features, SHAPE, radius=5, dilation=2)
    assert_equal(kernel(v), (written_kernel(features) * inside) @ v)


@pytest.mark.parametrize("shape", [(9, 13), (150, 5), (1, 1), (1, 200)])
def test_separable_equals_exact(shape: tuple[int, int]) -> None:
    like = torch.empty((), dtype=DOUBLE)
    v = torch.rand(2, shape[0] * shape[1], 3, dtype=DOUBLE)
    exact = ExactFilter((positions(shape, like) / like.new_tensor([2.0, 3.0])).expand(2, -1, -1))
    # The dropped taps are each below eps / 2 of the centre.
    assert_equal(SeparableFilter(like.new_tensor([3.0, 2.0]), shape)(v), exact(v))


# the lattice beside the exact sum


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_lattice_is_close_to_exact(dim: int) -> None:
    """Method error of the standard lattice: 10 to 30 % of the message's variation (crf.md)."""
    features = smooth_features(1, dim)
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=DOUBLE)
    v = torch.rand(1, NUM_PIXELS, 4, dtype=DOUBLE)
    exact = Normalized(ExactFilter(features), "after", ones)(v)
    lattice = Normalized(LatticeFilter(features), "after", ones)(v)
    variation = (exact - exact.mean(1, keepdim=True)).norm()
    assert (lattice - exact).norm() < 0.35 * variation


@pytest.mark.parametrize(("theta_alpha", "theta_beta"), [(25, 13), (4, 5)])
def test_fine_lattice_is_three_times_closer_on_a_photograph(theta_alpha, theta_beta) -> None:
    """From many pixels in a cell to one or none."""
    astronaut = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    photo = torch.from_numpy(astronaut[10:202:4, 100:356:4].astype("float64"))
    place = positions((48, 64), photo) / theta_alpha
    features = torch.cat([place, photo.flatten(0, 1) / theta_beta], dim=1)[None]
    noise = torch.randn(1, 3072, 3, generator=torch.Generator().manual_seed(0)).double()
    smooth = SeparableFilter(noise.new_tensor([3.0, 3.0]), (48, 64))(noise)
    one_and_v = torch.cat([torch.ones_like(noise[..., :1]), noise, smooth], dim=2)

    filters = ExactFilter(features), LatticeFilter(features), LatticeFilter(features, "fine")
    sums = [kernel(one_and_v) for kernel in filters]
    exact, *lattices = (result[..., 1:] / result[..., :1] for result in sums)
    standard, fine = ((lattice - exact).norm(dim=1) for lattice in lattices)
    assert (standard / fine).log().mean().exp() > 3  # 4.1 and 3.6


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_fine_lattice_has_the_integral_of_the_gaussian(dim: int) -> None:
    """Without normalisation, too, K of a constant is that of the exact sum."""
    features, ones = smooth_features(1, dim), torch.ones(1, NUM_PIXELS, 1, dtype=DOUBLE)
    exact, lattice = (
        kernel(ones).mean() for kernel in (ExactFilter(features), LatticeFilter(features, "fine"))
    )
    # The rest is lost through vertices that were not inserted: 5 % for d = 8, less below.
    torch.testing.assert_close(lattice, exact, rtol=0.07, atol=0)


@pytest.mark.parametrize("accuracy", ["standard", "fine"])
def test_no_neighbour_is_found_across_the_edge_of_the_keys(accuracy, monkeypatch) -> None:
    """A margin of more steps than are ever made changes nothing."""
    features, v = smooth_features(2, 2), torch.rand(2, NUM_PIXELS, 2, dtype=DOUBLE)
    enough = LatticeFilter(features, accuracy)(v)
    monkeypatch.setattr(
        "crfrnn.lattice.pack_keys",
        lambda *points, margin: pack_keys(*points, margin=margin + 10),
    )
    assert torch.equal(LatticeFilter(features, accuracy)(v), enough)


def test_fine_lattice_overflows_earlier() -> None:
    """About 47 cells along each of 11 axes fit; 70, smaller and with more margin, do not."""
    features = torch.eye(12, 11, dtype=DOUBLE)[None] * 26
    LatticeFilter(features)
    with pytest.raises(LatticeOverflowError, match="theta is too small"):
        LatticeFilter(features, accuracy="fine")
