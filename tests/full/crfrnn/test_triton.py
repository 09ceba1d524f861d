"""Every Triton kernel beside its plain twin: in the interpreter, or on the GPU if there is one."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from crfrnn import CrfRnn, plain, triton_kernels
from crfrnn.filters import (
    ExactFilter,
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
)
from crfrnn.gpu import exact as gpu_exact
from crfrnn.gpu import lattice as gpu_lattice
from crfrnn.gpu import separable as gpu_separable
from crfrnn.inference import MeanField, fused_updates
from crfrnn.lattice import Lattice, LatticeAccuracyName, named, split_segments
from crfrnn.ops import STORAGE
from crfrnn.plain import gaussian_features_grad
from tests.conftest import REPOSITORY
from tests.crfrnn.problems import ROUNDINGS, random_features, random_rows
from tests.crfrnn.test_properties import Case, property_of

pytestmark = pytest.mark.skipif(
    not triton_kernels.available(), reason="Triton is not installed: it comes with PyTorch for GPUs"
)
needs_interpreter = pytest.mark.skipif(
    torch.cuda.is_available(), reason="beside a GPU the kernels are compiled, for its tensors alone"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPSILON = {torch.float64: 2**-53, torch.float32: 2**-14}  # as `ExactFilter`
# Both factors of a product in TF32, rounded to 11 bits, and some roundings of float32.
TF32 = 2 * 2**-11 + 2**-16
HALVES = [torch.bfloat16, torch.float16]

Twins = Iterator[tuple[Tensor, Tensor, float, float]]  # own, theirs, rtol and atol


@pytest.fixture
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger blocks: in the interpreter a program costs the same whatever it does."""
    from crfrnn.triton_kernels import rows, segments

    monkeypatch.setattr(segments, "ROWS", 256)
    monkeypatch.setattr(rows, "ELEMENTS", 8192)


def problem(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, N, d) a few widths apart, rows and a gradient (B, N, L) in [0, 1), strided."""
    batch, num_pixels, labels = case.batch, math.prod(case.shape), case.num_labels
    features = random_features(batch, num_pixels, case.channels)
    v, grad = (random_rows(batch, num_pixels, n)[..., :labels] for n in (labels, labels + 1))
    features, v, grad = (x.mT.contiguous().mT.to(DEVICE) for x in (features, v, grad))
    sums = torch.promote_types(dtype, torch.float32)
    return features.to(sums), v.to(dtype), grad.to(dtype)


# the kernels and their twins


def lattice(
    case: Case, dtype: torch.dtype = torch.float64, accuracy: LatticeAccuracyName = "standard"
) -> Twins:
    """The tables, the filter both ways, and the gradient to the weights."""
    (features, v, grad), numbers = problem(case, dtype), named(accuracy)
    own, own_rank = gpu_lattice.build_lattice(features, numbers)
    theirs, rank = plain.build_lattice(features, numbers)
    yield own_rank, rank, 0, 0
    for a, b in zip(own, split_segments(theirs, gpu_lattice.SEGMENT), strict=True):
        # The compiler fuses a multiply-add where PyTorch rounds twice: the rounding of a
        # coordinate of some 10 cells.
        yield a, b, 0, 100 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
    # As ROUNDINGS, in units of the dtype of the sums; and one of the result.
    rounding = 100 * torch.finfo(features.dtype).eps
    of_result = torch.finfo(dtype).eps if dtype in HALVES else 0
    precise, precise_grad = v.to(features.dtype), grad.to(features.dtype)
    for way in (False, True):
        filtered = plain.lattice_filter(theirs, precise, numbers, transposed=way)
        twin = gpu_lattice.lattice_filter(own, v, numbers, transposed=way)
        yield twin, filtered.to(dtype), rounding + of_result, 0
    yield (
        gpu_lattice.lattice_weights_grad(own, v, grad, numbers, transposed=False),
        plain.lattice_weights_grad(theirs, precise, precise_grad, numbers, transposed=False),
        case.num_labels * rounding,
        0,
    )


# Sums of at most 71 non-negative terms, twice: in float64, 200 roundings of 2^-53 are 2e-14. In
# half precision the rows' own rounding, for each of two axes and for what the band leaves out.
SPATIAL = dict(zip((torch.float64, torch.float32, *HALVES),
                   (1e-12, ROUNDINGS, 3 * 2**-8, 3 * 2**-11), strict=True))  # fmt: skip


def spatial(
    case: Case, dtype: torch.dtype = torch.float64, widths: Sequence[float] = (2.9, 1.3, 0.6)
) -> Twins:
    """The filter and the gradient of theta, beside the plain ones in float64."""
    features, v, grad = problem(case, dtype)
    theta = features.new_tensor(widths[: len(case.shape)])
    own = gpu_separable.separable_filter(theta, v, case.shape)
    own_grad = gpu_separable.separable_theta_grad(theta, v, grad, case.shape)
    assert (own.dtype, own_grad.dtype) == (v.dtype, theta.dtype)
    t, x, g, own, own_grad = (x.double().cpu() for x in (theta, v, grad, own, own_grad))
    yield own, plain.separable_filter(t, x, case.shape), SPATIAL[dtype], 0
    yield own_grad, plain.separable_theta_grad(t, x, g, case.shape), SPATIAL[dtype], 0


def exact_sum(case: Case, dtype: torch.dtype = torch.float64) -> Twins:
    """The filter and the gradient of the features, of rows of both signs."""
    features, v, grad = problem(case, dtype)
    v, grad = v - 0.5, grad - 0.5
    # Some hundred terms of at most one in another order, and what epsilon leaves out.
    yield filtered(features, v), plain.exact_filter(features, v), 0, 1e-13
    # Likewise, of terms up to L times as large.
    own, theirs = features_grad(features, v, grad), plain_features_grad(features, v, grad)
    yield own, theirs, 0, case.num_labels * 1e-12


def filtered(features: Tensor, v: Tensor, epsilon: float | None = None) -> Tensor:
    """By the kernels, as `ExactFilter` calls them on a GPU."""
    epsilon = EPSILON[features.dtype] if epsilon is None else epsilon
    return gpu_exact.exact_filter(features, v, gpu_exact.exact_order(features), epsilon)


def features_grad(features: Tensor, v: Tensor, grad: Tensor) -> Tensor:
    order = gpu_exact.exact_order(features)
    own = gpu_exact.exact_features_grad(features, v, grad, order, EPSILON[features.dtype])
    return own


def plain_features_grad(features: Tensor, v: Tensor, grad: Tensor) -> Tensor:
    """In plain PyTorch, in float64."""
    features, v, grad = features.double(), v.double(), grad.double()

    def kernel(x: Tensor) -> Tensor:
        return plain.exact_filter(features, x)

    return gaussian_features_grad(kernel, kernel, features, v, grad)


KERNELS: dict[str, Callable[..., Twins]] = {
    "lattice": lattice, "spatial": spatial, "exact": exact_sum,
}  # fmt: skip
# More than one block of rows (32, 128), of pieces (16) and of labels (16 to 64), with ragged ends.
LARGE = [
    Case(shape=(71,), batch=1, num_labels=2),
    Case(shape=(35, 18), batch=1, num_labels=1),
    Case(shape=(300,), num_labels=2, channels=3),
    Case(shape=(20,), batch=1, num_labels=2, channels=16),
]


def assert_twins(pairs: Twins) -> None:
    for own, theirs, rtol, atol in pairs:
        torch.testing.assert_close(own, theirs, rtol=rtol, atol=atol)


@needs_interpreter
@pytest.mark.usefixtures("_few_programs")
@pytest.mark.parametrize("kernel", KERNELS)
@property_of(*LARGE)
def test_every_shape_is_the_plain_one(kernel: str, case: Case) -> None:
    assert_twins(KERNELS[kernel](case))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("kernel", [pytest.param("lattice", marks=needs_interpreter), "spatial"])
def test_rows_of_every_precision_are_summed_in_single(kernel: str, dtype: torch.dtype) -> None:
    """In blocks as on the GPU."""
    for labels in (3, 70) if dtype == torch.float32 else (3,):
        assert_twins(KERNELS[kernel](Case(shape=(10, 4), num_labels=labels), dtype))


@pytest.mark.parametrize(
    "case", [Case(shape=(60,), batch=3, num_labels=21, channels=8),
             Case(shape=(30,), batch=1, num_labels=256), *LARGE[2:]], ids=str
)  # fmt: skip
def test_the_exact_sum_of_single_precision_is_within_its_bound(case: Case) -> None:
    """df_i = sum_j k_ij (f_j - f_i) (g_i . v_j + v_i . g_j): v, g and the weights are rounded."""
    features, v, grad = problem(case, torch.float32)
    v, grad = v - 0.5, grad - 0.5
    f, size_v, size_grad = features.double(), v.double().abs(), grad.double().abs()
    error = filtered(features, v).double() - plain.exact_filter(f, v.double())
    assert (error.abs() <= TF32 * plain.exact_filter(f, size_v)).all()
    error = features_grad(features, v, grad).double() - plain_features_grad(features, v, grad)
    difference = f[:, None] - f[:, :, None]
    products = size_grad @ size_v.transpose(1, 2) + size_v @ size_grad.transpose(1, 2)
    weight = (-0.5 * difference.square().sum(-1)).exp() * products
    bound = 1.5 * TF32 * (weight[..., None] * difference.abs()).sum(2)
    # And features of some ten widths in 22 bits.
    assert (error.abs() <= bound + 10 * 2**-22 * weight.sum(2)[..., None]).all()


# the lattice


@needs_interpreter
@pytest.mark.usefixtures("_few_programs")
def test_the_fine_lattice_and_lists_longer_than_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_twins(lattice(Case(shape=(30,), batch=1), accuracy="fine"))
    monkeypatch.setattr(gpu_lattice, "SEGMENT", 7)
    assert_twins(lattice(Case(shape=(150,), batch=1, channels=1)))


@needs_interpreter
# NumPy tells of a number that is none as it becomes an integer.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_overflow_is_an_error() -> None:
    for far in ([1e5] * 5, [math.nan] * 2):
        with pytest.raises(LatticeOverflowError, match="theta is too small"):
            gpu_lattice.build_lattice(torch.tensor([[[0.0] * len(far), far]]), named("standard"))


# the spatial Gaussian


@pytest.mark.parametrize("width", [0.3, 8.0, 100.0])
def test_the_band_is_as_wide_as_theta_asks(width: float) -> None:
    """From narrower than a pixel to wider than the grid."""
    assert_twins(spatial(Case(shape=(70,), batch=1, num_labels=2), widths=[width]))


@pytest.mark.parametrize("lacks", ["triton", "float64"])
def test_without_a_kernel_dense_matrices_and_plain_lines_serve(monkeypatch, lacks) -> None:
    if lacks == "triton":
        monkeypatch.setattr(triton_kernels, "available", lambda: False)
    monkeypatch.setattr("crfrnn.triton_kernels.separable.DTYPES", (torch.float32,))
    monkeypatch.setattr("crfrnn.triton_kernels.separable.correlate", None)
    for shape in ((1,), (4, 3), (2, 3, 5)):
        assert_twins(spatial(Case(shape=shape)))
    monkeypatch.setattr(gpu_separable, "LONGEST", 3)
    assert_twins(spatial(Case(shape=(4, 3))))


# the exact sum


def test_chunks_of_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crfrnn.triton_kernels.exact.CHUNK", 2)
    monkeypatch.setattr("crfrnn.triton_kernels.exact_grad.CHUNK", 2)
    assert_twins(exact_sum(Case(shape=(150,), batch=1, num_labels=2)))


def test_far_pixels_are_skipped_and_what_is_no_number_arrives() -> None:
    """128 pixels around the origin and 128 a hundred widths away, mixed."""
    features = (random_features(1, 256, 3).double() / 4).to(DEVICE)
    features[:, 1::2] += 100
    v = random_rows(1, 256, 2).double().to(DEVICE)
    expected = plain.exact_filter(features, v)
    torch.testing.assert_close(filtered(features, v), expected, rtol=1e-13, atol=0)
    # What is not read cannot harm: 0 times NaN would be NaN.
    v[:, 1::2] = math.nan
    torch.testing.assert_close(filtered(features, v)[:, ::2], expected[:, ::2], rtol=1e-13, atol=0)
    assert features_grad(features, v, v)[:, ::2].isfinite().all()
    features[:, 5] = math.nan
    assert filtered(features, v)[:, 5].isnan().all()
    for bits in (0x7FC00000, 0x7FFFFFFF, -1):  # a rounding in integers would make some of them 0
        row = torch.tensor([[[bits]]], dtype=torch.int32).view(torch.float32).to(DEVICE)
        assert filtered(torch.zeros_like(row), row).isnan().all()
        assert features_grad(torch.zeros_like(row), row, row).isnan().all()


def test_what_is_skipped_is_below_epsilon() -> None:
    """Of mean |v|, and only where the kernel is below epsilon / N: 2 ln(256 / 0.1) = 3.96^2."""
    v = random_rows(1, 256, 2).double().to(DEVICE)
    for distance in (3.9, 4.0):
        features = torch.zeros(1, 256, 2, dtype=torch.float64, device=DEVICE)
        features[:, 128:, 1] = distance
        error = filtered(features, v, epsilon=0.1) - plain.exact_filter(features, v)
        assert (error.abs() <= 0.1 * v.mean(1, keepdim=True)).all()
        # Half of the pixels, each with a kernel of exp(-8).
        assert bool((error.abs() > 0.01).all()) == (distance == 4)


def test_an_image_is_the_same_in_any_batch_and_in_half_precision() -> None:
    case = problem(Case(shape=(150,), batch=3, channels=5), torch.bfloat16)
    features, v, grad = case
    own, learnt = filtered(features, v), features_grad(features, v, grad)
    f, x, g = (tensor[1:2] for tensor in case)
    assert torch.equal(own[1:2], filtered(f, x))
    assert torch.equal(learnt[1:2], features_grad(f, x, g))
    assert torch.equal(own, filtered(features, v.float()).bfloat16())
    assert torch.equal(learnt, features_grad(features, v.float(), grad.float()))
    # Sizes that no kernel takes.
    for batch, num_pixels, labels, dim in ((1, 4, 2, 17), (1, 4, 2, 0), (1, 4, 0, 3)):
        f, x = torch.rand(batch, num_pixels, dim), torch.rand(batch, num_pixels, labels)
        plain_sum = ExactFilter(f)(x)
        assert torch.equal(gpu_exact.exact_filter(f, x, plain.exact_order(f), 0.0), plain_sum)


# whole layers and updates


@needs_interpreter
@pytest.mark.usefixtures("_few_programs")
@pytest.mark.parametrize(
    ("num_labels", "normalization", "options"),
    [
        (3, "symmetric", {"learn_theta": True, "features_gradient": "lattice"}),
        (1, "after", {"learn_theta": True, "num_iterations": 1}),
        (3, "none", {"spatial_filter": "lattice", "theta_gamma": 2.0}),
        (21, "before", {"learn_theta": True, "num_iterations": 1}),
        (3, "after", {"inference": MeanField(storage="bfloat16")}),
        (3, "after", {"inference": MeanField(storage="float16")}),
    ],
)
def test_a_layer_over_the_kernels_is_the_plain_one(num_labels, normalization, options) -> None:
    everything: dict[str, Any] = {
        "kernel_weights": "matrix", "compatibility": "full", "num_iterations": 2,
        "theta_alpha": 3.0, "theta_beta": 60.0, "normalization": normalization,
    }  # fmt: skip
    options = everything | options
    layers = [CrfRnn(num_labels, implementation=x, **options) for x in ("plain", "gpu")]
    unary, image = 3 * torch.randn(2, num_labels, 4, 5), 1 + 253 * torch.rand(2, 3, 4, 5)
    direction = torch.randn_like(unary)
    leaves = unary.requires_grad_(), image.requires_grad_()

    def results(crf: CrfRnn) -> list[Tensor]:
        logits = crf(*leaves)
        with torch.no_grad():
            without_gradients = crf(*leaves)
        learnt = [*leaves, *(p for p in crf.parameters() if p.requires_grad)]
        grads = torch.autograd.grad((logits * direction).sum(), learnt)
        return [logits, without_gradients, *grads]

    expected, own = map(results, layers)
    # Two updates and their gradients of ROUNDINGS each, as in test_cpu.py. In half precision
    # each update rounds q and the messages, differently where a value is near the middle of two,
    # and its gradient reads both again: eight roundings.
    storage = STORAGE[options["inference"].storage] if "inference" in options else torch.float32
    rounding = max(100 * ROUNDINGS, 8 * torch.finfo(storage).eps)
    for a, b in zip(own, expected, strict=True):
        scale = max(b.abs().max().item(), 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=rounding * scale)


# without a GPU: shapes alone, and the compiler


def test_cuda_tensors_take_the_operators_of_the_gpu() -> None:
    with FakeTensorMode(shape_env=ShapeEnv()):
        features = torch.empty(2, 600, 5, device="cuda")
        spatial = SeparableFilter(torch.empty(2, device="cuda"), (20, 30))
        lattice, valid = LatticeFilter(features), torch.empty(2, 600, 1, device="cuda")
        kernels = [Normalized(own, "after", valid) for own in (spatial, lattice)]
        segments = Lattice(*lattice.tables).splat_segments
        assert type(segments.shape[0]) is not int, "one for each vertex, however many"
        for labels, served in ((21, True), (65, False)):  # too many for the registers
            rows = torch.empty(2, 600, labels, device="cuda")
            penalties = [torch.empty(labels, labels, device="cuda")] * 2
            updated = fused_updates(None, rows, kernels, penalties, 3, storage="bfloat16")
            assert (updated is not None) == served
            assert updated is None or updated.shape == rows.shape


def test_every_kernel_compiles(tmp_path: Path) -> None:
    # In a process of its own: here Triton's kernels are interpreted.
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # Whether a multiply and an add are fused: Triton warns where nothing is said.
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    out = tmp_path / "kernels.json"
    command = [sys.executable, "-m", "benchmarks.kernels", "--out", str(out)]
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True)
    sources = (REPOSITORY / "crfrnn" / "triton_kernels").glob("[a-z]*.py")
    kernels = {name for x in sources for name in re.findall(r"def (\w+_kernel)\(", x.read_text())}
    assert {row["kernel"] for row in json.loads(out.read_text())["kernels"]} == kernels
