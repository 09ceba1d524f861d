"""Mean field: against the paper's equations written out, with the exact kernel in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn.inference import MeanField, mean_field
from tests.crfrnn.problems import (
    Array,
    Problem,
    learnt_kernels,
    neighbours,
    random_problem,
    softmax,
)

PROBLEM = random_problem()


def written_mean_field(
    problem: Problem, pairwise: Sequence[Sequence[Tensor]], num_iterations: int, damping: float
) -> Tensor:
    unary = problem.unary.numpy()
    logits = unary
    for t in range(num_iterations):
        penalties: list[Array] = [p.numpy() for p in pairwise[min(t, len(pairwise) - 1)]]
        update = unary - neighbours(softmax(logits), problem.dense, penalties)
        logits = (1 - damping) * update + damping * logits
    return torch.from_numpy(logits)


# oracle


@pytest.mark.parametrize(
    ("normalization", "damping", "num_iterations", "shape"),
    [
        ("symmetric", 0.0, 5, (2, 6, 3)),
        ("after", 0.3, 5, (1, 5, 7)),
        ("none", 0.3, 1, (3, 4, 2)),
        ("symmetric", 0.3, 0, (2, 6, 3)),
        ("symmetric", 0.2, 3, (2, 1, 3)),
        ("symmetric", 0.2, 3, (2, 4, 1)),
        ("symmetric", 0.2, 3, (2, 1, 1)),
    ],
)
def test_equals_the_written_sums(
    normalization: Any, damping: float, num_iterations: int, shape: tuple[int, int, int]
) -> None:
    problem = random_problem(*shape, normalization=normalization)
    pairwise = [problem.penalties]
    ours = mean_field(problem.unary, problem.kernels, pairwise, num_iterations, damping=damping)
    expected = written_mean_field(problem, pairwise, num_iterations, damping)
    # float64 and a few dozen terms a sum: rounding only.
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_float32_stays_float32() -> None:
    assert mean_field(PROBLEM.unary.float(), [], [[]], 2).dtype == torch.float32


def test_untied_penalties_reuse_the_last() -> None:
    tied = PROBLEM.penalties
    untied = [tied, [2 * p for p in tied], [-p for p in tied]]
    for given in (untied[:2], untied):
        ours = mean_field(PROBLEM.unary, PROBLEM.kernels, given, 4)
        expected = written_mean_field(PROBLEM, given, 4, 0.0)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding
    more_than_needed = mean_field(PROBLEM.unary, PROBLEM.kernels, untied, 1)
    assert torch.equal(more_than_needed, mean_field(PROBLEM.unary, PROBLEM.kernels, [tied], 1))


def test_a_still_image_keeps_its_logits() -> None:
    """Image by image: the last iteration whose change exceeded the tolerance, plus one."""
    tolerance, problem = 1e-3, random_problem(batch=4, strength=0.4)
    path = [mean_field(problem.unary, problem.kernels, [problem.penalties], t) for t in range(40)]
    ours = mean_field(problem.unary, problem.kernels, [problem.penalties], 39, tolerance=tolerance)
    stops = []
    for b in range(4):
        q = [logits[b].softmax(-1) for logits in path]
        stop = next(t for t in range(1, 40) if (q[t] - q[t - 1]).abs().max() <= tolerance)
        assert torch.equal(ours[b], path[stop][b])
        stops.append(stop)
    assert len(set(stops)) > 1  # else the images would say nothing about each other


def test_stops_when_all_are_still() -> None:
    seen: list[Tensor] = []
    problem = random_problem(strength=0.4)
    MeanField(tolerance=1e-3)(
        problem.unary, problem.kernels, [problem.penalties], 1000, observe=seen.append
    )
    assert 3 < len(seen) < 30
    assert (seen[-1] - seen[-2]).abs().max() <= 1e-3 < (seen[-2] - seen[-3]).abs().max()


# invariants


def test_strategy_is_the_function() -> None:
    options: dict[str, Any] = {"damping": 0.2, "tolerance": 1e-2, "memory": "recompute"}
    arguments = PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties], 4
    seen: list[Tensor] = []
    ours = MeanField(**options)(*arguments, observe=seen.append)
    assert torch.equal(ours, mean_field(*arguments, **options))
    assert torch.equal(seen[0], PROBLEM.unary.softmax(-1))
    assert torch.equal(seen[-1], ours.softmax(-1))
    assert MeanField(0.2) == MeanField(damping=0.2) != MeanField()


# gradient


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Collects the tensors of (B, N, L) that autograd saves inside the context.

    What a filter is built from is there anyway, once for all iterations.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            kept = {f.untyped_storage().data_ptr() for f in PROBLEM.features}
            own = tensor.untyped_storage().data_ptr() not in kept
            if own and tensor.numel() == PROBLEM.unary.numel():
                self.tensors.append(tensor)
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    def storages(self) -> int:
        return len({tensor.untyped_storage().data_ptr() for tensor in self.tensors})


def gradients(memory: Any, **options: Any) -> tuple[tuple[Tensor, ...], int]:
    """Of unary, features and the penalties of two iterations; and how many maps were saved."""
    unary = PROBLEM.unary.clone().requires_grad_()
    features = [f.clone().requires_grad_() for f in PROBLEM.features]
    pairwise = [[(s * p).requires_grad_() for p in PROBLEM.penalties] for s in (1.0, 0.5)]
    kernels = learnt_kernels(features)
    saved = Saved()
    with saved:
        logits = mean_field(unary, kernels, pairwise, 3, memory=memory, **options)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
    wanted = (unary, *features, *pairwise[0], *pairwise[1])
    grads = torch.autograd.grad((logits.softmax(-1) * weights).sum(), wanted)
    return grads, saved.storages()


@pytest.mark.parametrize("options", [{}, {"damping": 0.4}, {"tolerance": 0.2}])
def test_gradcheck(options: dict[str, Any]) -> None:
    problem = random_problem(1, 3, strength=0.5)
    untied = [problem.penalties, [2 * p for p in problem.penalties]]
    inputs = [problem.unary, *untied[0], *untied[1]]

    def run(unary: Tensor, *p: Tensor) -> Tensor:
        pairwise = [p[:2], p[2:]]
        return mean_field(unary, problem.kernels, pairwise, 3, **options)

    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("options", [{}, {"damping": 0.4}, {"tolerance": 1e-2}])
def test_recomputing_changes_no_gradient(options: dict[str, Any]) -> None:
    stored, recomputed = (gradients(memory, **options)[0] for memory in ("store", "recompute"))
    for a, b in zip(stored, recomputed, strict=True):
        assert a.abs().max() > 1e-6  # all are reached, the features through the kernels
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)  # the same sums again


def test_what_is_stored_in_an_iteration() -> None:
    unary = PROBLEM.unary.clone().requires_grad_()
    penalties = [p.clone().requires_grad_() for p in PROBLEM.penalties]
    saved = Saved()
    with saved:
        mean_field(unary, PROBLEM.kernels, [penalties], 4)
    assert saved.storages() == 4  # q, shared by the softmax and the products with both penalties
    assert gradients("store")[1] == 3 * (1 + 2)  # q, and q P' in each kernel that learns
    assert gradients("recompute")[1] == 3  # the argument of each step, logits_t


# layout and edges


def test_layout_does_not_matter() -> None:
    planar = PROBLEM.unary.transpose(1, 2).contiguous().transpose(1, 2)
    ours = mean_field(planar, PROBLEM.kernels, [PROBLEM.penalties], 3)
    expected = mean_field(PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties], 3)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)  # rounding


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-2}])
def test_a_batch_is_its_images(options: dict[str, Any]) -> None:
    problem = random_problem(batch=3, strength=0.4)
    infer = MeanField(**options)
    batch = infer(problem.unary, problem.kernels, [problem.penalties], 12)
    for b in range(3):
        one = problem.image(b)
        alone = infer(one.unary, one.kernels, [one.penalties], 12)
        torch.testing.assert_close(batch[b : b + 1], alone, rtol=1e-12, atol=1e-12)  # rounding


def test_repr_shows_the_options() -> None:
    shown = repr(MeanField(damping=0.5))
    assert shown == "MeanField(damping=0.5, tolerance=None, memory='store', storage='float32')"
