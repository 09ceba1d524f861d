"""Implicit differentiation: against backpropagation through very many damped iterations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crfrnn.implicit import (
    ConvergenceWarning,
    ImplicitMeanField,
    implicit_mean_field,
)
from crfrnn.inference import MeanField, mean_field
from tests.crfrnn.problems import random_problem

PROBLEM = random_problem(strength=0.3)  # weak enough for J to contract


# oracle


@pytest.mark.parametrize("damping", [0.0, 0.3, 0.8])
def test_equals_backpropagation_to_convergence(damping: float) -> None:
    """Whatever the damping, which the fixed point and its gradient do not know."""
    implicit, unrolled = ImplicitMeanField(damping, tolerance=1e-13), MeanField(damping=0.3)
    ours, theirs = implicit(*PROBLEM.arguments, 2000), unrolled(*PROBLEM.arguments, 200)
    # Residuals of 1e-13 on both sides, amplified by (I - J)^-1, here below 100.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    pairs = zip(PROBLEM.gradients(implicit, 2000), PROBLEM.gradients(unrolled, 200), strict=True)
    for a, b in pairs:
        assert b.abs().max() > 1e-4  # all are reached
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_report_and_repeated_backward() -> None:
    implicit, problem = ImplicitMeanField(tolerance=1e-6), PROBLEM.learning()
    seen: list[Tensor] = []
    logits = implicit(*problem.arguments, 100, observe=seen.append)
    report = implicit.report
    assert len(seen) == report.forward_iterations + 1 > 5
    assert report.backward_iterations == 0
    first, second = (
        torch.autograd.grad(logits[..., 0].sum(), problem.unary, retain_graph=True)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert report.backward_iterations > 5
    for residual in (report.forward_residual, report.backward_residual):
        assert residual is not None
        assert residual.shape == (2,)
        assert (residual <= 1e-6).all()
    (grad,) = torch.autograd.grad((0 * logits).sum(), problem.unary, retain_graph=True)
    assert torch.equal(grad, torch.zeros_like(problem.unary))  # without a warning
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(logits.sum(), problem.unary, create_graph=True)


def test_residuals_are_what_they_say() -> None:
    """Stopped after two updates: one more moves q by the forward residual."""
    infer = ImplicitMeanField(damping=0.0, tolerance=1e-9)
    with pytest.warns(ConvergenceWarning, match=r"forward .*residual .*after 2 iterations"):
        logits = infer(*PROBLEM.arguments, 2)
    before, after = (mean_field(*PROBLEM.arguments, t).softmax(-1) for t in (2, 3))
    torch.testing.assert_close(logits.softmax(-1), after, rtol=1e-12, atol=1e-12)  # rounding
    expected = (after - before).abs().amax((1, 2))
    torch.testing.assert_close(infer.report.forward_residual, expected, rtol=1e-9, atol=1e-12)


def test_warns_backward_where_only_that_fails() -> None:
    """Where q is uniform it is a fixed point at once, forward; its Jacobian is not 0."""
    problem = random_problem(normalization="after", penalty="potts")
    unary = torch.zeros_like(problem.unary).requires_grad_()
    logits = implicit_mean_field(unary, problem.kernels, [problem.penalties], 1)
    with pytest.warns(ConvergenceWarning, match="the backward fixed point was not reached"):
        torch.autograd.grad(logits[..., 0].sum(), unary)
