"""The layer on a real GPU: as on the CPU, the same bits again, no waiting, graphs, the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filtering import NORMALIZATIONS
from crfrnn.filtering.linear import Normalization
from crfrnn.inference import MeanField, mean_field
from tests.crfrnn.native_path import ROUNDINGS
from tests.crfrnn.triton_path import needs_triton

pytestmark = [pytest.mark.gpu, needs_triton]
LABELS = 21


def problem(height: int = 60, width: int = 80) -> tuple[Tensor, Tensor]:
    """Logits and an image with edges: (2, L, H, W) and (2, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    unary = 3 * torch.randn(2, LABELS, height, width, generator=generator)
    blocks = torch.rand(2, 3, -(-height // 10), -(-width // 10), generator=generator)
    image = blocks.repeat_interleave(10, 2).repeat_interleave(10, 3)[..., :height, :width]
    noise = torch.rand(2, 3, height, width, generator=generator)
    return unary, 1 + 240 * image + 10 * noise


def results(crf: CrfRnn, device: str) -> list[Tensor]:
    """Logits and gradients of the layer on a device, on the CPU."""
    crf = crf.to(device)
    unary, image = (x.to(device).requires_grad_() for x in problem())
    logits = crf(unary, image)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(device)
    learnt = [unary, *(p for p in crf.parameters() if p.requires_grad)]
    return [x.cpu() for x in (logits, *torch.autograd.grad((logits * direction).sum(), learnt))]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"learn_theta": True}, {"lattice_accuracy": "fine"}, {"compatibility": "full"}],
)
def test_the_layer_is_that_of_the_cpu(
    normalization: Normalization, options: dict[str, Any]
) -> None:
    crf = CrfRnn(LABELS, normalization=normalization, num_iterations=3, **options)
    for own, cpu in zip(results(crf, "cuda"), results(crf, "cpu"), strict=True):
        # Sums of some thousand pixels in another order, through three updates.
        scale = max(cpu.abs().max().item(), 1.0)
        torch.testing.assert_close(own, cpu, rtol=0, atol=300 * ROUNDINGS * scale)


def test_float64_is_that_of_the_cpu() -> None:
    crf = CrfRnn(LABELS, num_iterations=2).double()
    unary, image = (x.double() for x in problem())
    cpu = crf(unary, image)
    own = crf.cuda()(unary.cuda(), image.cuda())
    torch.testing.assert_close(own.cpu(), cpu, rtol=0, atol=1e-9)


def test_the_same_bits_again() -> None:
    crf = CrfRnn(LABELS, learn_theta=True, compatibility="full")
    for first, second in zip(results(crf, "cuda"), results(crf, "cuda"), strict=True):
        assert torch.equal(first, second)


def test_an_image_is_the_same_in_any_batch() -> None:
    crf = CrfRnn(LABELS).cuda().eval()
    unary, image = (x.cuda() for x in problem())
    with torch.no_grad():
        both, alone = crf(unary, image), crf(unary[1:], image[1:])
    # The vertices of a batch are in one table, in another order; a pixel's sums are not.
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=ROUNDINGS * both.abs().max().item())


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_half_precision_storage_is_near(storage: Any) -> None:
    unary, image = (x.cuda() for x in problem())
    with torch.no_grad():
        half = CrfRnn(LABELS, inference=MeanField(storage=storage)).cuda()(unary, image)
        precise = CrfRnn(LABELS).cuda()(unary, image)
    rounding = torch.finfo(getattr(torch, storage)).eps
    difference = (half.softmax(1) - precise.softmax(1)).abs().max().item()
    assert difference < 20 * rounding
    assert (half.argmax(1) == precise.argmax(1)).double().mean() > 0.999


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def built(crf: CrfRnn) -> tuple[Any, ...]:
    """Rows, filters and penalties of the layer."""
    unary, image = (x.cuda() for x in problem())
    rows = unary.flatten(2).transpose(1, 2).contiguous()
    return rows, crf.potentials.build_kernels(image), crf.potentials.penalties(rows.dtype)


@pytest.mark.usefixtures("_no_waiting")
def test_the_host_waits_for_no_update() -> None:
    rows, kernels, pairwise = built(CrfRnn(LABELS).cuda())
    with torch.no_grad():
        expected = mean_field(rows, kernels, pairwise, 3)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        again = mean_field(rows, kernels, pairwise, 3)
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, expected)


def test_a_graph_captures_the_updates() -> None:
    rows, kernels, pairwise = built(CrfRnn(LABELS).cuda())
    with torch.no_grad():
        expected = mean_field(rows, kernels, pairwise, 3)  # compiles the kernels
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = mean_field(rows, kernels, pairwise, 3)
        graph.replay()
        assert torch.equal(captured, expected)
        rows += torch.randn_like(rows)
        graph.replay()
        assert torch.equal(captured, mean_field(rows, kernels, pairwise, 3))


def test_the_compiler_takes_the_layer_whole() -> None:
    crf = CrfRnn(LABELS).cuda()
    unary, image = (x.cuda() for x in problem())
    expected = crf(unary, image)
    torch.testing.assert_close(torch.compile(crf, fullgraph=True)(unary, image), expected)


def test_memory_of_a_training_step() -> None:
    """The history of q, five iterations, and what is there besides: no (B, N, L) for a vertex."""
    crf = CrfRnn(LABELS, num_iterations=5).cuda().train()
    unary, image = (x.cuda() for x in problem(300, 400))
    unary.requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    crf(unary, image).sum().backward()
    rows = unary.numel() * unary.element_size()
    assert torch.cuda.max_memory_allocated() - before < 25 * rows
