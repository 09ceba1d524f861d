"""Mean field against the paper's equations written out, and what every inference has in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.implicit import ImplicitMeanField
from crfrnn.inference import Inference, MeanField, mean_field
from tests.crfrnn.problems import Problem, random_problem, written_mean_field

PROBLEM = random_problem()
# Labels that repel stop the line search inside the segment.
FRANK_WOLFE = [FrankWolfe(step="line_search"), FrankWolfe("l2", 0.8, 0.5, unary_mixture=0.2)]


def expected_logits(problem: Problem, pairwise: Any, *options: Any) -> Tensor:
    unary = problem.unary.numpy()
    return torch.from_numpy(written_mean_field(unary, problem.dense, pairwise, *options))


# mean field: oracle


@pytest.mark.parametrize(
    ("normalization", "damping", "num_iterations", "shape"),
    [
        ("symmetric", 0.0, 5, (2, 6, 3)),
        ("after", 0.3, 5, (1, 5, 7)),
        ("none", 0.3, 1, (3, 4, 2)),
        ("symmetric", 0.3, 0, (2, 6, 3)),
        ("before", 0.2, 3, (2, 1, 3)),
        ("symmetric", 0.2, 3, (2, 4, 1)),
    ],
)
def test_equals_the_written_sums(
    normalization: Any, damping: float, num_iterations: int, shape: tuple[int, int, int]
) -> None:
    problem = random_problem(*shape, normalization=normalization)
    ours = mean_field(*problem.arguments, num_iterations, damping=damping)
    expected = expected_logits(problem, [problem.penalties], num_iterations, damping)
    # float64 and a few dozen terms a sum: rounding only.
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_untied_penalties_reuse_the_last() -> None:
    tied = PROBLEM.penalties
    untied = [tied, [2 * p for p in tied], [-p for p in tied]]
    for given, num_iterations in ((untied[:2], 4), (untied, 4), (untied, 1)):
        ours = mean_field(PROBLEM.unary, PROBLEM.kernels, given, num_iterations)
        expected = expected_logits(PROBLEM, given, num_iterations)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding


def test_a_still_image_keeps_its_logits_and_the_loop_ends_when_all_are() -> None:
    """Image by image: the last iteration whose change exceeded the tolerance, plus one."""
    seen: list[Tensor] = []
    tolerance, problem = 1e-3, random_problem(batch=4, strength=0.4)
    path = [mean_field(*problem.arguments, t) for t in range(40)]
    ours = MeanField(tolerance=tolerance)(*problem.arguments, 39, observe=seen.append)
    assert 3 < len(seen) < 40
    assert torch.equal(seen[0], problem.unary.softmax(-1))
    assert torch.equal(seen[-1], ours.softmax(-1))
    stops = []
    for b in range(4):
        q = [logits[b].softmax(-1) for logits in path]
        stop = next(t for t in range(1, 40) if (q[t] - q[t - 1]).abs().max() <= tolerance)
        assert torch.equal(ours[b], path[stop][b])
        stops.append(stop)
    assert len(set(stops)) > 1  # else the images would say nothing about each other
    assert len(seen) == max(stops) + 1


# gradient


@pytest.mark.parametrize(
    "infer", [MeanField(), MeanField(damping=0.4), MeanField(tolerance=0.2), *FRANK_WOLFE]
)
@pytest.mark.parametrize(("strength", "penalty"), [(0.5, "any"), (-2.0, "potts")])
def test_gradcheck(infer: Inference, strength: float, penalty: str) -> None:
    problem = random_problem(1, 3, strength=strength, penalty=penalty)
    untied = [problem.penalties, [2 * p for p in problem.penalties]]
    inputs = [problem.unary, *untied[0], *untied[1]]

    def run(unary: Tensor, *p: Tensor) -> Tensor:
        return infer(unary, problem.kernels, [p[:2], p[2:]], 3)

    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in inputs])


def maps_saved(problem: Problem, infer: Inference, num_iterations: int = 3) -> int:
    """Count the tensors of (B, N, L) that autograd keeps."""
    saved: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() == problem.unary.numel():
            saved.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = infer(*problem.arguments, num_iterations)
    assert logits.requires_grad  # and what it keeps is kept until here
    return len(saved - {f.untyped_storage().data_ptr() for f in PROBLEM.features})


@pytest.mark.parametrize(
    "infer", [MeanField(), MeanField(damping=0.4), MeanField(tolerance=1e-2), *FRANK_WOLFE]
)
def test_recomputing_stores_less_and_changes_no_gradient(infer: MeanField | FrankWolfe) -> None:
    learning = PROBLEM.learning()
    assert maps_saved(learning, replace(infer, memory="recompute")) < maps_saved(learning, infer)
    recomputed = PROBLEM.gradients(replace(infer, memory="recompute"), 3)
    for a, b in zip(PROBLEM.gradients(infer, 3), recomputed, strict=True):
        assert a.abs().max() > 1e-6  # all are reached, the features through the kernels
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)  # the same sums again


def test_what_an_inference_stores() -> None:
    """Mean field q, or its logits; an implicit one the same of many iterations as of few."""
    learning = PROBLEM.learning()
    assert maps_saved(replace(learning, kernels=PROBLEM.kernels), MeanField()) == 3
    assert maps_saved(learning, MeanField(memory="recompute")) == 3
    weak = random_problem(strength=0.3).learning()
    few, many = (maps_saved(weak, ImplicitMeanField(tolerance=t), 500) for t in (1e-2, 1e-12))
    assert few == many


# edges


@pytest.mark.parametrize(
    ("infer", "num_iterations"),
    [
        (MeanField(), 12),
        (MeanField(tolerance=1e-2), 12),
        (FrankWolfe(step="line_search"), 4),
        (FrankWolfe("l2", step=torch.tensor([0.9, 0.3], dtype=torch.float64)), 4),
        (ImplicitMeanField(tolerance=1e-3), 100),
    ],
)
def test_a_batch_is_its_images(infer: Inference, num_iterations: int) -> None:
    """Logits and gradients, though each image stops by itself."""

    def result(problem: Problem) -> tuple[Tensor, Tensor]:
        unary = problem.unary.clone().requires_grad_()
        logits = infer(unary, *problem.arguments[1:], num_iterations)
        return logits.detach(), torch.autograd.grad(logits.square().sum(), unary)[0]

    problem = random_problem(batch=3, strength=0.3)
    batch, grad = result(problem)
    for b in range(3):
        expected = batch[b : b + 1], grad[b : b + 1]
        # Rounding; the search's, a root found to about sqrt(eps) of a flat objective.
        torch.testing.assert_close(result(problem.image(b)), expected, rtol=1e-9, atol=1e-9)
