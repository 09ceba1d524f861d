"""The mistakes that other dense CRFs make, or made: one test each, by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from crfrnn import CrfRnn
from crfrnn.filtering import (
    ExactFilter,
    Filter,
    LatticeFilter,
    LatticeOverflowError,
    Normalized,
    SeparableFilter,
    WindowFilter,
    lattice,
)
from crfrnn.filtering.lattice import LatticeAccuracy
from crfrnn.importers import from_crfasrnn
from crfrnn.kernels import KernelConfig, positions
from tests.crfrnn.small_layers import assert_gradients, random_inputs, small_crf

SHAPE = (5, 4)
NUM_PIXELS = 20


def every_filter(dtype: torch.dtype = torch.float64) -> list[Filter]:
    """One image, features of five dimensions where there are any."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(NUM_PIXELS, 3, generator=generator, dtype=dtype)
    place = positions(SHAPE, torch.empty((), dtype=dtype)) / 2
    features = torch.cat([place, colours], dim=1)[None]
    return [
        ExactFilter(features),
        WindowFilter(features, SHAPE, radius=2),
        SeparableFilter(torch.tensor([1.0, 2.0], dtype=dtype), SHAPE),
        LatticeFilter(features),
        LatticeFilter(features, "fine"),
    ]


def written_out(operator: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrix of a linear map on the rows of one image, (N, N), column by column."""
    unit = torch.eye(NUM_PIXELS, dtype=torch.float64)
    return operator(unit[None])[0]


def test_trap_01_after_normalised_backward_is_the_true_transpose() -> None:
    """Backward of D^-1 K is K' D^-1, where four public implementations apply D^-1 K'."""
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=torch.float64)
    for kernel in every_filter():
        matrix = written_out(kernel)
        expected = (matrix / matrix.sum(1, keepdim=True)).t()
        v = torch.zeros(1, NUM_PIXELS, NUM_PIXELS, dtype=torch.float64, requires_grad=True)

        def backward(grad: Tensor, kernel: Filter = kernel, v: Tensor = v) -> Tensor:
            out = Normalized(kernel, "after", ones)(v)
            return torch.autograd.grad(out, v, grad)[0]

        # The same few products in another order.
        torch.testing.assert_close(written_out(backward), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("bilateral_filter", "features_gradient"),
    [
        ("lattice", "gaussian"),
        ("lattice", "lattice"),
        ("exact", "gaussian"),
        ("window", "gaussian"),
    ],
)
def test_trap_02_image_and_guide_receive_a_gradient(
    bilateral_filter: Any, features_gradient: str
) -> None:
    unary, image = random_inputs()
    guide = torch.rand(2, 2, 7, 6, dtype=torch.float64)
    crf = small_crf(
        theta_beta=150.0,
        bilateral_filter=bilateral_filter,
        learn_theta=True,
        further_kernels={"embedding": KernelConfig(theta_guide=0.5, filter=bilateral_filter)},
    )
    out = crf(unary, image.requires_grad_(), {"embedding": guide.requires_grad_()})
    out.square().sum().backward()
    for leaf in (image, guide, *crf.parameters()):
        assert leaf.grad is not None
        assert (leaf.grad != 0).all()


def test_trap_03_the_lattice_is_built_once_per_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built once, it serves every iteration and the backward pass (22 builds in one package)."""
    builds: list[int] = []
    original = lattice.build_lattice

    def counting(features: Tensor, accuracy: LatticeAccuracy) -> tuple[lattice.Lattice, Tensor]:
        builds.append(1)
        return original(features, accuracy)

    monkeypatch.setattr(lattice, "build_lattice", counting)
    unary, image = random_inputs()
    crf = CrfRnn(3, num_iterations=5, learn_theta=True)
    crf(unary.requires_grad_(), image.requires_grad_()).sum().backward()
    assert len(builds) == 1


def test_trap_04_keys_are_wide_or_refused() -> None:
    """16-bit keys that wrap are a memory error of the most used package."""
    # Clusters 1, 2, ... times 2^16 cells apart, of sqrt(3)/2 each: 16 bits make them one.
    cluster = torch.rand(6, 1, dtype=torch.float64)
    offsets = [k * 2**16 * math.sqrt(3) / 2 for k in range(5)]
    far = torch.cat([cluster + offset for offset in offsets])[None]
    v = torch.rand(1, 30, 2, dtype=torch.float64)
    together = LatticeFilter(far)(v).split(6, dim=1)  # type: ignore[no-untyped-call]
    for part, rows, offset in zip(together, v.split(6, dim=1), offsets, strict=True):  # type: ignore[no-untyped-call]
        alone = LatticeFilter(cluster[None] + offset)(rows)
        torch.testing.assert_close(part, alone, rtol=1e-12, atol=1e-12)
    with pytest.raises(LatticeOverflowError, match="theta is too small"):
        LatticeFilter(torch.tensor([[[0.0] * 5, [1e5] * 5]]))


def test_trap_05_only_the_tensors_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a GPU exists is not asked."""

    def asked() -> bool:
        raise AssertionError("asked whether a GPU exists")

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.cuda, "device_count", asked)
    unary, image = random_inputs()
    out = small_crf(learn_theta=True)(unary.requires_grad_(), image.requires_grad_())
    out.sum().backward()
    assert out.device == unary.device


def test_trap_06_every_label_count_works() -> None:
    """1 .. 257: no count is compiled in, none is padded to."""
    for kernel in every_filter(torch.float32)[2:4]:  # separable and lattice, the defaults
        v = torch.rand(1, NUM_PIXELS, 257)
        whole = kernel(v)
        for num_labels in (*range(1, 34), 63, 64, 65, 150, 255, 256):
            # Labels do not mix; vector units of another width round differently.
            few = kernel(v[..., :num_labels])
            torch.testing.assert_close(few, whole[..., :num_labels], rtol=1e-5, atol=1e-5)
    image = torch.rand(1, 3, 3, 2) * 255
    for num_labels in (1, 2, 8, 9, 64, 65, 257):
        unary = torch.randn(1, num_labels, 3, 2, requires_grad=True)
        out = CrfRnn(num_labels)(unary, image)
        out.square().sum().backward()
        assert out.shape == unary.shape
        assert unary.grad is not None
        assert out.isfinite().all()
        assert unary.grad.isfinite().all()


def test_trap_07_one_layer_takes_any_batch_and_grid() -> None:
    crf = small_crf().float()
    for batch, height, width in ((1, 7, 6), (3, 4, 9), (2, 1, 5), (5, 9, 4)):
        unary, image = (x.float() for x in random_inputs(batch, 3, height, width))
        together = crf(unary, image)
        alone = [crf(u[None], i[None]) for u, i in zip(unary, image, strict=True)]
        assert torch.equal(together, torch.cat(alone))


def test_trap_08_dtype_and_axes_are_read_as_they_are() -> None:
    """NCHW read as NHWC mixes channels with pixels: then none of these holds."""
    unary, image = random_inputs(height=4, width=6)
    crf = small_crf(bilateral_filter="exact")
    expected = crf(unary, image)
    # theta is the same for both axes, so the grid may be turned.
    torch.testing.assert_close(crf(unary.mT, image.mT).mT, expected)
    torch.testing.assert_close(crf(unary, image.flip(1)), expected)  # distances of colours
    for convert in (
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.float().double(),
        lambda x: x[..., None].repeat(1, 1, 1, 1, 2)[..., 1],
    ):
        other: Tensor = crf(convert(unary), convert(image))  # type: ignore[no-untyped-call]
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)  # float32 in one case
    # float32 and half go in and out as such.
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = crf(unary.to(dtype), image)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, rtol=0.1, atol=0.1)  # of bfloat16


def test_trap_09_inputs_are_not_modified() -> None:
    unary, image = random_inputs()
    guide = torch.rand(2, 2, 7, 6, dtype=torch.float64)
    mask = torch.rand(2, 7, 6) > 0.3
    inputs = [unary, image, guide, mask]
    before = [x.clone() for x in inputs]
    for filters in ("lattice", "exact", "window"):
        further = {"embedding": KernelConfig(1.0, 0.5, filter=filters)}
        crf = small_crf(bilateral_filter=filters, further_kernels=further, learn_theta=True)
        leaves = [x.detach().requires_grad_() for x in inputs[:3]]  # share their memory
        crf(leaves[0], leaves[1], {"embedding": leaves[2]}, mask).sum().backward()
        for x, copy in zip(inputs, before, strict=True):
            assert torch.equal(x, copy)


def test_trap_10_the_image_is_the_image() -> None:
    unary, image = random_inputs()
    whole = image.to(torch.uint8)
    mean = torch.tensor([123.7, 116.8, 103.9], dtype=torch.float64).view(3, 1, 1)
    for wrong in (whole - mean, whole / 255, (whole / 255 - 0.45) / 0.225):
        with pytest.raises(ValueError, match=r"image must be in 0\.\.255"):
            CrfRnn(3)(unary, wrong)
    with pytest.raises(TypeError, match="uint8 or floating point"):
        CrfRnn(3)(unary, whole.to(torch.int8))
    # Differences of uint8 wrap: 10 and 250 would be as near as 10 and 26.
    crf = small_crf(theta_beta=20.0)
    assert torch.equal(crf(unary, whole), crf(unary, whole.double()))


@pytest.mark.parametrize("spatial_filter", ["separable", "window"])
def test_trap_11_the_self_message_alone_is_removed(spatial_filter: str) -> None:
    """One package removes the whole row and column of a pixel."""
    _, image = random_inputs(1, height=5, width=4)
    options: dict[str, Any] = {
        "spatial_filter": spatial_filter, "bilateral_filter": "exact", "normalization": "none",
    }  # fmt: skip
    with_self = small_crf(**options).potentials.build_kernels(image)
    without = small_crf(self_term=False, **options).potentials.build_kernels(image)
    unit = torch.eye(NUM_PIXELS, dtype=torch.float64)
    for kernel, other in zip(with_self, without, strict=True):
        torch.testing.assert_close(written_out(other), written_out(kernel) - unit)
        assert (written_out(other).diagonal() == 0).all()


def test_trap_12_the_first_message_is_of_probabilities() -> None:
    unary, image = random_inputs()
    crf = small_crf(num_iterations=1, kernel_weights="scalar", compatibility="potts")
    rows = unary.flatten(2).transpose(1, 2)
    spatial, bilateral = crf.potentials.build_kernels(image)
    weights = [crf.potentials.weight(name) for name in ("spatial", "bilateral")]
    q = rows.softmax(-1)
    messages = weights[0] * spatial(1 - q) + weights[1] * bilateral(1 - q)
    torch.testing.assert_close(crf(unary, image).flatten(2).transpose(1, 2), rows - messages)
    # log-probabilities change with what a softmax does not see.
    shift = torch.randn(2, 1, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(crf(unary + shift, image), crf(unary, image) + shift)


class BrokenFilter(Filter):
    """The exact sum, with the gradient of another: what a wrong backward looks like."""

    def __init__(self, features: Tensor, wrong: Callable[[Tensor], Tensor]) -> None:
        self.right, self.wrong = ExactFilter(features), wrong

    def __call__(self, v: Tensor) -> Tensor:
        wrong = self.wrong(v)
        return self.right(v).detach() + wrong - wrong.detach()

    def transpose(self, v: Tensor) -> Tensor:
        return self.right(v)


def wrong_transpose(features: Tensor) -> Filter:
    kernel = ExactFilter(features)
    degree = kernel(torch.ones_like(features[..., :1])).detach()
    return BrokenFilter(features, lambda v: kernel(v * degree) / degree)


BROKEN: dict[str, Callable[[Tensor], Filter]] = {
    "nothing to the features": lambda f: BrokenFilter(f, ExactFilter(f.detach())),
    "nothing to v": lambda f: BrokenFilter(f, lambda v: ExactFilter(f)(v.detach())),
    "the transpose of another": wrong_transpose,
    "slightly wrong": lambda f: BrokenFilter(f, ExactFilter(f * 1.005)),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_trap_13_gradient_checks_can_fail(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What test_gradients.py checks with finds each of these."""
    unary, image = random_inputs(batch=1, height=2, width=3)
    leaves = unary.requires_grad_(), image.requires_grad_()
    crf = small_crf(theta_beta=150.0, bilateral_filter="exact", learn_theta=True, num_iterations=1)
    assert_gradients(crf, *leaves)
    monkeypatch.setattr("crfrnn.kernels.ExactFilter", BROKEN[broken])
    with pytest.raises(GradcheckError):
        assert_gradients(crf, *leaves)


def test_trap_14_loading_is_strict() -> None:
    """A renamed layer would leave the CRF at its start."""
    name = "potentials.kernel_weights.bilateral.diagonal"
    for change in ("renamed", "missing", "of another shape"):
        state = CrfRnn(3).state_dict()
        value = state.pop(name)
        if change == "renamed":
            state["bilateral_ker_weights"] = value
        elif change == "of another shape":
            state[name] = value[:2]
        with pytest.raises(RuntimeError, match="bilateral"):
            CrfRnn(3).load_state_dict(state)
    theirs = {k: torch.eye(3) for k in ("spatial_ker_weights", "compatibility_matrix")}
    with pytest.raises(ValueError, match="state lacks bilateral_ker_weights"):
        from_crfasrnn(theirs)


@pytest.mark.parametrize("kernel_weights", ["scalar", "class", "matrix"])
def test_trap_15_a_start_at_the_identity_and_a_mix_with_the_unary(kernel_weights: Any) -> None:
    unary, image = random_inputs()
    crf = CrfRnn(3, spatial_weight=0.0, bilateral_weight=0.0, kernel_weights=kernel_weights)
    out = crf(unary, image)
    assert torch.equal(out, unary)
    out.square().sum().backward()
    for name in ("spatial", "bilateral"):  # and it can leave
        assert crf.potentials.weight(name).grad.abs().min() > 0  # type: ignore[union-attr]
    mixed = CrfRnn(3, unary_mixture=0.5, bilateral_weight=1000.0)
    floor = unary.softmax(1) / 2
    assert (mixed(unary, image).softmax(1) >= floor * (1 - 1e-12)).all()
    assert (mixed.eval()(unary, image).softmax(1) < floor * 0.9).any()
