"""Energies and divergences: against written sums, enumeration and published numbers."""

from __future__ import annotations

import itertools
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
from crfrnn.filtering import LatticeFilter, Normalized
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.implicit import ImplicitMeanField
from crfrnn.inference import MeanField, mean_field
from crfrnn.kernels import positions
from tests.crfrnn.problems import Array, Problem, neighbours, random_problem
from tests.crfrnn.published import REFERENCE, settings

PROBLEM = random_problem()
Q = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Q = Q / Q.sum(-1, keepdim=True)
FUNCTIONS = [relaxed_energy, free_energy, kl_divergence, gradient_norm]


def parts(q: Tensor, problem: Problem) -> tuple[Array, Array, Array]:
    """<q, log q>, <q, unary> and sum_m <q, K_m (q P_m')>, each (B,), written out."""
    x, unary = q.numpy(), problem.unary.numpy()
    pairs = x * neighbours(x, problem.dense, [p.numpy() for p in problem.penalties])
    entropy = x * np.log(x)
    return entropy.sum((1, 2)), (x * unary).sum((1, 2)), pairs.sum((1, 2))


def on(problem: Problem) -> tuple[Any, Any, Any]:
    return problem.unary, problem.kernels, problem.penalties


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
    entropy, unary, pairs = parts(q, problem)
    for function, expected in (
        (relaxed_energy, -unary + 0.5 * pairs),
        (free_energy, entropy - unary + 0.5 * pairs),
        (kl_divergence, entropy - unary + pairs),
    ):
        ours = function(q, *on(problem))
        # float64 and a few dozen terms a sum: rounding only.
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


def test_discrete_energy_is_the_energy_of_pairs() -> None:
    """sum_i -unary + sum_{i<j}, for Potts, whose self term is 0; pair by pair."""
    problem = random_problem(strength=0.7, penalty="potts")
    labels = torch.tensor([[0, 1, 2, 0, 0, 1], [2, 2, 1, 0, 1, 1]])
    energies = []
    for b, x in enumerate(labels.tolist()):
        energy = -sum(float(problem.unary[b, i, l]) for i, l in enumerate(x))
        for kernel, penalty in zip(problem.dense, problem.penalties, strict=True):
            for i, j in itertools.combinations(range(6), 2):
                energy += float(kernel[b, i, j]) * float(penalty[x[i], x[j]])
        energies.append(energy)
    ours = discrete_energy(labels, *on(problem))
    expected = torch.tensor(energies, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding


def test_discrete_energy_includes_the_self_term() -> None:
    problem = random_problem(1, 1, 3)
    labels = torch.tensor([[2]])
    diagonals = sum(
        k[0, 0, 0] * float(p[2, 2]) for k, p in zip(problem.dense, problem.penalties, strict=True)
    )
    expected = -problem.unary[0, 0, 2].item() + 0.5 * float(diagonals)
    assert discrete_energy(labels, *on(problem)).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_norm_is_that_of_the_free_energy() -> None:
    """A symmetric operator: autograd of the free energy, projected."""
    problem = random_problem(penalty="symmetric")
    q = Q.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(free_energy(q, *on(problem)).sum(), q)
    tangent = gradient - gradient.mean(-1, keepdim=True)
    expected = tangent.square().sum((1, 2)).sqrt()
    ours = gradient_norm(Q, *on(problem))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding


def test_largest_change_is_per_image() -> None:
    other = Q.clone()
    other[1, 3, 0] -= 0.25
    expected = torch.tensor([0.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(largest_change(Q, other), expected)


@pytest.mark.parametrize("name", ["norm_after", "norm_symmetric"])
def test_kl_divergence_is_the_cpp_dense_crfs(name: str) -> None:
    given = settings(name)
    image = torch.from_numpy(REFERENCE[f"{name}/image"]).float()
    unary = torch.from_numpy(REFERENCE[f"{name}/unary_logits"]).flatten(1).t()[None].contiguous()
    place = positions(image.shape[:2], image)
    wide = torch.cat([place / given["sxy"], image.flatten(0, 1) / given["srgb"]], dim=1)
    near = place / given["sxy_gaussian"]
    ones = torch.ones(1, len(place), 1)
    kernels = [
        Normalized(LatticeFilter(f[None]), given["normalization"], ones) for f in (near, wide)
    ]
    eye = torch.eye(unary.shape[2])  # that API's signs: a scalar attracts
    penalties = [-given[f"compat_{kernel}"] * eye for kernel in ("gaussian", "bilateral")]
    expected = REFERENCE[f"{name}/kl_per_pixel"]
    for t in range(len(expected)):
        q = mean_field(unary, kernels, [penalties], t + 1).softmax(-1)
        ours = kl_divergence(q, unary, kernels, penalties).item() / len(place)
        # Float32 sums in another order, the marginals amplified by up to 5 iterations.
        assert ours == pytest.approx(expected[t], rel=1e-4, abs=1e-4)


# invariants


def test_free_energy_bounds_log_z() -> None:
    """Gibbs: free energy >= -log Z for any q, where the self term is 0 for one-hot rows.

    Off the corners the self term of Potts lifts the relaxed energy further.
    """
    problem = random_problem(2, 3, 3, penalty="potts")
    labellings = torch.tensor(list(itertools.product(range(3), repeat=3)))
    energies = torch.stack(
        [discrete_energy(x.expand(2, -1), *on(problem)) for x in labellings], dim=1
    )
    log_z = (-energies).logsumexp(1)
    for t in range(5):
        q = mean_field(problem.unary, problem.kernels, [problem.penalties], t).softmax(-1)
        assert (free_energy(q, *on(problem)) >= -log_z).all()


def test_gradient_vanishes_at_a_fixed_point() -> None:
    problem = random_problem(strength=0.3, normalization="after")  # symmetric or not
    logits = mean_field(problem.unary, problem.kernels, [problem.penalties], 100)
    assert gradient_norm(logits.softmax(-1), *on(problem)).max() < 1e-10  # converged
    assert gradient_norm(problem.unary.softmax(-1), *on(problem)).min() > 1e-2


# trace


@pytest.mark.parametrize(
    "inference", [MeanField(damping=0.2), FrankWolfe("l2", step="decaying"), FrankWolfe()]
)
def test_trace_records_every_iteration(inference: Any) -> None:
    problem = random_problem(strength=0.8, penalty="symmetric")
    records = trace(inference, problem.unary, problem.kernels, [problem.penalties], 3)
    assert [record.iteration for record in records] == [0, 1, 2, 3]
    previous = None
    for t, record in enumerate(records):
        q = inference(problem.unary, problem.kernels, [problem.penalties], t).softmax(-1)
        expected = {
            "relaxed_energy": relaxed_energy(q, *on(problem)),
            "free_energy": free_energy(q, *on(problem)),
            "discrete_energy": discrete_energy(q.argmax(-1), *on(problem)),
            "gradient_norm": gradient_norm(q, *on(problem)),
            "largest_change": q.new_full((2,), torch.nan)
            if previous is None
            else largest_change(q, previous),
        }
        for name, value in expected.items():
            # The logarithm's rounding, times the 1 / q of a gradient's log q.
            torch.testing.assert_close(
                getattr(record, name), value, rtol=1e-9, atol=1e-9, equal_nan=True
            )
        previous = q


def test_trace_compares_untied_iterations_by_the_last_penalties() -> None:
    last = [2 * p for p in PROBLEM.penalties]
    pairwise = [PROBLEM.penalties, last, [0 * p for p in last]]
    records = trace(MeanField(), PROBLEM.unary, PROBLEM.kernels, pairwise, 2)
    start = relaxed_energy(PROBLEM.unary.softmax(-1), PROBLEM.unary, PROBLEM.kernels, last)
    torch.testing.assert_close(records[0].relaxed_energy, start)


def test_trace_ends_where_the_inference_does() -> None:
    problem = random_problem(strength=0.3)
    arguments = problem.unary, problem.kernels, [problem.penalties], 200
    for inference in (MeanField(tolerance=1e-3), ImplicitMeanField(tolerance=1e-3)):
        records = trace(inference, *arguments)
        assert 3 < len(records) < 50
        assert not records[-1].relaxed_energy.requires_grad


# edges


def test_hard_marginals_have_finite_diagnostics() -> None:
    q = torch.nn.functional.one_hot(Q.argmax(-1), 3).double()
    for function in FUNCTIONS:
        assert function(q, *on(PROBLEM)).isfinite().all()
    energy = discrete_energy(Q.argmax(-1), *on(PROBLEM))
    torch.testing.assert_close(free_energy(q, *on(PROBLEM)), energy)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_batch_is_its_images(function: Any) -> None:
    batch = function(Q, *on(PROBLEM))
    for b in range(2):
        alone = function(Q[b : b + 1], *on(PROBLEM.image(b)))
        torch.testing.assert_close(batch[b : b + 1], alone, rtol=1e-12, atol=1e-12)  # rounding
