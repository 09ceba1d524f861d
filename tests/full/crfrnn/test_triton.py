"""The lattice and the updates on the GPU beside plain PyTorch, in Triton's interpreter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from crfrnn import CrfRnn, triton_kernels
from crfrnn.filtering import (
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
    cuda,
    cuda_update,
)
from crfrnn.filtering import lattice as plain_lattice
from crfrnn.filtering.fused import fused_updates
from crfrnn.filtering.lattice import Lattice, LatticeAccuracyName, named, split_segments
from crfrnn.filtering.linear import Normalization
from crfrnn.filtering.update_composed import composed_updates_grad, flat_kernels
from crfrnn.filtering.update_ops import mean_field_updates as updates_operator
from tests.crfrnn.native_path import ROUNDINGS, random_features, random_rows
from tests.crfrnn.test_cpu_update import operator_arguments
from tests.crfrnn.test_properties import Case, property_of
from tests.full.crfrnn.triton_path import needs_interpreter, needs_triton, use_triton

pytestmark = [needs_triton, needs_interpreter]
STANDARD = named("standard")
LABELS = 21


@pytest.fixture
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger blocks: in the interpreter a program costs the same whatever it does."""
    from crfrnn.triton_kernels import rows, segments

    monkeypatch.setattr(segments, "ROWS", 256)
    monkeypatch.setattr(rows, "ELEMENTS", 8192)


# lists cut into segments, in plain PyTorch


@pytest.mark.parametrize("accuracy", ["standard", "fine"])
@pytest.mark.parametrize("length", [1, 3, 1000])
def test_a_cut_list_is_the_same_list(accuracy: LatticeAccuracyName, length: int) -> None:
    tables, _ = plain_lattice.build_lattice(random_features(2, 150, 2).double(), named(accuracy))
    cut = split_segments(tables, length)
    ends = [*cut.splat_offsets.tolist()[1:], cut.splat_pixels.numel()]
    lengths = [b - a for a, b in zip(cut.splat_offsets.tolist(), ends, strict=True)]
    assert 0 <= min(lengths) <= max(lengths) <= length
    v = random_rows(2, 150, 5).double()
    torch.testing.assert_close(
        plain_lattice.lattice_filter(cut, v, named(accuracy), transposed=False),
        plain_lattice.lattice_filter(tables, v, named(accuracy), transposed=False),
        rtol=1e-13,  # of some hundred float64 additions in another order
        atol=0,
    )


# the lattice


def assert_same_tables(own: Lattice, plain: Lattice) -> None:
    cut = split_segments(plain, cuda.SEGMENT)
    for name, a, b in zip(Lattice._fields, own, cut, strict=True):
        if a.is_floating_point():
            # The compiler fuses a multiply-add where PyTorch rounds twice: the rounding of a
            # coordinate of some 10 cells.
            torch.testing.assert_close(a, b, rtol=0, atol=100 * torch.finfo(a.dtype).eps, msg=name)
        else:
            assert torch.equal(a, b), name


def assert_filters_are_the_plain_ones(
    features: Tensor, num_labels: int, accuracy: LatticeAccuracyName = "standard"
) -> None:
    """Both ways, and the gradient to the weights, of one lattice."""
    numbers = named(accuracy)
    own, own_rank = cuda.build_lattice(features, numbers)
    plain, plain_rank = plain_lattice.build_lattice(features, numbers)
    assert torch.equal(own_rank, plain_rank)
    assert_same_tables(own, plain)
    v, grad = torch.rand(2, *features.shape[:2], num_labels, dtype=features.dtype)
    # As ROUNDINGS, in units of the dtype's own rounding.
    rounding = 100 * torch.finfo(features.dtype).eps
    for transposed in (False, True):
        torch.testing.assert_close(
            cuda.lattice_filter(own, v, numbers, transposed=transposed),
            plain_lattice.lattice_filter(plain, v, numbers, transposed=transposed),
            rtol=rounding,
            atol=0,
        )
    torch.testing.assert_close(
        cuda.lattice_weights_grad(own, v, grad, numbers, transposed=False),
        plain_lattice.lattice_weights_grad(plain, v, grad, numbers, transposed=False),
        rtol=num_labels * rounding,
        atol=0,
    )


@pytest.mark.usefixtures("_few_programs")
@property_of()
def test_the_lattice_is_the_plain_one(case: Case) -> None:
    """For every grid, label count and feature dimension of the property tests, in float64."""
    features = torch.randn(case.batch, math.prod(case.shape), case.channels, dtype=torch.float64)
    assert_filters_are_the_plain_ones(features * 2, case.num_labels)


@pytest.mark.parametrize("num_labels", [1, 21, 70])
def test_the_lattice_of_single_precision_is_the_plain_one(num_labels: int) -> None:
    """In blocks as on the GPU."""
    assert_filters_are_the_plain_ones(random_features(2, 40, 2), num_labels)


@pytest.mark.usefixtures("_few_programs")
def test_the_fine_lattice_is_the_plain_one() -> None:
    assert_filters_are_the_plain_ones(random_features(1, 30, 2).double(), 3, "fine")


def test_many_pixels_around_one_vertex() -> None:
    """Longer than a segment many times: every pixel in one cell."""
    features = torch.rand(1, 20 * cuda.SEGMENT + 3, 2, dtype=torch.float64) / 100
    assert_filters_are_the_plain_ones(features, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_summed_in_single(dtype: torch.dtype) -> None:
    tables, _ = cuda.build_lattice(random_features(1, 60, 2), STANDARD)
    v = random_rows(1, 60, 5).to(dtype)
    filtered = cuda.lattice_filter(tables, v, STANDARD, transposed=False)
    assert filtered.dtype == dtype
    precise = plain_lattice.lattice_filter(tables, v.float(), STANDARD, transposed=False)
    # One rounding, of the result.
    torch.testing.assert_close(
        filtered.float(), precise, rtol=torch.finfo(dtype).eps / 2 + ROUNDINGS, atol=0
    )


@pytest.mark.parametrize(
    "features",
    [
        torch.tensor([[[0.0] * 5, [1e5] * 5]]),  # too far for the keys
        torch.tensor([[[0.0] * 2, [math.nan] * 2]]),
    ],
)
# NumPy tells of a number that is none as it becomes an integer.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_overflow_is_the_plain_error(features: Tensor) -> None:
    with pytest.raises(LatticeOverflowError) as plain:
        plain_lattice.build_lattice(features, STANDARD)
    with pytest.raises(LatticeOverflowError) as raised:
        cuda.build_lattice(features, STANDARD)
    assert str(raised.value) == str(plain.value)


# whole layers


def results(crf: CrfRnn, unary: Tensor, image: Tensor) -> list[Tensor]:
    """The logits, and all gradients of a sum of them."""
    unary = unary.clone().requires_grad_()
    image = image.clone().requires_grad_()
    logits = crf(unary, image)
    learnt = [unary, image, *(p for p in crf.parameters() if p.requires_grad)]
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    return [logits, *torch.autograd.grad((logits * direction).sum(), learnt)]


def problem(num_labels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_labels)
    unary = 3 * torch.randn(2, num_labels, 4, 5, generator=generator)
    return unary, 1 + 253 * torch.rand(2, 3, 4, 5, generator=generator)


@pytest.mark.usefixtures("_few_programs")
@pytest.mark.parametrize(
    ("num_labels", "normalization", "options"),
    [
        (3, "symmetric", {"learn_theta": True, "features_gradient": "lattice"}),
        (3, "after", {"learn_theta": True, "num_iterations": 1}),
        (1, "before", {}),
        (3, "none", {"spatial_filter": "lattice", "theta_gamma": 2.0}),
        (21, "before", {"learn_theta": True, "num_iterations": 1}),
    ],
)
def test_a_layer_over_the_kernels_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
    num_labels: int,
    normalization: Normalization,
    options: dict[str, Any],
) -> None:
    everything: dict[str, Any] = {
        "kernel_weights": "matrix",
        "compatibility": "full",
        "normalization": normalization,
        "num_iterations": 2,
        "theta_alpha": 3.0,
        "theta_beta": 60.0,
    }
    crf = CrfRnn(num_labels, **everything | options)
    unary, image = problem(num_labels)
    expected = results(crf, unary, image)
    with monkeypatch.context() as patch:
        use_triton(patch)
        actual = results(crf, unary, image)
        with torch.no_grad():
            without_gradients = crf(unary, image)
    for a, b in zip([*actual, without_gradients], [*expected, expected[0]], strict=True):
        # Two updates and their gradients of ROUNDINGS each, as in test_cpu_update.py.
        scale = max(b.abs().max().item(), 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=100 * ROUNDINGS * scale)


@pytest.mark.usefixtures("_few_programs")
@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_half_precision_storage_is_that_of_plain_pytorch(storage: str) -> None:
    arguments = operator_arguments()
    start, unary, *flattened = arguments
    with torch.no_grad():
        expected, expected_q = updates_operator(*arguments, 2, True, storage)
        q, kernels = torch.empty_like(expected_q), flat_kernels(*flattened)
        updated = cuda_update.mean_field_updates(start, unary, kernels, 2, q)
        grad = torch.randn_like(updated)
        learn = [True, True]
        grads = [
            cuda_update.mean_field_updates_grad(grad, q, kernels, to_penalties=True, learn=learn),
            composed_updates_grad(grad, q, None, kernels, to_penalties=True, learn=learn),
        ]
    # Some value lies so near to the middle between two that the paths round it to either.
    rounding = torch.finfo(q.dtype).eps
    torch.testing.assert_close(q.float(), expected_q.float(), rtol=0, atol=rounding)
    scale = expected.abs().max().item()
    torch.testing.assert_close(updated, expected, rtol=0, atol=2 * rounding * scale)
    for a, b in zip(*grads, strict=True):
        scale = max(b.abs().max().item(), 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=100 * ROUNDINGS * scale)


# CUDA tensors without a GPU: shapes alone


def test_cuda_tensors_take_the_operators_of_the_gpu() -> None:
    with FakeTensorMode(shape_env=ShapeEnv()):
        features = torch.empty(2, 600, 5, device="cuda")
        spatial = SeparableFilter(torch.empty(2, device="cuda"), (20, 30))
        lattice, valid = LatticeFilter(features), torch.empty(2, 600, 1, device="cuda")
        kernels = [Normalized(own, "after", valid) for own in (spatial, lattice)]
        segments = Lattice(*lattice.tables).splat_segments
        assert type(segments.shape[0]) is not int, "one for each vertex, however many"
        rows = torch.empty(2, 600, LABELS, device="cuda")
        penalties = [torch.empty(LABELS, LABELS, device="cuda")] * 2
        updated = fused_updates(None, rows, kernels, penalties, 3, storage="bfloat16")
        assert (updated is not None) == triton_kernels.available()
        assert updated is None or updated.shape == rows.shape
        many = torch.empty(2, 600, 65, device="cuda")
        penalties = [torch.empty(65, 65, device="cuda")] * 2
        assert fused_updates(None, many, kernels, penalties) is None, "too many for the registers"
