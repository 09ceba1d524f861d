"""Every inference and its diagnostics: against definitions written out, and what they share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn.diagnostics import (
    discrete_energy,
    free_energy,
    gradient_norm,
    kl_divergence,
    largest_change,
    relaxed_energy,
    trace,
)
from crfrnn.frank_wolfe import FrankWolfe, frank_wolfe, sparsemax
from crfrnn.implicit import (
    ConvergenceWarning,
    ImplicitMeanField,
    implicit_mean_field,
)
from crfrnn.inference import Inference, MeanField, mean_field
from tests.crfrnn.problems import (
    Array,
    Problem,
    neighbours,
    random_problem,
    softmax,
    written_mean_field,
)

PROBLEM = random_problem()
# Labels that repel stop the line search inside the segment.
FRANK_WOLFE = [FrankWolfe(step="line_search"), FrankWolfe("l2", 0.8, 0.5, unary_mixture=0.2)]


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
    """With the same penalties in every iteration, and with sets of which the last is reused."""
    problem = random_problem(*shape, normalization=normalization)
    tied = problem.penalties
    untied = [tied, [2 * p for p in tied], [-p for p in tied]]
    for pairwise in (untied[:1], untied[:2], untied):
        options = pairwise, num_iterations, damping
        ours = mean_field(problem.unary, problem.kernels, *options[:2], damping=damping)
        written = written_mean_field(problem.unary.numpy(), problem.dense, *options)
        # float64 and a few dozen terms a sum: rounding only.
        torch.testing.assert_close(ours, torch.from_numpy(written), rtol=1e-10, atol=1e-10)


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


# Frank-Wolfe


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
    pairwise: list[list[Tensor]], regularizer: str, temperature: float, steps: list[float]
) -> Tensor:
    """x of PROBLEM after the given steps; the last penalties are reused."""
    unary = PROBLEM.unary.numpy()
    x = softmax(unary)
    for t, gamma in enumerate(steps):
        penalties = pairwise[min(t, len(pairwise) - 1)]
        z = (unary - neighbours(x, PROBLEM.dense, penalties)) / temperature
        s = softmax(z) if regularizer == "entropy" else written_sparsemax(z)
        x = x + gamma * (s - x)
    return torch.from_numpy(x)


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


@either
@pytest.mark.parametrize(
    ("temperature", "step", "steps"),
    [
        (0.5, 0.3, [0.3] * 4),
        (1.0, 1.0, []),
        (2.0, "decaying", [1.0, 2 / 3, 0.5, 0.4]),
        (0.5, torch.tensor(0.6), [float(torch.tensor(0.6))] * 4),
        (2.0, LEARNT, [0.9, 0.3, 0.3, 0.3]),
    ],
)
def test_equals_the_definition(regularizer, temperature, step, steps) -> None:
    infer = FrankWolfe(regularizer, temperature, step)
    untied = [PROBLEM.penalties, [2 * p for p in PROBLEM.penalties]]
    x = infer(PROBLEM.unary, PROBLEM.kernels, untied, len(steps)).softmax(-1)
    expected = written_frank_wolfe(untied, regularizer, temperature, steps)
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)  # rounding


@either
@pytest.mark.parametrize(
    ("strength", "penalty"), [(2.0, "symmetric"), (-2.0, "potts"), (2.0, "potts")]
)
def test_line_search_finds_the_least_objective(regularizer, strength, penalty) -> None:
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


# implicit differentiation


WEAK = random_problem(strength=0.3)  # weak enough for J to contract


@pytest.mark.parametrize("damping", [0.0, 0.3, 0.8])
def test_equals_backpropagation_to_convergence(damping: float) -> None:
    """Whatever the damping, which the fixed point and its gradient do not know."""
    implicit, unrolled = ImplicitMeanField(damping, tolerance=1e-13), MeanField(damping=0.3)
    ours, theirs = implicit(*WEAK.arguments, 2000), unrolled(*WEAK.arguments, 200)
    # Residuals of 1e-13 on both sides, amplified by (I - J)^-1, here below 100.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    pairs = zip(WEAK.gradients(implicit, 2000), WEAK.gradients(unrolled, 200), strict=True)
    for a, b in pairs:
        assert b.abs().max() > 1e-4  # all are reached
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_report_and_repeated_backward() -> None:
    implicit, problem = ImplicitMeanField(tolerance=1e-6), WEAK.learning()
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
        logits = infer(*WEAK.arguments, 2)
    before, after = (mean_field(*WEAK.arguments, t).softmax(-1) for t in (2, 3))
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


# diagnostics


Q = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Q = Q / Q.sum(-1, keepdim=True)
ON = PROBLEM.shared


@pytest.mark.parametrize(
    ("normalization", "num_pixels", "num_labels"),
    [("symmetric", 6, 3), ("after", 6, 3), ("none", 6, 3), ("none", 1, 3), ("none", 4, 1)],
)
def test_energies_equal_the_written_sums(normalization, num_pixels, num_labels) -> None:
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
