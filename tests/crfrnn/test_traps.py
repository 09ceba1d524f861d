"""The mistakes that other dense CRFs make, or made: one test each, by number.

Of trap 8, half precision is in test_crf.py; of trap 4, what is refused in test_filtering.py. Trap
12, a first message that is not of probabilities, is in test_crf.py; trap 14, loading that is
not strict, in test_reference.py; images in other units than 0..255, of trap 10, in
test_bad_input.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from crfrnn import CrfRnn, plain
from crfrnn.filters import (
    NORMALIZATIONS,
    ExactFilter,
    Filter,
    LatticeFilter,
    Normalized,
    SeparableFilter,
    WindowFilter,
)
from crfrnn.kernels import KernelConfig, positions
from tests.crfrnn.problems import assert_gradients, random_inputs, small_crf

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


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_trap_01_the_transpose_and_the_backward_are_the_true_ones(normalization) -> None:
    """Of D^-1 K it is K' D^-1, where four public implementations apply D^-1 K'."""
    ones = torch.ones(1, NUM_PIXELS, 1, dtype=torch.float64)
    for kernel in every_filter():
        matrix = written_out(kernel)
        degree = matrix.sum(1)
        expected = {
            "none": matrix,
            "after": matrix / degree[:, None],
            "before": matrix / degree,
            "symmetric": matrix / (degree[:, None] * degree).sqrt(),
        }[normalization]
        normalized = Normalized(kernel, normalization, ones)
        v = torch.zeros(1, NUM_PIXELS, NUM_PIXELS, dtype=torch.float64, requires_grad=True)
        out = normalized(v)
        backward = written_out(lambda grad, out=out, v=v: torch.autograd.grad(out, v, grad)[0])  # type: ignore[misc]
        # The same few products in another order.
        for found in (written_out(normalized.transpose), backward):
            torch.testing.assert_close(found, expected.t(), rtol=1e-12, atol=1e-12)


def test_trap_02_image_and_guide_receive_a_gradient() -> None:
    """By default, which on a lattice is that of the Gaussian, and so not in test_gradients.py."""
    unary, image = random_inputs()
    guide = torch.rand(2, 2, 7, 6, dtype=torch.float64)
    further = {"embedding": KernelConfig(theta_guide=0.5)}
    crf = small_crf(theta_beta=150.0, learn_theta=True, further_kernels=further)
    out = crf(unary, image.requires_grad_(), {"embedding": guide.requires_grad_()})
    out.square().sum().backward()
    for leaf in (image, guide, *crf.parameters()):
        assert leaf.grad is not None
        assert (leaf.grad != 0).all()


def test_trap_03_and_05_one_lattice_per_forward_and_no_question_for_a_gpu(monkeypatch) -> None:
    """Built once, it serves every iteration and the backward pass (22 builds in one package)."""
    build, asked = Mock(wraps=plain.build_lattice), Mock(side_effect=AssertionError)
    monkeypatch.setattr(plain, "build_lattice", build)
    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.cuda, "device_count", asked)
    unary, image = random_inputs()
    crf = CrfRnn(3, num_iterations=5, learn_theta=True)
    crf(unary.requires_grad_(), image.requires_grad_()).sum().backward()
    assert build.call_count == 1


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


def test_trap_06_every_label_count_works() -> None:
    """1 .. 257: no count is compiled in, none is padded to. Layers: test_properties.py."""
    v = torch.rand(1, NUM_PIXELS, 257)
    for kernel in every_filter(torch.float32)[2:4]:  # separable and lattice, the defaults
        whole = kernel(v)
        for num_labels in (*range(1, 34), 63, 64, 65, 150, 256):
            # Labels do not mix; vector units of another width round differently.
            few = kernel(v[..., :num_labels])
            torch.testing.assert_close(few, whole[..., :num_labels], rtol=1e-5, atol=1e-5)


def test_trap_07_and_10_one_layer_takes_any_batch_and_grid_and_uint8() -> None:
    """Differences of uint8 wrap: 10 and 250 would be as near as 10 and 26."""
    crf = small_crf(theta_beta=20.0)
    for batch, height, width in ((1, 7, 6), (3, 4, 9), (2, 1, 5), (5, 9, 4)):
        unary, image = random_inputs(batch, 3, height, width)
        whole, out = image.to(torch.uint8), crf(unary, image)
        assert out.shape == unary.shape
        assert torch.equal(crf(unary, whole), crf(unary, whole.double()))


def test_trap_08_axes_are_read_as_they_are() -> None:
    """NCHW read as NHWC mixes channels with pixels: then none of these holds."""
    unary, image = random_inputs(height=4, width=6)
    crf = small_crf(bilateral_filter="exact")
    expected = crf(unary, image)
    # theta is the same for both axes, so the grid may be turned.
    torch.testing.assert_close(crf(unary.mT, image.mT).mT, expected)
    torch.testing.assert_close(crf(unary, image.flip(1)), expected)  # distances of colours
    last = (x.to(memory_format=torch.channels_last) for x in (unary, image))
    torch.testing.assert_close(crf(*last), expected)
    for kernel in every_filter():  # and gradients that are transposed, or have stride 0
        v = torch.rand(1, 3, NUM_PIXELS, dtype=torch.float64).mT.requires_grad_()
        compact, one = v.detach().contiguous(), v.new_ones(())
        torch.testing.assert_close(kernel(v), kernel(compact))
        for grad in (v.detach(), one.expand_as(v)):
            expanded = torch.autograd.grad(kernel(v), v, grad)[0]
            torch.testing.assert_close(expanded, kernel.transpose(grad.contiguous()))


def test_trap_09_inputs_are_not_modified() -> None:
    inputs = [*random_inputs(), torch.rand(2, 2, 7, 6, dtype=torch.float64)]
    mask = torch.rand(2, 7, 6) > 0.3
    before = [x.clone() for x in (*inputs, mask)]
    for filters in ("lattice", "exact", "window"):
        further = {"embedding": KernelConfig(1.0, 0.5, filter=filters)}
        crf = small_crf(bilateral_filter=filters, further_kernels=further, learn_theta=True)
        unary, image, guide = (x.detach().requires_grad_() for x in inputs)  # share their memory
        crf(unary, image, {"embedding": guide}, mask).sum().backward()
        for x, copy in zip((*inputs, mask), before, strict=True):
            assert torch.equal(x, copy)


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


class BrokenFilter(ExactFilter):
    """The exact sum, with the gradient of slightly other features."""

    def __call__(self, v: Tensor) -> Tensor:
        wrong = ExactFilter(self.features * 1.005)(v)
        return super().__call__(v).detach() + wrong - wrong.detach()


def test_trap_13_gradient_checks_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What test_gradients.py checks with finds it; tests/mutants plants more."""
    unary, image = (x.requires_grad_() for x in random_inputs(batch=1, height=2, width=3))
    crf = small_crf(theta_beta=150.0, bilateral_filter="exact", learn_theta=True, num_iterations=1)
    monkeypatch.setattr("crfrnn.kernels.ExactFilter", BrokenFilter)
    with pytest.raises(GradcheckError):
        assert_gradients(crf, unary, image)


@pytest.mark.parametrize("kernel_weights", ["scalar", "class", "matrix"])
def test_trap_15_a_start_at_the_identity(kernel_weights: Any) -> None:
    unary, image = random_inputs()
    crf = CrfRnn(3, spatial_weight=0.0, bilateral_weight=0.0, kernel_weights=kernel_weights)
    out = crf(unary, image)
    assert torch.equal(out, unary)
    out.square().sum().backward()
    for name in ("spatial", "bilateral"):  # and it can leave
        assert crf.potentials.weight(name).grad.abs().min() > 0  # type: ignore[union-attr]
