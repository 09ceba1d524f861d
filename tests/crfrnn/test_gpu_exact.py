"""The exact filter on a real GPU: near float64, in little memory, the same bits again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filtering import ExactFilter
from tests.crfrnn.native_path import random_features, random_rows
from tests.crfrnn.triton_path import needs_triton

pytestmark = [pytest.mark.gpu, needs_triton]
LABELS = 21


def photograph(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Unary (1, L, H, W), smooth as a network's; image (1, 3, H, W) with edges and noise."""
    generator = torch.Generator().manual_seed(0)

    def smooth(channels: int, cells: int) -> Tensor:
        coarse = torch.rand(1, channels, cells, cells, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bicubic")

    edges = 80 * (smooth(3, 6) > 0.5)
    noise = 10 * torch.rand(1, 3, height, width, generator=generator)
    image = (edges + 140 * smooth(3, 12).clamp(0, 1) + noise).clamp(0, 255)
    return 6 * smooth(LABELS, 8), image


def layer(dtype: torch.dtype, device: str) -> CrfRnn:
    """T = 10, theta 80/13."""
    return CrfRnn(LABELS, bilateral_filter="exact").to(device, dtype).eval()


def test_mean_field_on_a_crop_is_that_of_float64() -> None:
    unary, image = photograph(64, 80)
    with torch.no_grad():
        own = layer(torch.float32, "cuda")(unary.cuda(), image.cuda()).double().cpu()
        expected = layer(torch.float64, "cpu")(unary.double(), image.double())
    assert (own - expected).norm() < 1e-3 * expected.norm()
    assert (own.softmax(1) - expected.softmax(1)).norm() < 1e-3 * expected.softmax(1).norm()


def test_float64_is_that_of_the_cpu() -> None:
    unary, image = (x.double() for x in photograph(20, 30))
    with torch.no_grad():
        own = layer(torch.float64, "cuda")(unary.cuda(), image.cuda()).cpu()
        expected = layer(torch.float64, "cpu")(unary, image)
    # Sums of 600 terms in another order, through ten updates.
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_near_those_of_float64() -> None:
    unary, image = photograph(40, 50)

    def gradients(dtype: torch.dtype, device: str) -> list[Tensor]:
        # Weights at which no label wins by so much that its gradient is rounding.
        crf = CrfRnn(
            LABELS,
            bilateral_filter="exact",
            bilateral_weight=3.0,
            spatial_weight=1.0,
            learn_theta=True,
        ).to(device, dtype)
        leaves = [x.to(device, dtype).requires_grad_() for x in (unary, image)]
        loss = crf(*leaves).log_softmax(1)[:, 3].mean()
        grads = torch.autograd.grad(loss, [*leaves, *crf.parameters()])
        return [grad.double().cpu() for grad in grads]

    own, expected = gradients(torch.float32, "cuda"), gradients(torch.float64, "cpu")
    for a, b in zip(own, expected, strict=True):
        # A few times 2^-10: TF32 through five updates and what their normalisation cancels.
        assert (a - b).norm() < 5e-3 * b.norm()


def test_a_photograph_takes_less_than_a_gigabyte_and_repeats() -> None:
    unary, image = (x.cuda() for x in photograph(375, 500))
    crf = layer(torch.float32, "cuda")
    with torch.no_grad():
        first = crf(unary, image)
        torch.cuda.reset_peak_memory_stats()
        second = crf(unary, image)
    assert torch.cuda.max_memory_allocated() < 1e9
    assert torch.equal(first, second)


def test_an_application_waits_for_nothing() -> None:
    features, v = random_features(1, 300, 5).cuda(), random_rows(1, 300, LABELS).cuda()
    kernel = ExactFilter(features)
    expected = kernel(v)  # and compiled
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # which refuses to wait for the GPU
        result = kernel(v)
    graph.replay()
    assert torch.equal(result, expected)
