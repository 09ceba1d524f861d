"""The native CPU path against plain PyTorch: the filters, the fused update, and gradients."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn, cpu, plain
from crfrnn.__main__ import main
from crfrnn.filters import (
    LatticeFilter,
    LatticeOverflowError,
    Normalization,
    Normalized,
    SeparableFilter,
)
from crfrnn.inference import Storage, fused_updates, mean_field_update, stored
from crfrnn.lattice import Lattice, LatticeAccuracy, named
from crfrnn.ops import STORAGE, Kernel
from crfrnn.plain import gaussian_features_grad
from tests.crfrnn.problems import ROUNDINGS, random_features, random_rows

STANDARD, FINE = named("standard"), named("fine")

pytestmark = pytest.mark.skipif(
    cpu.library_path() is None,
    reason="the native library is not built: pip install -e . with a C++ compiler",
)


def both_lattices(features: Tensor) -> list[Lattice]:
    """The native one and the plain one; the order of their vertices differs."""
    return [path.build_lattice(features, STANDARD)[0] for path in (cpu, plain)]


def assert_the_filters_agree(
    lattices: list[Lattice],
    v: Tensor,
    accuracy: LatticeAccuracy = STANDARD,
    rtol: float = ROUNDINGS,
) -> None:
    for transposed in (False, True):
        own = cpu.lattice_filter(lattices[0], v, accuracy, transposed=transposed)
        theirs = plain.lattice_filter(lattices[1], v, accuracy, transposed=transposed)
        torch.testing.assert_close(own, theirs, rtol=rtol, atol=0)


# Every dimension and every label count once, and each dimension on both sides of a register.
@pytest.mark.parametrize(
    ("dim", "num_labels"),
    [(1, 21), (2, 8), (3, 150), (4, 1), (5, 24), (6, 2), (7, 257), (8, 3), (5, 21), (3, 2)],
)
def test_lattice_filter_is_the_plain_one(dim: int, num_labels: int) -> None:
    features, v = random_features(2, 150, dim), random_rows(2, 150, num_labels)
    for accuracy in (STANDARD, FINE) if dim == 3 else (STANDARD,):
        own, own_rank = cpu.build_lattice(features, accuracy)
        theirs, rank = plain.build_lattice(features, accuracy)
        assert torch.equal(own_rank, rank)
        # The rounding of the plain path, operation by operation; other processors than x86-64
        # fuse some, and a weight is off by the rounding of a coordinate of some 10 cells.
        torch.testing.assert_close(own.slice_weights, theirs.slice_weights, rtol=0, atol=1e-5)
        assert_the_filters_agree([own, theirs], v, accuracy)


@pytest.mark.parametrize(
    ("shape", "num_labels"),
    [((9, 13), 1), ((75, 2), 24), ((1, 1), 21), ((1, 90), 8), ((3, 4, 5), 257), ((2, 3, 2, 5), 3),
     ((7,), 150), ((9, 13), 21), ((75, 2), 2), ((3, 4, 5), 8)],
)  # fmt: skip
def test_separable_filter_is_the_plain_one(shape: tuple[int, ...], num_labels: int) -> None:
    theta = torch.linspace(0.7, 4.0, len(shape))
    v = random_rows(2, math.prod(shape), num_labels)
    own, theirs = (f.separable_filter(theta, v, shape) for f in (cpu, plain))
    torch.testing.assert_close(own, theirs, rtol=ROUNDINGS, atol=0)


def test_one_pixel_and_more_than_a_chunk() -> None:
    assert_the_filters_agree(both_lattices(torch.zeros(1, 1, 5)), torch.rand(1, 1, 3))
    grid = torch.cartesian_prod(torch.arange(90.0), torch.arange(110.0))
    features = torch.cat([grid / 20, (grid / 7).sin()], dim=1)[None]
    # Some thousand pixels around a vertex: 10 times ROUNDINGS at most.
    assert_the_filters_agree(both_lattices(features), random_rows(1, 9900, 21), rtol=1e-5)


# Too far for the keys, too far for float32, no number.
@pytest.mark.parametrize("far", [[1e5] * 5, [1e9] * 2, [math.nan] * 2])
def test_overflow_is_the_plain_error(far: list[float]) -> None:
    features = torch.tensor([[[0.0] * len(far), far]])
    with pytest.raises(LatticeOverflowError) as theirs:
        plain.build_lattice(features, STANDARD)
    with pytest.raises(LatticeOverflowError, match=re.escape(str(theirs.value))):
        cpu.build_lattice(features, STANDARD)


def everything(features: Tensor, v: Tensor) -> list[Tensor]:
    """Both filters, both ways, through the operators, with gradients."""
    v, shape = v.clone().requires_grad_(), (10, v.shape[1] // 10)
    bilateral, spatial = LatticeFilter(features), SeparableFilter(torch.tensor([3.0, 2.0]), shape)
    filtered = bilateral(v), bilateral.transpose(v), spatial(v)
    (grad,) = torch.autograd.grad([x.square().sum() for x in filtered], v)
    return [*bilateral.tables, *filtered, grad]


def test_from_four_python_threads_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    features = [random_features(1, 60 * 50, d) for d in (2, 3, 4, 5)]
    v = [random_rows(1, 60 * 50, n) for n in (21, 2, 8, 5)]
    alone = [everything(*each) for each in zip(features, v, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(everything, features, v), strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_layout_does_not_matter_and_float64_is_the_plain_path() -> None:
    features, v = random_features(3, 150, 1).permute(2, 1, 0), torch.rand(1, 7, 150).mT
    strided, compact = everything(features, v), everything(features.contiguous(), v.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(strided, compact, strict=True))
    assert_the_filters_agree(both_lattices(features.double()), v.double(), rtol=0)


@pytest.fixture
def _fresh() -> Iterator[None]:
    """Look for the library anew."""
    cpu.library.cache_clear()
    yield
    cpu.library.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_without_the_library_the_plain_path_serves_with_one_warning(monkeypatch) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lattices = both_lattices(random_features(1, 50, 3))
        assert_the_filters_agree(lattices, random_rows(1, 50, 3), rtol=0)
        assert all(torch.equal(a, b) for a, b in zip(*lattices, strict=True))
        cpu.separable_filter(torch.tensor([1.0]), random_rows(1, 50, 3), (50,))
        assert cpu.instructions() is None
    (warning,) = seen
    assert "is not built" in str(warning.message)


@pytest.mark.usefixtures("_fresh")
def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "INTERFACE", cpu.INTERFACE + 1)
    with pytest.warns(RuntimeWarning, match="built from another version"):
        assert cpu.library() is None


def test_info_says_which_paths_are_active(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert f"yes ({cpu.instructions()})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("num_labels", "transposed"), [(1, False), (5, True), (21, False), (40, True)]
)
def test_gradient_of_the_features_is_the_plain_one(num_labels: int, transposed: bool) -> None:
    features = random_features(2, 150, 3)
    lattice, _ = cpu.build_lattice(features, STANDARD)
    v, grad = random_rows(4, 150, num_labels).split(2)  # type: ignore[no-untyped-call]

    def kernel(x: Tensor, *, other_way: bool = False) -> Tensor:
        return plain.lattice_filter(lattice, x, STANDARD, transposed=transposed ^ other_way)

    theirs = gaussian_features_grad(kernel, partial(kernel, other_way=True), features, v, grad)
    own = cpu.source_grad(Kernel(features, lattice, "standard"), v, grad, transposed=transposed)
    # Differences of two sums over labels and neighbours: rounding relative to the largest.
    tolerance = 10 * ROUNDINGS * theirs.abs().max().item()
    torch.testing.assert_close(own, theirs, rtol=0, atol=tolerance)


# the fused update


def update_problem(
    num_labels: int,
    normalization: Normalization = "symmetric",
    penalty: str = "any",
    shape: tuple[int, ...] = (10, 12),
    learns: str = "",
) -> tuple[list[Tensor], list[Normalized]]:
    """Logits, unary and two penalties that learn, a spatial and a bilateral kernel, and widths."""
    generator = torch.Generator().manual_seed(num_labels)
    rows = torch.randn(2, 2, 120, num_labels, generator=generator) * 3
    matrices = torch.rand(2, num_labels, num_labels, generator=generator)
    if penalty == "potts":
        matrices = torch.stack([1 - torch.eye(num_labels), 3 - 3 * torch.eye(num_labels)])
    theta, features = torch.tensor([2.0, 3.0, 1.0, 1.5][: len(shape)]), random_features(2, 120, 3)
    widths = [x.requires_grad_() for x in (theta, features)] if learns else []
    valid, masked = torch.ones(2, 120, 1), learns == "masked"
    valid[1, 100:] = 0 if masked else 1
    filters = SeparableFilter(theta, shape), LatticeFilter(features)
    kernels = [Normalized(x, normalization, valid, masked=masked) for x in filters]
    return [*(x.clone().requires_grad_() for x in (*rows, *matrices)), *widths], kernels


def fused(values: Any, kernels: list[Normalized], iterations: int = 1, **options: Any) -> Tensor:
    logits, unary, *penalties = values[:4]
    updated = fused_updates(
        logits, unary, kernels, penalties[: len(kernels)], iterations, **options
    )
    assert updated is not None
    return updated


def plain_updates(values: list[Tensor], kernels: list[Normalized], iterations: int) -> Tensor:
    logits, unary, *penalties = values[:4]
    for _ in range(iterations):
        logits = mean_field_update(logits.softmax(-1), unary, kernels, penalties)
    return logits


def assert_gradients_agree(
    own: Tensor, plain: Tensor, values: Sequence[Tensor], rounding: float
) -> None:
    """Of sums with one random direction; signed sums of pixels: relative to their largest."""
    direction = torch.randn_like(plain)
    grads = [
        torch.autograd.grad((x * direction).sum(), values, retain_graph=True) for x in (own, plain)
    ]
    for a, b in zip(*grads, strict=True):
        scale = max(b.abs().max().item(), 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=rounding * scale)


@pytest.mark.parametrize(
    ("problem", "iterations"),
    [((1, "symmetric", "any", (10, 12)), 1), ((2, "after", "potts", (10, 12)), 1),
     ((8, "none", "potts", (4, 5, 6)), 1), ((21, "after", "any", (10, 12)), 1),
     ((3, "before", "any", (120,)), 3), ((21, "symmetric", "potts", (1, 120)), 3),
     ((40, "symmetric", "any", (10, 12)), 3), ((3, "symmetric", "any", (4, 5, 6)), 3),
     ((40, "before", "potts", (2, 3, 4, 5)), 3), ((5, "symmetric", "any", (10, 12), "masked"), 2),
     ((5, "after", "any", (10, 12), "widths"), 2), ((5, "before", "any", (10, 12), "masked"), 2),
     ((5, "none", "any", (10, 12), "widths"), 2), ((5, "none", "any", (10, 12), "masked"), 2)],
)  # fmt: skip
def test_updates_are_the_plain_ones_in_a_row(problem: Any, iterations: int) -> None:
    values, kernels = update_problem(*problem)
    updated, plain = (f(values, kernels, iterations) for f in (fused, plain_updates))
    # ROUNDINGS of the messages, which are at most about as large as the largest logit; later
    # ones are sharpened by the next update, and so are the gradients.
    rounding = ROUNDINGS if iterations == 1 else 30 * ROUNDINGS
    scale = plain.detach().abs().max().item()
    torch.testing.assert_close(updated, plain, rtol=0, atol=rounding * scale)
    with torch.no_grad():
        assert torch.equal(fused(values, kernels, iterations), updated), "all at once, or in turn"
    gradients = 10 * ROUNDINGS if iterations == 1 else 50 * ROUNDINGS
    assert_gradients_agree(updated, plain, values, gradients)
    own, theirs = (fused([x, *values[1:]], kernels, iterations) for x in (None, values[1]))
    assert torch.equal(own, theirs), "from the unary, or from logits that are the same"
    assert_gradients_agree(own, theirs, values[1:], ROUNDINGS)  # one sum in another order


@pytest.mark.parametrize("width", [1.0, 3.0, 4.0, 12.0])
def test_spatial_message_of_an_update_is_exact_to_what_a_coarse_grid_costs(width: float) -> None:
    """White noise, on which it costs most; the bounds are in csrc/mean_field.cpp."""
    shape = (40, 70)
    logits = torch.randn(1, 2800, 9) * 10
    q, nothing = logits.softmax(-1), torch.zeros_like(logits)
    kernel = Normalized(
        SeparableFilter(torch.tensor([width, width]), shape), "none", torch.ones(1, 2800, 1)
    )
    messages = fused([logits, nothing, -torch.eye(9)], [kernel])
    sums = kernel(torch.ones(1, 2800, 1))
    # 1e-7 of the grid, 1e-7 of the taps, and rounding: ten updates of a sure CRF make of an error
    # of 2e-5 one of 4e-4 in q.
    assert ((messages - kernel(q)).abs() / sums).max() < 1e-6


@pytest.mark.parametrize(("iterations", "started"), [(1, True), (3, True), (3, False)])
def test_updates_are_twice_differentiable(iterations: int, started: bool) -> None:
    (logits, *values), kernels = update_problem(4, "after")
    own = fused([logits if started else None, *values], kernels, iterations)
    plain = plain_updates([logits if started else values[0], *values], kernels, iterations)
    second, leaves = [], [logits, *values] if started else values
    for updated in (own, plain):
        first = torch.autograd.grad(updated.square().sum(), leaves, create_graph=True)
        second.append(torch.autograd.grad([g.square().sum() for g in first], leaves))
    for a, b in zip(*second, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=100 * ROUNDINGS * scale)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_half_precision_storage_costs_q_its_rounding(storage: Storage) -> None:
    values, kernels = update_problem(4)
    one_by_one, unary, *penalties = values
    precise, half = fused(values, kernels, 2), fused(values, kernels, 2, storage=storage)
    for _ in range(2):
        q = stored(one_by_one.softmax(-1), storage)
        one_by_one = mean_field_update(q, unary, kernels, penalties, storage)
    # Rounding to nearest of q and of messages of up to the largest penalty; twice.
    rounding = 2 * torch.finfo(STORAGE[storage]).eps
    scale = precise.detach().abs().max().item()
    torch.testing.assert_close(half, one_by_one, rtol=0, atol=rounding * scale)
    torch.testing.assert_close(half, precise, rtol=0, atol=rounding * scale)
    assert not torch.equal(half, precise)
    assert_gradients_agree(half, precise, values, rounding)


def test_update_of_extreme_logits() -> None:
    """Differences beyond what exp reaches: q is 0 or 1, and no number is lost."""
    values, kernels = update_problem(21)
    logits, unary, *penalties = (x.detach() for x in values)
    torch.testing.assert_close(
        fused([logits * 1000, unary, *penalties], kernels),
        mean_field_update((logits * 1000).softmax(-1), unary, kernels, penalties),
        rtol=0,
        atol=ROUNDINGS * 100,
    )


def test_update_leaves_float64_and_the_lattices_own_derivative_to_autograd() -> None:
    values, (spatial, bilateral) = update_problem(4)
    logits, unary, *penalties = values
    features = random_features(2, 120, 3).requires_grad_()
    learns = Normalized(LatticeFilter(features, gradient="lattice"), "none", torch.ones(2, 120, 1))
    assert fused_updates(logits, unary, [spatial, learns], penalties) is None
    doubles = [x.double() for x in values]
    assert fused_updates(doubles[0], doubles[1], [spatial, bilateral], doubles[2:]) is None


@pytest.mark.parametrize("shape", [(200, 300), (20, 60, 50)])
def test_images_that_are_done_one_after_the_other_are_those_done_alone(shape) -> None:
    """A million numbers each: more than are done together (csrc/mean_field.cpp, TOGETHER)."""
    unary, image = torch.randn(2, 18, *shape), torch.rand(2, 3, *shape) * 255
    crf = CrfRnn(18, theta_alpha=20.0, theta_beta=60.0, num_iterations=2, learn_theta=True)

    def gradients(images: slice) -> list[Tensor]:
        own = unary[images].clone().requires_grad_()
        logits = crf(own, image[images])
        loss = (logits * unary[images].cos()).sum()
        return [logits, *torch.autograd.grad(loss, [own, *crf.parameters()])]

    both, first, second = (gradients(images) for images in (slice(2), slice(1), slice(1, 2)))
    for k in range(2):
        assert torch.equal(both[k], torch.cat([first[k], second[k]]))
    for whole, one, other in zip(both[2:], first[2:], second[2:], strict=True):
        # One sum over both images, or two: of 120,000 numbers of either sign, larger than itself.
        scale = max(one.abs().max().item(), other.abs().max().item())
        torch.testing.assert_close(whole, one + other, rtol=0, atol=100 * ROUNDINGS * scale)
