"""Regularised Frank-Wolfe: against its definition written out, and against mean field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn.diagnostics import relaxed_energy
from crfrnn.frank_wolfe import FrankWolfe, frank_wolfe
from crfrnn.inference import mean_field
from tests.crfrnn.problems import Array, Problem, neighbours, random_problem, softmax

PROBLEM = random_problem()
REGULARIZERS = ["entropy", "l2"]
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
        penalties = [p.numpy() for p in problem.penalties]
        z = (unary - neighbours(x, problem.dense, penalties)) / temperature
        s = softmax(z) if regularizer == "entropy" else written_sparsemax(z)
        x = x + gamma * (s - x)
    return torch.from_numpy(x)


def objective(x: Tensor, problem: Problem, regularizer: str, temperature: float) -> Tensor:
    """E(x) + lambda R(x), (B,)."""
    r = torch.xlogy(x, x) if regularizer == "entropy" else 0.5 * x.square()
    energy = relaxed_energy(x, problem.unary, problem.kernels, problem.penalties)
    return energy + temperature * r.sum((1, 2))


def run(problem: Problem, num_iterations: int, **options: Any) -> Tensor:
    """x, (B, N, L)."""
    infer = FrankWolfe(**options)
    return infer(problem.unary, problem.kernels, [problem.penalties], num_iterations).softmax(-1)


# shape


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("step", [1.0, "line_search"])
def test_shape_dtype_and_finite_logits(regularizer: Any, step: Any) -> None:
    problem = random_problem(3, 4, 7)
    shifted = 200 * problem.unary  # marginals that underflow
    logits = frank_wolfe(
        shifted, problem.kernels, [problem.penalties], 2, regularizer=regularizer, step=step
    )
    assert logits.shape == (3, 4, 7)
    assert logits.isfinite().all()
    single = frank_wolfe(shifted.float(), [], [[]], 2, regularizer=regularizer, step=step)
    assert single.dtype == torch.float32
    assert single.isfinite().all()


# oracle


@pytest.mark.parametrize("regularizer", REGULARIZERS)
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
    x = run(PROBLEM, 4, regularizer=regularizer, temperature=temperature, step=step)
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


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize(
    ("strength", "penalty"), [(1.0, "symmetric"), (-1.0, "potts"), (1.0, "potts")]
)
def test_line_search_finds_the_least_objective(
    regularizer: Any, strength: float, penalty: str
) -> None:
    """Against 101 points of the segment: repelling labels stop inside, Potts at its end."""
    problem = random_problem(strength=2 * strength, penalty=penalty)
    options: dict[str, Any] = {"regularizer": regularizer, "temperature": 0.7}
    x = problem.unary.softmax(-1)
    s = run(problem, 1, step=1.0, **options)
    ours = objective(run(problem, 1, step="line_search", **options), problem, regularizer, 0.7)
    segment = [
        objective(x + g * (s - x), problem, regularizer, 0.7) for g in np.linspace(0, 1, 101)
    ]
    least = torch.stack(segment).amin(0)
    assert (ours <= least + 1e-12).all()  # never above a grid point but for rounding


# invariants


def test_l2_gives_zeros_and_the_mixture_lifts_them() -> None:
    arguments = 5 * PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties], 3
    sparse = frank_wolfe(*arguments, regularizer="l2").softmax(-1)
    assert (sparse < 1e-300).any()
    mixed = frank_wolfe(*arguments, regularizer="l2", unary_mixture=0.5).softmax(-1)
    expected = 0.5 * sparse + 0.5 * arguments[0].softmax(-1)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-14)  # rounding


def test_strategy_is_the_function() -> None:
    options: dict[str, Any] = {
        "regularizer": "l2",
        "temperature": 0.7,
        "step": 0.4,
        "unary_mixture": 0.1,
        "memory": "recompute",
    }
    arguments = PROBLEM.unary, PROBLEM.kernels, [PROBLEM.penalties], 4
    seen: list[Tensor] = []
    ours = FrankWolfe(**options)(*arguments, observe=seen.append)
    assert torch.equal(ours, frank_wolfe(*arguments, **options))
    assert len(seen) == 5
    assert FrankWolfe(**options) == FrankWolfe(**options) != FrankWolfe()


# gradient


@pytest.mark.parametrize(
    ("regularizer", "strength", "step"),
    [
        ("entropy", 2.0, "decaying"),
        ("l2", -2.0, 0.5),
        ("entropy", -2.0, "line_search"),
        ("entropy", 2.0, "line_search"),
        ("l2", -2.0, "line_search"),
        ("l2", 2.0, LEARNT),
    ],
)
def test_gradcheck(regularizer: Any, strength: float, step: Any) -> None:
    problem = random_problem(1, 3, strength=strength, penalty="potts")
    inputs = [problem.unary, *problem.penalties]
    if isinstance(step, Tensor):
        inputs.append(step)

    def infer(unary: Tensor, first: Tensor, second: Tensor, *learnt: Tensor) -> Tensor:
        gamma: Any = learnt[0] if learnt else step
        infer = FrankWolfe(regularizer, 0.8, gamma, unary_mixture=0.2)
        return infer(unary, problem.kernels, [[first, second]], 2)

    assert torch.autograd.gradcheck(infer, [x.clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("step", ["line_search", 0.5])
def test_recomputing_changes_no_gradient(step: Any) -> None:
    grads = []
    for memory in ("store", "recompute"):
        unary = PROBLEM.unary.clone().requires_grad_()
        penalties = [p.clone().requires_grad_() for p in PROBLEM.penalties]
        logits = FrankWolfe(step=step, memory=memory)(unary, PROBLEM.kernels, [penalties], 3)
        grads.append(torch.autograd.grad(logits[..., 0].square().sum(), [unary, *penalties]))
    # The same sums again.
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-14)


def test_a_fixed_point_has_a_gradient() -> None:
    """Where s = x the line search divides 0 by 0, and must not say so to autograd."""
    unary = torch.zeros(1, 2, 3, requires_grad=True)
    for regularizer in REGULARIZERS:
        infer = FrankWolfe(regularizer=regularizer, step="line_search")  # type: ignore[arg-type]
        (grad,) = torch.autograd.grad(infer(unary, [], [[]], 2)[..., 0].sum(), unary)
        assert grad.isfinite().all()
        assert grad.abs().max() > 0


def test_a_confident_pixel_still_learns() -> None:
    """Float32, the true label at probability e^-40: mean field's gradient is 1, so is ours."""
    unary = torch.tensor([[[40.0, 0.0]]], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        frank_wolfe(unary, [], [[]], 1).flatten(0, 1), torch.tensor([1])
    )
    (grad,) = torch.autograd.grad(loss, unary)
    torch.testing.assert_close(grad, torch.tensor([[[1.0, -1.0]]]))


# edges


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize(("num_pixels", "num_labels"), [(1, 3), (4, 1), (1, 1)])
def test_one_pixel_and_one_label(regularizer: Any, num_pixels: int, num_labels: int) -> None:
    problem = random_problem(2, num_pixels, num_labels)
    x = run(problem, 3, regularizer=regularizer, step="line_search")
    torch.testing.assert_close(x.sum(-1), torch.ones(2, num_pixels, dtype=torch.float64))
    if num_labels == 1:
        assert torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("step", [LEARNT, "line_search"])
def test_a_batch_is_its_images(regularizer: Any, step: Any) -> None:
    problem = random_problem(batch=3, strength=-2.0, penalty="symmetric")
    batch = run(problem, 4, regularizer=regularizer, step=step)
    for b in range(3):
        alone = run(problem.image(b), 4, regularizer=regularizer, step=step)
        # Rounding; the search's, a root found to about sqrt(eps) of a flat objective.
        torch.testing.assert_close(batch[b : b + 1], alone, rtol=1e-9, atol=1e-9)


def test_repr_shows_the_options() -> None:
    assert repr(FrankWolfe(step="decaying")) == (
        "FrankWolfe(regularizer='entropy', temperature=1.0, step='decaying', "
        "unary_mixture=0.0, memory='store')"
    )
