"""The filters: each against the exact sum, and every fast one against its own transpose."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from crfrnn.filtering import (
    NORMALIZATIONS,
    ExactFilter,
    Filter,
    LatticeAccuracyName,
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.filtering.exact import gaussian
from crfrnn.filtering.lattice import (
    elevate,
    enclosing_simplex,
    insert_neighbours,
    neighbour_steps,
    pack_keys,
)
from crfrnn.filtering.linear import Normalization
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


def build(name: str, dtype: torch.dtype = torch.float64, dim: int = 5) -> Filter:
    if name == "separable":
        return SeparableFilter(torch.tensor([3.0, 2.0], dtype=dtype), SHAPE)
    features = smooth_features(2, dim, dtype)
    if name == "exact":
        return ExactFilter(features)
    if name == "window":
        return WindowFilter(features, SHAPE, radius=2)
    return LatticeFilter(features, accuracy="fine" if name == "fine lattice" else "standard")


FILTERS = ["exact", "separable", "lattice", "fine lattice"]


def photo_features(theta_alpha: int, theta_beta: int) -> Tensor:
    """Bilateral features of a real photograph at 48 x 64 pixels."""
    astronaut = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    photo = torch.from_numpy(astronaut[10:202:4, 100:356:4].astype("float64"))
    position = positions((48, 64), photo) / theta_alpha
    return torch.cat([position, photo.flatten(0, 1) / theta_beta], dim=1)[None]


def test_fine_lattice_overflows_earlier() -> None:
    """About 47 cells along each of 11 axes fit; 70, smaller and with more margin, do not."""
    features = torch.eye(12, 11, dtype=torch.float64)[None] * 26
    LatticeFilter(features)
    with pytest.raises(LatticeOverflowError, match="theta is too small"):
        LatticeFilter(features, accuracy="fine")


def test_an_unknown_accuracy_is_an_error() -> None:
    with pytest.raises(ValueError, match="'standard', 'fine'\\], got 'finest'"):
        LatticeFilter(smooth_features(1, 2), accuracy="finest")  # type: ignore[arg-type]


@pytest.mark.parametrize("tile", [50, 2048])
def test_exact_is_the_written_sum_in_tiles_of_any_size(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crfrnn.filtering.exact.TILE", tile)
    features, v = smooth_features(2, 3), torch.rand(2, NUM_PIXELS, 4, dtype=torch.float64)
    difference = features[:, :, None] - features[:, None]
    kernel = torch.exp(-0.5 * difference.square().sum(-1))
    # Sums of 117 terms of order one: rounding alone.
    torch.testing.assert_close(ExactFilter(features)(v), kernel @ v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epsilon", [-1e-9, 1.0, float("nan")])
def test_exact_refuses_an_epsilon_out_of_range(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon must be a number in \[0, 1\)"):
        ExactFilter(smooth_features(1, 2), epsilon=epsilon)


def test_gaussian_keeps_its_accuracy_far_from_the_origin() -> None:
    a = torch.tensor([[1000.0], [1000.5]])
    torch.testing.assert_close(gaussian(a, a)[0, 1].item(), 0.8824969, rtol=1e-6, atol=0)


def test_window_is_the_exact_sum_over_its_offsets() -> None:
    """Radius 5 in steps of 2 pixels: farther than the shorter axis is long."""
    features, v = smooth_features(2, 5), torch.rand(2, NUM_PIXELS, 3, dtype=torch.float64)
    place = positions(SHAPE, features)
    offset = (place[:, None] - place).abs()
    inside = ((offset <= 10) & (offset % 2 == 0)).all(-1)
    difference = features[:, :, None] - features[:, None]
    kernel = torch.exp(-0.5 * difference.square().sum(-1)) * inside
    filtered = WindowFilter(features, SHAPE, radius=5, dilation=2)(v)
    torch.testing.assert_close(filtered, kernel @ v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 13), (150, 5), (1, 1), (1, 200)])
def test_separable_equals_exact(shape: tuple[int, int]) -> None:
    like = torch.empty((), dtype=torch.float64)
    v = torch.rand(2, shape[0] * shape[1], 3, dtype=torch.float64)
    grid = positions(shape, like) / torch.tensor([2.0, 3.0], dtype=torch.float64)  # x, y
    exact = ExactFilter(grid.expand(2, -1, -1))(v)
    # The dropped taps are each below eps / 2 of the centre.
    torch.testing.assert_close(
        SeparableFilter(like.new_tensor([3.0, 2.0]), shape)(v), exact, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_barycentric_weights_reproduce_the_point(dim: int) -> None:
    features = torch.randn(200, dim, dtype=torch.float64) * 3
    simplex = enclosing_simplex(elevate(features, 1.0))
    weights = simplex.barycentric
    assert weights.min() > -1e-12
    torch.testing.assert_close(weights.sum(1), torch.ones(200, dtype=torch.float64))
    # sum_k weight_k vertex_k is the elevated point itself.
    point = torch.zeros_like(elevate(features, 1.0))
    for remainder in range(dim + 1):
        shift = remainder - (dim + 1) * (simplex.rank > dim - remainder)
        point += weights[:, remainder] * (simplex.origin + shift)
    torch.testing.assert_close(point, elevate(features, 1.0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_a_step_to_a_neighbour_is_a_constant_in_the_key(dim: int) -> None:
    elevated = elevate(torch.randn(50, dim, dtype=torch.float64) * 3, 1.0)
    direction = torch.full((dim + 1, dim + 1, 1), -1.0, dtype=torch.float64)
    direction += torch.eye(dim + 1, dtype=torch.float64)[:, :, None] * (dim + 1)
    moved = torch.cat([elevated, *(elevated + u for u in direction)], dim=1)
    simplex = enclosing_simplex(moved)
    image_index = torch.zeros(moved.shape[1], dtype=torch.int64)
    keys, strides = pack_keys(simplex.origin, simplex.rank, image_index, margin=1)
    # A step turns the vertex of remainder k into one of remainder k - 1: compare as sets.
    start, *ahead = torch.split(keys.sort(dim=1).values, 50)
    for step, there in zip(neighbour_steps(strides), ahead, strict=True):
        assert torch.equal(there - start, torch.full_like(start, step))


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


@pytest.mark.parametrize(("theta_alpha", "theta_beta"), [(25, 13), (4, 5)])
def test_fine_lattice_is_three_times_closer_on_a_photograph(
    theta_alpha: int, theta_beta: int
) -> None:
    """From many pixels in a cell to one or none."""
    features = photo_features(theta_alpha, theta_beta)
    noise = torch.randn(1, 3072, 3, generator=torch.Generator().manual_seed(0)).double()
    smooth = SeparableFilter(noise.new_tensor([3.0, 3.0]), (48, 64))(noise)
    one_and_v = torch.cat([torch.ones_like(noise[..., :1]), noise, smooth], dim=2)

    def normalized(kernel: Filter) -> Tensor:
        result = kernel(one_and_v)
        return result[..., 1:] / result[..., :1]

    exact = normalized(ExactFilter(features))
    standard = (normalized(LatticeFilter(features)) - exact).norm(dim=1)
    fine = (normalized(LatticeFilter(features, accuracy="fine")) - exact).norm(dim=1)
    assert (standard / fine).log().mean().exp() > 3  # 4.1 and 3.6


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_fine_lattice_has_the_integral_of_the_gaussian(dim: int) -> None:
    """Without normalisation, too, K of a constant is that of the exact sum."""
    features = smooth_features(1, dim)
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=torch.float64)
    exact = ExactFilter(features)(ones).mean()
    lattice = LatticeFilter(features, accuracy="fine")(ones).mean()
    # The rest is lost through vertices that were not inserted: 5 % for d = 8, less below.
    torch.testing.assert_close(lattice, exact, rtol=0.07, atol=0)


def test_insertion_takes_all_neighbours_and_the_bridges_between_them() -> None:
    """In the plane, with u_0 = 100, u_1 = 1 and u_2 = -101 in the key."""
    steps = neighbour_steps([100, 1])
    around = {sign * step for step in steps for sign in (-1, 1)}

    def inserted(*offsets: int) -> set[int]:
        table = insert_neighbours(torch.tensor(offsets) + 5000, steps) - 5000
        assert table.tolist() == sorted(set(table.tolist()))  # sorted, each once
        return set(table.tolist()) - set(offsets)

    assert inserted(0) == around
    # 303 is three steps along both axes: only 102 and 201 touch four inserted vertices.
    assert inserted(0, 303) == around | {303 + step for step in around} | {102, 201}


@pytest.mark.parametrize("accuracy", ["standard", "fine"])
def test_no_neighbour_is_found_across_the_edge_of_the_keys(
    accuracy: LatticeAccuracyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A margin of more steps than are ever made changes nothing."""
    features, v = smooth_features(2, 2), torch.rand(2, NUM_PIXELS, 2, dtype=torch.float64)
    enough = LatticeFilter(features, accuracy)(v)
    monkeypatch.setattr(
        "crfrnn.filtering.lattice.pack_keys",
        lambda *points, margin: pack_keys(*points, margin=margin + 10),
    )
    assert torch.equal(LatticeFilter(features, accuracy)(v), enough)


@pytest.mark.parametrize("name", [*FILTERS, "window"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(
    ("dim", "dtype", "tolerance"), [(2, torch.float64, 1e-10), (5, torch.float32, 1e-5)]
)
def test_transpose_is_the_adjoint(
    name: str, normalization: Normalization, dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    """<K x, y> = <x, K' y>: fails by orders of magnitude without the reversed blurs."""
    ones = torch.ones(2, NUM_PIXELS, 1, dtype=dtype)
    kernel = Normalized(build(name, dtype, dim=dim), normalization, ones)
    x, y = torch.randn(2, 2, NUM_PIXELS, 3, dtype=dtype)
    left, right = (kernel(x) * y).sum(), (x * kernel.transpose(y)).sum()
    # Relative to the sum of the products' sizes: the sum itself may be near 0.
    size = (kernel(x.abs()) * y.abs()).sum().item()
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("name", FILTERS)
def test_after_normalisation_keeps_constants_and_before_keeps_sums(name: str) -> None:
    ones = torch.ones(2, NUM_PIXELS, 1, dtype=torch.float64)
    after = Normalized(build(name), "after", ones)(ones)
    torch.testing.assert_close(after, ones, rtol=1e-12, atol=1e-12)
    # Only an exactly symmetric K has equal row and column sums; the lattice is nearly so.
    before = Normalized(build(name), "before", ones)(ones).sum(1)
    tolerance = 1e-2 if "lattice" in name else 1e-12
    torch.testing.assert_close(before, ones.sum(1), rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", FILTERS)
def test_layout_of_input_and_gradient_does_not_matter(name: str) -> None:
    kernel = build(name)
    v = torch.rand(2, 3, NUM_PIXELS, dtype=torch.float64).transpose(1, 2).requires_grad_()
    torch.testing.assert_close(kernel(v), kernel(v.detach().contiguous()))
    (kernel(v).sum() * 2).backward()  # type: ignore[no-untyped-call]  # an expanded gradient, stride 0
    ones = torch.ones_like(v, memory_format=torch.contiguous_format)
    torch.testing.assert_close(v.grad, 2 * kernel.transpose(ones))


@pytest.mark.parametrize("name", ["exact", "lattice", "fine lattice"])
def test_one_pixel(name: str) -> None:
    features = torch.zeros(1, 1, 5, dtype=torch.float64)
    kernel: Filter = ExactFilter(features)
    if name != "exact":
        kernel = LatticeFilter(features, accuracy="standard" if name == "lattice" else "fine")
    ones = torch.ones(1, 1, 1, dtype=torch.float64)
    v = torch.rand(1, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(Normalized(kernel, "after", ones)(v), v)
