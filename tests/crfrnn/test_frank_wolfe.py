"""Sparsemax and regularised Frank-Wolfe: against their definitions, and against mean field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn.diagnostics import relaxed_energy
from crfrnn.frank_wolfe import FrankWolfe, frank_wolfe, sparsemax
from crfrnn.inference import mean_field
from tests.crfrnn.problems import Array, Problem, neighbours, random_problem, softmax

PROBLEM = random_problem()
either = pytest.mark.parametrize("regularizer", ["entropy", "l2"])
LOGITS = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LEARNT = torch.tensor([0.9, 0.3], dtype=torch.float64)


def written_sparsemax(z: Array) -> Array:
    """The projection by bisection on its threshold."""
    low, high = z.max(-1, keepdims=True) - 1, z.max(-1, keepdims=True)
    for _ in range(80):
        tau = (low + high) / 2
        too_low = np.maximum(z - tau, 0).sum(-1, keepdims=True) > 1
        low, high = np.where(too_low, tau, low), np.where(too_low, high, tau)
    return np.asarray(np.maximum(z - (low + high) / 2, 0))


def written_frank_wolfe(
    problem: Problem, regularizer: str, temperature: float, steps: list[float]
) -> Tensor:
    """x after the given steps."""
    unary = problem.unary.numpy()
    x = softmax(unary)
    for gamma in steps:
        z = (unary - neighbours(x, problem.dense, problem.penalties)) / temperature
        s = softmax(z) if regularizer == "entropy" else written_sparsemax(z)
        x = x + gamma * (s - x)
    return torch.from_numpy(x)


# sparsemax


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_sparsemax_is_the_projection(scale: float) -> None:
    """And a constant over labels changes nothing, but what a float32 of 1e4 resolves."""
    z = scale * LOGITS
    expected = torch.from_numpy(written_sparsemax(z.numpy()))
    torch.testing.assert_close(sparsemax(z), expected, rtol=1e-12, atol=1e-12)  # rounding
    shifted = sparsemax(z.float() + 1e4)
    torch.testing.assert_close(shifted.double(), expected, rtol=0, atol=2e-3)
    assert (shifted.sum(-1) - 1).abs().max() < 1e-6
    assert (sparsemax(z[..., :1]) == 1).all()


def test_sparsemax_has_its_gradient() -> None:
    assert torch.autograd.gradcheck(sparsemax, LOGITS[:2].clone().requires_grad_())


# oracle


@either
@pytest.mark.parametrize(
    ("temperature", "step", "steps"),
    [
        (0.5, 0.3, [0.3] * 4),
        (2.0, "decaying", [1.0, 2 / 3, 0.5, 0.4]),
        (0.5, torch.tensor(0.6), [float(torch.tensor(0.6))] * 4),
        (2.0, LEARNT, [0.9, 0.3, 0.3, 0.3]),
    ],
)
def test_equals_the_definition(
    regularizer: Any, temperature: float, step: Any, steps: list[float]
) -> None:
    infer = FrankWolfe(regularizer, temperature, step)
    x = infer(*PROBLEM.arguments, 4).softmax(-1)
    expected = written_frank_wolfe(PROBLEM, regularizer, temperature, steps)
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)  # rounding


@pytest.mark.parametrize("num_iterations", [0, 3])
def test_entropy_with_unit_step_and_temperature_is_mean_field(num_iterations: int) -> None:
    """With penalties for two iterations, of which the last is reused."""
    untied = [PROBLEM.penalties, [2 * p for p in PROBLEM.penalties]]
    arguments = PROBLEM.unary, PROBLEM.kernels, untied, num_iterations
    expected = mean_field(*arguments).log_softmax(-1)
    # The logarithm's rounding.
    torch.testing.assert_close(frank_wolfe(*arguments), expected, rtol=1e-13, atol=1e-13)


@either
@pytest.mark.parametrize(
    ("strength", "penalty"), [(2.0, "symmetric"), (-2.0, "potts"), (2.0, "potts")]
)
def test_line_search_finds_the_least_objective(
    regularizer: Any, strength: float, penalty: str
) -> None:
    """Against 101 points of the segment: repelling labels stop inside, Potts at its end."""
    problem = random_problem(strength=strength, penalty=penalty)

    def objective(x: Tensor) -> Tensor:
        r = torch.xlogy(x, x) if regularizer == "entropy" else 0.5 * x.square()
        return relaxed_energy(x, *problem.shared) + 0.7 * r.sum((1, 2))

    x = problem.unary.softmax(-1)
    s, ours = (
        FrankWolfe(regularizer, 0.7, step)(*problem.arguments, 1).softmax(-1)
        for step in (1.0, "line_search")
    )
    least = torch.stack([objective(torch.lerp(x, s, g / 100)) for g in range(101)]).amin(0)
    assert (objective(ours) <= least + 1e-12).all()  # never above a grid point but for rounding


# invariants


def test_l2_gives_zeros_and_the_mixture_lifts_them() -> None:
    problem = replace(PROBLEM, unary=5 * PROBLEM.unary)
    sparse, mixed = (
        FrankWolfe("l2", unary_mixture=share)(*problem.arguments, 3).softmax(-1)
        for share in (0, 0.5)
    )
    assert (sparse < 1e-300).any()
    expected = 0.5 * sparse + 0.5 * problem.unary.softmax(-1)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-14)  # rounding


@either
@pytest.mark.parametrize("step", [1.0, "line_search"])
def test_marginals_that_underflow_have_finite_logits(regularizer: Any, step: Any) -> None:
    infer = FrankWolfe(regularizer, step=step)
    unary, kernels, penalties = PROBLEM.arguments
    assert infer(200 * unary, kernels, penalties, 2).isfinite().all()
    single = infer(200 * unary.float(), [], [[]], 2)
    assert single.dtype == torch.float32
    assert single.isfinite().all()


# gradient: by differences in test_inference.py


@either
def test_a_fixed_point_has_a_gradient(regularizer: Any) -> None:
    """Where s = x the line search divides 0 by 0, and must not say so to autograd."""
    unary = torch.zeros(1, 2, 3, requires_grad=True)
    infer = FrankWolfe(regularizer, step="line_search")
    (grad,) = torch.autograd.grad(infer(unary, [], [[]], 2)[..., 0].sum(), unary)
    assert grad.isfinite().all()
    assert grad.abs().max() > 0


def test_a_confident_pixel_still_learns() -> None:
    """Float32, the true label at probability e^-40: mean field's gradient is 1, so is ours."""
    unary = torch.tensor([[[40.0, 0.0]]], requires_grad=True)
    logits = frank_wolfe(unary, [], [[]], 1).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
    (grad,) = torch.autograd.grad(loss, unary)
    torch.testing.assert_close(grad, torch.tensor([[[1.0, -1.0]]]))
