"""Energies and divergences: against written sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crfrnn.diagnostics import (
    discrete_energy,
    free_energy,
    gradient_norm,
    kl_divergence,
    largest_change,
    relaxed_energy,
    trace,
)
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.implicit import ImplicitMeanField
from crfrnn.inference import MeanField
from tests.crfrnn.problems import neighbours, random_problem

PROBLEM = random_problem()
Q = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Q = Q / Q.sum(-1, keepdim=True)
ON = PROBLEM.shared


# oracle


@pytest.mark.parametrize(
    ("normalization", "num_pixels", "num_labels"),
    [("symmetric", 6, 3), ("after", 6, 3), ("none", 6, 3), ("none", 1, 3), ("none", 4, 1)],
)
def test_energies_equal_the_written_sums(
    normalization: Any, num_pixels: int, num_labels: int
) -> None:
    problem = random_problem(2, num_pixels, num_labels, normalization=normalization)
    q = torch.rand(problem.unary.shape, dtype=torch.float64).softmax(-1)
    messages = neighbours(q.numpy(), problem.dense, problem.penalties)
    others = (q.log(), problem.unary, torch.from_numpy(messages))
    entropy, unary, pairs = ((q * x).sum((1, 2)) for x in others)
    for function, expected in (
        (relaxed_energy, -unary + 0.5 * pairs),
        (free_energy, entropy - unary + 0.5 * pairs),
        (kl_divergence, entropy - unary + pairs),
    ):
        ours = function(q, *problem.shared)
        # float64 and a few dozen terms a sum: rounding only.
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_discrete_energy_is_the_energy_of_pairs() -> None:
    """sum_i -unary + sum_{i<j}, for Potts, whose self term is 0."""
    problem = random_problem(strength=0.7, penalty="potts")
    labels = torch.tensor([[0, 1, 2, 0, 0, 1], [2, 2, 1, 0, 1, 1]])
    ours = discrete_energy(labels, *problem.shared)
    for b, x in enumerate(labels):
        expected = -problem.unary[b, torch.arange(6), x].sum()
        for kernel, penalty in zip(problem.dense, problem.penalties, strict=True):
            pairs = torch.from_numpy(kernel[b]) * penalty[x][:, x]
            expected += pairs.triu(diagonal=1).sum()
        torch.testing.assert_close(ours[b], expected, rtol=1e-10, atol=1e-10)  # rounding


def test_gradient_norm_is_that_of_the_free_energy() -> None:
    """Autograd of it, projected, where the operator is symmetric."""
    problem = random_problem(penalty="symmetric")
    q = Q.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(free_energy(q, *problem.shared).sum(), q)
    expected = (gradient - gradient.mean(-1, keepdim=True)).flatten(1).norm(dim=1)
    ours = gradient_norm(Q, *problem.shared)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding


# trace


@pytest.mark.parametrize("inference", [MeanField(damping=0.2), FrankWolfe("l2", step="decaying")])
def test_trace_records_every_iteration(inference: Any) -> None:
    problem = random_problem(strength=0.8, penalty="symmetric")
    records = trace(inference, *problem.arguments, 3)
    assert [record.iteration for record in records] == [0, 1, 2, 3]
    previous = torch.full_like(problem.unary, torch.nan)
    for record in records:
        q = inference(*problem.arguments, record.iteration).softmax(-1)
        expected = {
            "relaxed_energy": relaxed_energy(q, *problem.shared),
            "free_energy": free_energy(q, *problem.shared),
            "discrete_energy": discrete_energy(q.argmax(-1), *problem.shared),
            "gradient_norm": gradient_norm(q, *problem.shared),
            "largest_change": largest_change(q, previous),
        }
        ours = {name: getattr(record, name) for name in expected}
        # The logarithm's rounding, times the 1 / q of a gradient's log q.
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        previous = q


# edges


def test_trace_ends_where_the_inference_does_and_compares_by_the_last_penalties() -> None:
    problem = random_problem(strength=0.3)
    for inference in (MeanField(tolerance=1e-3), ImplicitMeanField(tolerance=1e-3)):
        records = trace(inference, *problem.arguments, 200)
        assert 3 < len(records) < 50
        assert not records[-1].relaxed_energy.requires_grad
    last = [2 * p for p in PROBLEM.penalties]
    pairwise = [PROBLEM.penalties, last, [0 * p for p in last]]
    records = trace(MeanField(), PROBLEM.unary, PROBLEM.kernels, pairwise, 2)
    start = relaxed_energy(PROBLEM.unary.softmax(-1), PROBLEM.unary, PROBLEM.kernels, last)
    torch.testing.assert_close(records[0].relaxed_energy, start)


def test_hard_marginals_have_finite_diagnostics() -> None:
    q = torch.nn.functional.one_hot(Q.argmax(-1), 3).double()
    for function in (relaxed_energy, free_energy, kl_divergence, gradient_norm):
        assert function(q, *ON).isfinite().all()
    energy = discrete_energy(Q.argmax(-1), *ON)
    torch.testing.assert_close(free_energy(q, *ON), energy)
