"""On a real GPU: as on the CPU, the same bits again, in graphs, compiled, in memory, in training.

python -m pytest -m gpu tests/full/crfrnn/test_gpu.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn, ops, triton_kernels
from crfrnn.filters import ExactFilter
from crfrnn.inference import MeanField, mean_field
from tests.crfrnn.problems import ROUNDINGS, random_features, random_rows
from tests.train.world import World, tiny_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not triton_kernels.available(), reason="Triton is not installed"),
]
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


@pytest.mark.parametrize(
    ("normalization", "options"),
    [
        ("symmetric", {}),
        ("after", {"learn_theta": True}),
        ("before", {"lattice_accuracy": "fine"}),
        ("none", {"compatibility": "full", "learn_theta": True}),
    ],
)
def test_the_layer_is_that_of_the_cpu(normalization, options) -> None:
    """And the same bits again."""
    crf = CrfRnn(LABELS, normalization=normalization, num_iterations=3, **options)
    runs = [results(crf, device) for device in ("cuda", "cuda", "cpu")]
    for own, again, cpu in zip(*runs, strict=True):
        assert torch.equal(own, again)
        # Sums of some thousand pixels in another order, through three updates.
        scale = max(cpu.abs().max().item(), 1.0)
        torch.testing.assert_close(own, cpu, rtol=0, atol=300 * ROUNDINGS * scale)


@pytest.mark.parametrize("bilateral_filter", ["lattice", "exact"])
def test_float64_is_that_of_the_cpu(bilateral_filter: Any) -> None:
    crf = CrfRnn(LABELS, bilateral_filter=bilateral_filter, num_iterations=2).double()
    unary, image = (x.double() for x in problem(20, 30))
    with torch.no_grad():
        cpu = crf(unary, image)
        own = crf.cuda()(unary.cuda(), image.cuda())
    # Sums of 600 terms in another order, twice.
    torch.testing.assert_close(own.cpu(), cpu, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_half_precision_storage_is_near(storage: Any) -> None:
    unary, image = (x.cuda() for x in problem())
    with torch.no_grad():
        half = CrfRnn(LABELS, inference=MeanField(storage=storage)).cuda()(unary, image)
        precise = CrfRnn(LABELS).cuda()(unary, image)
    rounding = torch.finfo(getattr(torch, storage)).eps
    assert (half.softmax(1) - precise.softmax(1)).abs().max().item() < 20 * rounding
    assert (half.argmax(1) == precise.argmax(1)).double().mean() > 0.999


def test_an_image_is_the_same_in_any_batch() -> None:
    crf = CrfRnn(LABELS).cuda().eval()
    unary, image = (x.cuda() for x in problem())
    with torch.no_grad():
        both, alone = crf(unary, image), crf(unary[1:], image[1:])
    # The vertices of a batch are in one table, in another order; a pixel's sums are not.
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=ROUNDINGS * both.abs().max().item())


# no waiting: in a graph, whatever waits for the GPU raises


def built(crf: CrfRnn) -> tuple[Any, ...]:
    """Rows, filters and penalties of the layer."""
    unary, image = (x.cuda() for x in problem())
    rows = unary.flatten(2).transpose(1, 2).contiguous()
    return rows, crf.potentials.build_kernels(image), crf.potentials.penalties(rows.dtype)


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


def test_a_graph_captures_the_exact_and_the_separable_filter() -> None:
    theta, shape = torch.tensor([3.0, 2.0]).cuda(), [70, 33]
    v, grad = random_rows(2, 70 * 33, LABELS).cuda().split(1)  # type: ignore[no-untyped-call]
    exact = ExactFilter(random_features(1, 70 * 33, 5).cuda())

    def run() -> list[Tensor]:
        separable = ops.separable_filter(theta, v, shape, "automatic")
        return [exact(v), separable, ops.separable_theta_grad(theta, v, grad, shape, "automatic")]

    expected = run()  # and compiled
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    graph.replay()
    for a, b in zip(captured, expected, strict=True):
        assert torch.equal(a, b)


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


def test_the_exact_filter_of_a_photograph_takes_less_than_a_gigabyte_and_repeats() -> None:
    unary, image = (x[:1].cuda() for x in problem(375, 500))
    crf = CrfRnn(LABELS, bilateral_filter="exact").cuda().eval()
    with torch.no_grad():
        first = crf(unary, image)
        torch.cuda.reset_peak_memory_stats()
        second = crf(unary, image)
    assert torch.cuda.max_memory_allocated() < 1e9
    assert torch.equal(first, second)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_trains(precision: Any, tmp_path: Path) -> None:
    tiny = tiny_recipe()
    world = World(tiny, tmp_path)
    model = world.segmenter()
    config = replace(tiny.fit, precision=precision, ema_decay=0.9)
    world.train(model, config=config, device=torch.device("cuda"), log_every=1)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert all(value.isfinite().all() for value in model.state_dict().values())
    # the checkpoint is for any device
    resumed = world.segmenter()
    world.train(resumed, config=config, resume=True)
    assert {p.device.type for p in resumed.parameters()} == {"cpu"}
