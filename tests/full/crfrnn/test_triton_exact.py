"""The exact filter's Triton kernels beside plain PyTorch; in the interpreter without a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crfrnn.filtering import ExactFilter, cuda_exact, exact
from crfrnn.filtering.morton import morton_order
from crfrnn.filtering.ops import gaussian_features_grad
from tests.crfrnn.native_path import random_features, random_rows
from tests.crfrnn.test_properties import Case, property_of
from tests.full.crfrnn.triton_path import needs_interpreter, needs_triton

pytestmark = needs_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPSILON = {torch.float64: 2**-53, torch.float32: 2**-14}  # as `ExactFilter`
# Both factors of a product in TF32, rounded to 11 bits, and some roundings of float32.
TF32 = 2 * 2**-11 + 2**-16

# B, N, L, d: one of everything; more than one block of receivers (128), with a ragged end; more
# than one block of labels (16 to 64); moments of more than one block (16).
CASES = [
    (1, 1, 1, 1),
    (2, 7, 3, 5),
    (3, 60, 21, 8),
    (1, 30, 256, 2),
    (2, 300, 2, 3),
    (1, 20, 2, 16),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def problem(case: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, N, d) a few widths apart, v of both signs and a gradient (B, N, L)."""
    batch, num_pixels, labels, dim = case
    v, grad = (random_rows(batch, num_pixels, n)[..., :labels] - 0.5 for n in (labels, labels + 1))
    features = random_features(batch, num_pixels, dim)
    return features.to(DEVICE, dtype), v.to(DEVICE, dtype), grad.to(DEVICE, dtype)


def filtered(features: Tensor, v: Tensor, epsilon: float | None = None) -> Tensor:
    """By the kernels, as `ExactFilter` calls them on a GPU."""
    epsilon = EPSILON[features.dtype] if epsilon is None else epsilon
    return cuda_exact.exact_filter(features, v, cuda_exact.exact_order(features), epsilon)


def features_grad(features: Tensor, v: Tensor, grad: Tensor) -> Tensor:
    """By the kernels, likewise."""
    order = cuda_exact.exact_order(features)
    own = cuda_exact.exact_features_grad(features, v, grad, order, EPSILON[features.dtype])
    assert own is not None
    return own


def plain_features_grad(features: Tensor, v: Tensor, grad: Tensor) -> Tensor:
    """In plain PyTorch, in float64."""
    features, v, grad = features.double(), v.double(), grad.double()

    def kernel(x: Tensor) -> Tensor:
        return exact.exact_filter(features, x)

    return gaussian_features_grad(kernel, kernel, features, v, grad)


# order


def test_the_order_follows_the_curve() -> None:
    """Two axes: their bits take turns, the second axis' above; and each image has its own."""
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    shuffled = square[[3, 0, 2, 1]]
    order = morton_order(torch.stack([square, shuffled]))
    assert order.tolist() == [[0, 1, 2, 3], [1, 3, 2, 0]]


# the sum


@every_case
def test_filter_and_gradient_are_the_plain_ones(case: tuple[int, int, int, int]) -> None:
    features, v, grad = problem(case, torch.float64)
    # Some hundred terms of at most one in another order, and what epsilon leaves out.
    torch.testing.assert_close(
        filtered(features, v), exact.exact_filter(features, v), rtol=0, atol=1e-13
    )
    # Likewise, of terms up to L times as large.
    torch.testing.assert_close(
        features_grad(features, v, grad),
        plain_features_grad(features, v, grad),
        rtol=0,
        atol=case[2] * 1e-12,
    )


@needs_interpreter
@property_of()
def test_every_shape_is_the_plain_one(case: Case) -> None:
    sizes = (case.batch, math.prod(case.shape), case.num_labels, case.channels)
    test_filter_and_gradient_are_the_plain_ones(sizes)


def test_factors_are_rounded_to_what_a_tensor_core_takes() -> None:
    """To 11 bits, and the nearest such number: what the core cuts off then has no sign."""
    v = random_rows(1, 1, 100).to(DEVICE)
    rounded = filtered(torch.zeros(1, 1, 1, device=DEVICE), v)
    assert ((rounded - v).abs() <= 2**-12 * torch.exp2(v.log2().floor() + 1)).all()
    features = (
        torch.linspace(0, 2, 9, device=DEVICE)[:, None, None] * torch.eye(2, device=DEVICE)[:, :1]
    )
    one = torch.tensor([[1.0], [0.0]], device=DEVICE).expand(9, -1, -1)
    kernels = filtered(features, one, epsilon=0)[:, 1]
    assert ((kernels - exact.exact_filter(features, one)[:, 1]).abs() <= 2**-12 + 2**-20).all()
    for result in (rounded, kernels):
        assert (result.view(torch.int32) & 0x1FFF == 0).all()


def test_chunks_of_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from crfrnn.triton_kernels import exact as kernels
    from crfrnn.triton_kernels import exact_grad

    features, v, grad = problem((1, 150, 2, 2), torch.float64)
    whole = filtered(features, v), features_grad(features, v, grad)
    monkeypatch.setattr(kernels, "CHUNK", 2)
    monkeypatch.setattr(exact_grad, "CHUNK", 2)
    cut = filtered(features, v), features_grad(features, v, grad)
    # Some hundred float64 additions in another order.
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)


@every_case
def test_single_precision_is_within_its_bound(case: tuple[int, int, int, int]) -> None:
    """df_i = sum_j k_ij (f_j - f_i) (g_i . v_j + v_i . g_j): v, g and the weights are rounded."""
    features, v, grad = problem(case, torch.float32)
    f, size_v, size_grad = features.double(), v.double().abs(), grad.double().abs()
    error = filtered(features, v).double() - exact.exact_filter(f, v.double())
    assert (error.abs() <= TF32 * exact.exact_filter(f, size_v)).all()
    error = features_grad(features, v, grad).double() - plain_features_grad(features, v, grad)
    difference = f[:, None] - f[:, :, None]
    kernel = (-0.5 * difference.square().sum(-1)).exp()
    products = size_grad @ size_v.transpose(1, 2) + size_v @ size_grad.transpose(1, 2)
    weight = kernel * products
    bound = 1.5 * TF32 * (weight[..., None] * difference.abs()).sum(2)
    # And features of some ten widths in 22 bits.
    assert (error.abs() <= bound + 10 * 2**-22 * weight.sum(2)[..., None]).all()


# skipping


def two_clusters() -> tuple[Tensor, Tensor]:
    """128 pixels around the origin and 128 a hundred widths away, mixed; v of them."""
    features = random_features(1, 256, 3).double() / 4
    features[:, 1::2] += 100
    return features.to(DEVICE), random_rows(1, 256, 2).double().to(DEVICE)


def test_far_pixels_are_skipped_and_the_sum_is_the_same() -> None:
    features, v = two_clusters()
    expected = exact.exact_filter(features, v)
    torch.testing.assert_close(filtered(features, v), expected, rtol=1e-13, atol=0)
    # What is not read cannot harm: 0 times NaN would be NaN.
    v[:, 1::2] = math.nan
    torch.testing.assert_close(filtered(features, v)[:, ::2], expected[:, ::2], rtol=1e-13, atol=0)
    assert features_grad(features, v, v)[:, ::2].isfinite().all()


@pytest.mark.parametrize(("distance", "skipped"), [(3.9, False), (4.0, True)])
def test_what_is_skipped_is_below_epsilon(distance: float, skipped: bool) -> None:
    """Of mean |v|, and only where the kernel is below epsilon / N: 2 ln(256 / 0.1) = 3.96^2."""
    features = torch.zeros(1, 256, 2, dtype=torch.float64, device=DEVICE)
    features[:, 128:, 1] = distance
    v = random_rows(1, 256, 2).double().to(DEVICE)
    order = exact.exact_order(features)
    error = cuda_exact.exact_filter(features, v, order, 0.1) - exact.exact_filter(features, v)
    assert (error.abs() <= 0.1 * v.mean(1, keepdim=True)).all()
    # Half of the pixels, each with a kernel of exp(-8).
    assert bool((error.abs() > 0.01).all()) == skipped


def test_features_that_are_no_numbers_are_not_skipped() -> None:
    features, v = two_clusters()
    features[:, 5] = math.nan
    assert filtered(features, v)[:, 5].isnan().all()
    single = filtered(features.float(), v.float())
    assert single[:, 5].isnan().all()


def test_rows_that_are_no_numbers_arrive() -> None:
    """With every bit pattern: a rounding in integers would make some of them 0."""
    patterns = torch.tensor([0x7FC00000, 0x7FFFFFFF, -1], dtype=torch.int32)
    v = patterns.view(torch.float32)[None, :, None].to(DEVICE)
    features = torch.zeros(1, 3, 1, device=DEVICE)
    for l in range(3):
        row = torch.zeros_like(v)
        row[:, l] = v[:, l]
        assert filtered(features, row).isnan().all()
        assert features_grad(features, row, row).isnan().all()


# batches, dtypes, layouts


def test_an_image_is_the_same_in_any_batch() -> None:
    features, v, grad = problem((3, 150, 3, 5), torch.float32)
    alone = filtered(features[1:2], v[1:2])
    assert torch.equal(filtered(features, v)[1:2], alone)
    alone = features_grad(features[1:2], v[1:2], grad[1:2])
    assert torch.equal(features_grad(features, v, grad)[1:2], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_summed_in_single(dtype: torch.dtype) -> None:
    features, v, grad = problem((1, 60, 5, 3), torch.float32)
    v, grad = v.to(dtype), grad.to(dtype)
    result = filtered(features, v)
    assert result.dtype == dtype
    precise = filtered(features, v.float())
    assert torch.equal(result, precise.to(dtype))
    learnt = features_grad(features, v, grad)
    assert learnt.dtype == torch.float32
    assert torch.equal(learnt, features_grad(features, v.float(), grad.float()))


def test_layout_does_not_matter() -> None:
    features, v, grad = problem((2, 40, 3, 5), torch.float64)

    def transposed(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous().transpose(1, 2)

    assert torch.equal(filtered(transposed(features), transposed(v)), filtered(features, v))
    expanded = grad[:, :1, :1].expand_as(grad)  # stride 0, as a gradient of a sum arrives
    assert torch.equal(
        features_grad(transposed(features), transposed(v), expanded),
        features_grad(features, v, expanded.contiguous()),
    )


# what the kernels do not serve


@pytest.mark.parametrize("sizes", [(1, 4, 2, 17), (1, 4, 2, 0), (1, 4, 0, 3), (0, 4, 2, 3)])
def test_other_sizes_are_the_plain_sum(sizes: tuple[int, int, int, int]) -> None:
    batch, num_pixels, labels, dim = sizes
    features, v = torch.rand(batch, num_pixels, dim), torch.rand(batch, num_pixels, labels)
    order = exact.exact_order(features)
    assert not cuda_exact.serves(features, v)
    if batch:
        assert torch.equal(
            cuda_exact.exact_filter(features, v, order, 0.0), ExactFilter(features)(v)
        )
    assert cuda_exact.exact_features_grad(features, v, v, order, 0.0) is None
