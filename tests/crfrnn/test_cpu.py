"""The native CPU path against the plain functions of the same names, on the same tables."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor

from crfrnn import cpu, plain
from crfrnn.__main__ import main
from crfrnn.filters import LatticeFilter, LatticeOverflowError, SeparableFilter
from crfrnn.lattice import Lattice, LatticeAccuracy, named
from crfrnn.ops import Kernel
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


def test_one_pixel() -> None:
    assert_the_filters_agree(both_lattices(torch.zeros(1, 1, 5)), torch.rand(1, 1, 3))


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


def test_a_large_image_in_many_chunks() -> None:
    """More pixels than one chunk of the build holds, and more work than one thread takes."""
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


def everything(features: Tensor, v: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """Both filters, both ways, through the operators, with gradients."""
    v = v.clone().requires_grad_()
    bilateral, spatial = LatticeFilter(features), SeparableFilter(torch.tensor([3.0, 2.0]), shape)
    filtered = bilateral(v), bilateral.transpose(v), spatial(v)
    (grad,) = torch.autograd.grad([x.square().sum() for x in filtered], v)
    return [*bilateral.tables, *filtered, grad]


def test_from_four_python_threads_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    features = [random_features(1, 60 * 50, d) for d in (2, 3, 4, 5)]
    v = [random_rows(1, 60 * 50, n) for n in (21, 2, 8, 5)]
    shapes = [(60, 50)] * 4
    alone = [everything(*each) for each in zip(features, v, shapes, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = list(pool.map(everything, features, v, shapes))
            for one, other in zip(alone, together, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_layout_of_the_input_does_not_matter() -> None:
    features, v = random_features(3, 150, 1).permute(2, 1, 0), torch.rand(1, 7, 150).mT
    strided = everything(features, v, (10, 15))
    compact = everything(features.contiguous(), v.contiguous(), (10, 15))
    assert all(torch.equal(a, b) for a, b in zip(strided, compact, strict=True))


def test_float64_is_the_plain_path() -> None:
    features, v = random_features(1, 50, 3).double(), random_rows(1, 50, 3).double()
    assert_the_filters_agree(both_lattices(features), v, rtol=0)


@pytest.fixture
def _fresh() -> Iterator[None]:
    """The library is looked for anew."""
    cpu.library.cache_clear()
    yield
    cpu.library.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_without_the_library_the_plain_path_serves_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "library_path", lambda: None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lattices = both_lattices(random_features(1, 50, 3))
        assert_the_filters_agree(lattices, random_rows(1, 50, 3), rtol=0)
        assert all(torch.equal(a, b) for a, b in zip(*lattices, strict=True))
        cpu.separable_filter(torch.tensor([1.0]), random_rows(1, 50, 3), (50,))
        assert cpu.instructions() is None
    (warning,) = seen
    assert re.search(r"is not built.*Install a C\+\+17 compiler", str(warning.message))


@pytest.mark.usefixtures("_fresh")
def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "INTERFACE", cpu.INTERFACE + 1)
    with pytest.warns(RuntimeWarning, match="built from another version"):
        assert cpu.library() is None


def test_info_says_which_paths_are_active(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"native CPU  yes ({cpu.instructions()})" in printed
    assert f"threads     {torch.get_num_threads()}" in printed


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
