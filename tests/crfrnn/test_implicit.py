"""Implicit differentiation: against backpropagation through very many damped iterations."""

from __future__ import annotations

import warnings
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


# shape


def test_shape_dtype_and_no_gradient_without_need() -> None:
    assert infer().shape == PROBLEM.unary.shape
    assert not infer().requires_grad
    single = implicit_mean_field(PROBLEM.unary.float(), [], [[]], 5)
    assert single.dtype == torch.float32
    with torch.no_grad():
        unary = PROBLEM.unary.clone().requires_grad_()
        logits = implicit_mean_field(unary, PROBLEM.kernels, [PROBLEM.penalties], 50)
        assert not logits.requires_grad


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 1.0}, r"damping must be a number in \[0, 1\)"),
        ({"tolerance": 0.0}, "tolerance must be a finite number above 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImplicitMeanField(**options)
    with pytest.raises(ValueError, match=message):
        infer(**options)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="a fixed point belongs to one update, got 2"):
        implicit_mean_field(PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties] * 2, 10)
    with pytest.raises(ValueError, match=r"pass \[penalties\]"):
        implicit_mean_field(PROBLEM.unary, PROBLEM.kernels, PROBLEM.penalties, 10)  # type: ignore[arg-type]


def test_no_gradient_of_the_gradient() -> None:
    unary = PROBLEM.unary.clone().requires_grad_()
    logits = implicit_mean_field(unary, PROBLEM.kernels, [PROBLEM.penalties], 100)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(logits.sum(), unary, create_graph=True)


# oracle


def gradients(implicit: bool, leaf_kernels: bool) -> tuple[Tensor, list[Tensor]]:
    unary = PROBLEM.unary.clone().requires_grad_()
    penalties = [p.clone().requires_grad_() for p in PROBLEM.penalties]
    features = [f.clone().requires_grad_() for f in PROBLEM.features]
    kernels = learnt_kernels(features) if leaf_kernels else PROBLEM.kernels
    if implicit:
        logits = implicit_mean_field(unary, kernels, [penalties], 2000, **TIGHT)
    else:
        logits = mean_field(unary, kernels, [penalties], 400, damping=0.3)
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
    unary = PROBLEM.unary.clone().requires_grad_()
    logits = implicit_mean_field(unary, PROBLEM.kernels, [PROBLEM.penalties], 500, **TIGHT)
    first, second = (
        torch.autograd.grad(logits[..., 0].sum(), unary, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


# invariants


def test_is_a_fixed_point_whatever_the_damping() -> None:
    for damping in (0.0, 0.5, 0.8):
        logits = infer(num_iterations=1000, damping=damping, tolerance=1e-12)
        expected = infer(num_iterations=1000, **TIGHT)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)  # residual 1e-12


def test_memory_does_not_grow_with_the_iterations() -> None:
    counts = []
    for tolerance in (1e-2, 1e-12):
        unary = PROBLEM.unary.clone().requires_grad_()
        report = FixedPointReport()
        saved: list[Tensor] = []

        def pack(tensor: Tensor, saved: list[Tensor] = saved) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            implicit_mean_field(
                unary,
                PROBLEM.kernels,
                [PROBLEM.penalties],
                1000,
                tolerance=tolerance,
                report=report,
            )
        counts.append((len(saved), report.forward_iterations))
    assert counts[0][0] == counts[1][0]
    assert counts[0][1] < counts[1][1]


def test_evaluation_makes_no_second_graph() -> None:
    """Filterings: one per update, one that finds it still, the result; learning, one more."""
    for learning in (False, True):
        unary = PROBLEM.unary.clone().requires_grad_(learning)
        kernel = CountingKernel(torch.from_numpy(PROBLEM.dense[0]))
        report = FixedPointReport()
        implicit_mean_field(unary, [kernel], [PROBLEM.penalties[:1]], 100, report=report)
        assert kernel.calls == report.forward_iterations + 2 + learning


# the report


def test_report_of_a_converged_problem() -> None:
    implicit = ImplicitMeanField(tolerance=1e-6)
    unary = PROBLEM.unary.clone().requires_grad_()
    seen: list[Tensor] = []
    logits = implicit(unary, PROBLEM.kernels, [PROBLEM.penalties], 100, observe=seen.append)
    report = implicit.report
    assert report.forward_residual is not None
    assert report.forward_residual.shape == (2,)
    assert (report.forward_residual <= 1e-6).all()
    assert len(seen) == report.forward_iterations + 1 > 5
    assert report.backward_iterations == 0
    torch.autograd.grad(logits[..., 0].sum(), unary)
    residual = implicit.report.backward_residual
    assert residual is not None
    assert residual.shape == (2,)
    assert (residual <= 1e-6).all()
    assert report.backward_iterations > 5


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


def test_diverging_iterations_warn() -> None:
    problem = random_problem(strength=20.0)
    with pytest.warns(ConvergenceWarning, match="weaken the penalties"):
        infer(problem, 20, damping=0.0)


# edges


@pytest.mark.parametrize(("num_pixels", "num_labels"), [(1, 3), (4, 1), (1, 1)])
def test_one_pixel_and_one_label(num_pixels: int, num_labels: int) -> None:
    problem = random_problem(2, num_pixels, num_labels, strength=0.3)
    ours = infer(problem, 500, **TIGHT)
    expected = mean_field(problem.unary, problem.kernels, [problem.penalties], 200, damping=0.3)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # both converged


def test_without_kernels_the_unary_comes_back() -> None:
    unary = PROBLEM.unary.clone().requires_grad_()
    (grad,) = torch.autograd.grad(implicit_mean_field(unary, [], [[]], 5).sum(), unary)
    assert torch.equal(grad, torch.ones_like(unary))


def test_a_batch_is_its_images() -> None:
    problem = random_problem(batch=3, strength=0.3)
    unary = problem.unary.clone().requires_grad_()
    batch = implicit_mean_field(unary, problem.kernels, [problem.penalties], 100, tolerance=1e-3)
    (grad,) = torch.autograd.grad(batch.square().sum(), unary)
    for b in range(3):
        one = problem.image(b)
        u = one.unary.clone().requires_grad_()
        alone = implicit_mean_field(u, one.kernels, [one.penalties], 100, tolerance=1e-3)
        (expected,) = torch.autograd.grad(alone.square().sum(), u)
        # Each image stops by itself, far from the fixed point: only rounding is left.
        torch.testing.assert_close(batch[b : b + 1], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad[b : b + 1], expected, rtol=1e-12, atol=1e-12)


def test_no_gradient_gives_no_warning() -> None:
    unary = PROBLEM.unary.clone().requires_grad_()
    logits = implicit_mean_field(unary, PROBLEM.kernels, [PROBLEM.penalties], 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (grad,) = torch.autograd.grad((0 * logits).sum(), unary)
    assert torch.equal(grad, torch.zeros_like(unary))


# repr


def test_repr_shows_the_options() -> None:
    assert repr(ImplicitMeanField()) == "ImplicitMeanField(damping=0.5, tolerance=0.0001)"
    assert ImplicitMeanField() == ImplicitMeanField(0.5)
