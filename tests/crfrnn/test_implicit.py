"""Implicit differentiation: against backpropagation through very many damped iterations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn.implicit import (
    ConvergenceWarning,
    FixedPointReport,
    ImplicitMeanField,
    implicit_mean_field,
)
from crfrnn.inference import mean_field
from tests.crfrnn.problems import LearntKernel, learnt_kernels, random_problem

TIGHT: dict[str, Any] = {"damping": 0.3, "tolerance": 1e-13}
PROBLEM = random_problem(strength=0.3)  # weak enough for J to contract


class CountingKernel(LearntKernel):
    calls = 0

    def __call__(self, v: Tensor) -> Tensor:
        self.calls += 1
        return super().__call__(v)


def infer(problem: Any = PROBLEM, num_iterations: int = 200, **options: Any) -> Tensor:
    return implicit_mean_field(
        problem.unary, problem.kernels, [problem.penalties], num_iterations, **options
    )


def infer_learning(num_iterations: int = 500, **options: Any) -> tuple[Tensor, Tensor]:
    """The unary, which wants a gradient, and the logits."""
    unary = PROBLEM.unary.clone().requires_grad_()
    penalties = [PROBLEM.penalties]
    return unary, implicit_mean_field(unary, PROBLEM.kernels, penalties, num_iterations, **options)


# oracle


def gradients(implicit: bool, leaf_kernels: bool) -> tuple[Tensor, list[Tensor]]:
    unary = PROBLEM.unary.clone().requires_grad_()
    penalties = [p.clone().requires_grad_() for p in PROBLEM.penalties]
    features = [f.clone().requires_grad_() for f in PROBLEM.features]
    kernels = learnt_kernels(features) if leaf_kernels else PROBLEM.kernels
    if implicit:
        logits = implicit_mean_field(unary, kernels, [penalties], 2000, **TIGHT)
    else:
        logits = mean_field(unary, kernels, [penalties], 200, damping=0.3)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
    wanted = [unary, *penalties, *(features if leaf_kernels else [])]
    return logits.detach(), list(torch.autograd.grad((logits.softmax(-1) * weights).sum(), wanted))


@pytest.mark.parametrize("leaf_kernels", [False, True], ids=["fixed kernels", "learnt kernels"])
def test_equals_backpropagation_to_convergence(leaf_kernels: bool) -> None:
    ours, our_gradients = gradients(True, leaf_kernels)
    theirs, their_gradients = gradients(False, leaf_kernels)
    # Residuals of 1e-13 on both sides, amplified by (I - J)^-1, here below 100.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert b.abs().max() > 1e-4  # all are reached
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_second_backward_pass_gives_the_same() -> None:
    unary, logits = infer_learning()
    first, second = (
        torch.autograd.grad(logits[..., 0].sum(), unary, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_no_gradient_of_the_gradient() -> None:
    unary, logits = infer_learning()
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(logits.sum(), unary, create_graph=True)


# invariants


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.8])
def test_is_a_fixed_point_whatever_the_damping(damping: float) -> None:
    logits = infer(num_iterations=1000, damping=damping, tolerance=1e-12)
    expected = infer(num_iterations=1000, **TIGHT)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)  # residual 1e-12


def test_memory_does_not_grow_with_the_iterations() -> None:
    counts = []
    for tolerance in (1e-2, 1e-12):
        report = FixedPointReport()
        saved: list[Tensor] = []

        def pack(tensor: Tensor, saved: list[Tensor] = saved) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            infer_learning(tolerance=tolerance, report=report)
        counts.append((len(saved), report.forward_iterations))
    assert counts[0][0] == counts[1][0]
    assert counts[0][1] < counts[1][1]


@pytest.mark.parametrize("learning", [False, True])
def test_evaluation_makes_no_second_graph(learning: bool) -> None:
    """Filterings: one per update, one that finds it still, the result; learning, one more."""
    unary = PROBLEM.unary.clone().requires_grad_(learning)
    kernel = CountingKernel(torch.from_numpy(PROBLEM.dense[0]))
    report = FixedPointReport()
    logits = implicit_mean_field(unary, [kernel], [PROBLEM.penalties[:1]], 100, report=report)
    assert kernel.calls == report.forward_iterations + 2 + learning
    assert logits.requires_grad == learning


# the report


def test_report_of_a_converged_problem() -> None:
    implicit = ImplicitMeanField(tolerance=1e-6)
    unary = PROBLEM.unary.clone().requires_grad_()
    seen: list[Tensor] = []
    logits = implicit(unary, PROBLEM.kernels, [PROBLEM.penalties], 100, observe=seen.append)
    report = implicit.report
    assert len(seen) == report.forward_iterations + 1 > 5
    assert report.backward_iterations == 0
    torch.autograd.grad(logits[..., 0].sum(), unary)
    assert report.backward_iterations > 5
    for residual in (report.forward_residual, report.backward_residual):
        assert residual is not None
        assert residual.shape == (2,)
        assert (residual <= 1e-6).all()


def test_residuals_are_what_they_say() -> None:
    """Stopped after two updates: one more moves q by the forward residual."""
    report = FixedPointReport()
    with pytest.warns(ConvergenceWarning, match=r"forward .*residual .*after 2 iterations"):
        logits = infer(num_iterations=2, damping=0.0, tolerance=1e-9, report=report)
    path = [
        mean_field(PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties], t).softmax(-1)
        for t in (2, 3)
    ]
    torch.testing.assert_close(logits.softmax(-1), path[1], rtol=1e-12, atol=1e-12)  # rounding
    expected = (path[1] - path[0]).abs().amax((1, 2))
    assert report.forward_residual is not None
    torch.testing.assert_close(report.forward_residual, expected, rtol=1e-9, atol=1e-12)


def test_warns_backward_where_only_that_fails() -> None:
    """Where q is uniform it is a fixed point at once, forward; its Jacobian is not 0."""
    problem = random_problem(normalization="after", penalty="potts")
    unary = torch.zeros_like(problem.unary).requires_grad_()
    logits = implicit_mean_field(unary, problem.kernels, [problem.penalties], 1)
    with pytest.warns(ConvergenceWarning, match="the backward fixed point was not reached"):
        torch.autograd.grad(logits[..., 0].sum(), unary)


def test_no_gradient_gives_no_warning() -> None:
    unary, logits = infer_learning()
    (grad,) = torch.autograd.grad((0 * logits).sum(), unary)
    assert torch.equal(grad, torch.zeros_like(unary))


# edges


@pytest.mark.parametrize(("num_pixels", "num_labels"), [(1, 3), (4, 1)])
def test_one_pixel_and_one_label(num_pixels: int, num_labels: int) -> None:
    problem = random_problem(2, num_pixels, num_labels, strength=0.3)
    ours = infer(problem, 500, **TIGHT)
    expected = mean_field(problem.unary, problem.kernels, [problem.penalties], 100, damping=0.3)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # both converged


def test_without_kernels_the_unary_comes_back() -> None:
    unary = PROBLEM.unary.float().requires_grad_()
    logits = implicit_mean_field(unary, [], [[]], 5)
    assert torch.equal(logits, unary)
    assert torch.equal(torch.autograd.grad(logits.sum(), unary)[0], torch.ones_like(unary))


def test_a_batch_is_its_images() -> None:
    problem = random_problem(batch=3, strength=0.3)

    def result(p: Any) -> tuple[Tensor, Tensor]:
        unary = p.unary.clone().requires_grad_()
        logits = implicit_mean_field(unary, p.kernels, [p.penalties], 100, tolerance=1e-3)
        return logits.detach(), torch.autograd.grad(logits.square().sum(), unary)[0]

    batch, grad = result(problem)
    for b in range(3):
        # Each image stops by itself, far from the fixed point: only rounding is left.
        expected = batch[b : b + 1], grad[b : b + 1]
        torch.testing.assert_close(result(problem.image(b)), expected, rtol=1e-12, atol=1e-12)


def test_repr_shows_the_options() -> None:
    assert repr(ImplicitMeanField()) == "ImplicitMeanField(damping=0.5, tolerance=0.0001)"
    assert ImplicitMeanField() == ImplicitMeanField(0.5)
