"""Energies and divergences: against written sums, enumeration and published numbers."""

from __future__ import annotations

import ast
import itertools
import re
from functools import partial
from pathlib import Path
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
from tests.crfrnn.problems import Array, Problem, neighbours, random_problem

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


# shape


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shape_and_dtype(function: Any) -> None:
    assert function(Q, *on(PROBLEM)).shape == (2,)
    assert function(Q.float(), PROBLEM.unary.float(), [], []).dtype == torch.float32


# errors


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_input(function: Any) -> None:
    with pytest.raises(ValueError, match=r"q must be \(2, 6, 3\) like the unary, got \(1, 6, 3\)"):
        function(Q[:1], *on(PROBLEM))
    with pytest.raises(ValueError, match="sequence of 2"):
        function(Q, PROBLEM.unary, PROBLEM.kernels, PROBLEM.penalties[0])
    with pytest.raises(TypeError, match="unary must be a torch"):
        function(Q, PROBLEM.unary.numpy(), PROBLEM.kernels, PROBLEM.penalties)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(2, 6), TypeError, r"int64, got torch\.float32"),
        (torch.zeros(2, 5, dtype=torch.int64), ValueError, r"must be \(2, 6\) in 0\.\.2"),
        (torch.full((2, 6), 255), ValueError, r"got \(2, 6\) in 255\.\.255\. Give void"),
        (torch.full((2, 6), -1), ValueError, r"in -1\.\.-1"),
    ],
)
def test_bad_labels(labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        discrete_energy(labels, *on(PROBLEM))


def test_trace_checks_as_the_inference_does() -> None:
    with pytest.raises(ValueError, match="at least one iteration"):
        trace(MeanField(), PROBLEM.unary, PROBLEM.kernels, [], 2)


# oracle


@pytest.mark.parametrize("normalization", ["symmetric", "after", "none"])
def test_energies_equal_the_written_sums(normalization: Any) -> None:
    problem = random_problem(normalization=normalization)
    entropy, unary, pairs = parts(Q, problem)
    for function, expected in (
        (relaxed_energy, -unary + 0.5 * pairs),
        (free_energy, entropy - unary + 0.5 * pairs),
        (kl_divergence, entropy - unary + pairs),
    ):
        ours = function(Q, *on(problem))
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


REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
META = dict(line.split(": ", 1) for line in REFERENCE["meta"].tolist())
PUBLISHED = ["norm_before", "norm_after", "norm_symmetric", "compat_vector", "compat_matrix"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_kl_divergence_is_the_cpp_dense_crfs(name: str) -> None:
    settings = dict(re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", META[name]))
    image = torch.from_numpy(REFERENCE[f"{name}/image"]).float()
    unary = torch.from_numpy(REFERENCE[f"{name}/unary_logits"]).flatten(1).t()[None].contiguous()
    num_labels = unary.shape[2]
    height, width = image.shape[:2]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], dim=2).float()
    wide = torch.cat([place / float(settings["sxy"]), image / float(settings["srgb"])], dim=2)
    near = place / float(settings["sxy_gaussian"])
    kernels = [
        Normalized(
            LatticeFilter(f.flatten(0, 1)[None]),
            settings["normalization"],
            torch.ones(1, height * width, 1),
        )
        for f in (near, wide)
    ]
    penalties = []
    for key in ("compat_gaussian", "compat_bilateral"):
        compat = torch.tensor(ast.literal_eval(settings[key]), dtype=torch.float32)
        if compat.ndim == 0:  # that API's signs: a scalar attracts, the rest is an energy
            penalties.append(-compat * torch.eye(num_labels))
        else:
            penalties.append(torch.diag(compat) if compat.ndim == 1 else (compat + compat.t()) / 2)
    expected = torch.from_numpy(REFERENCE[f"{name}/kl_per_pixel"])
    ours = [
        kl_divergence(
            mean_field(unary, kernels, [penalties], t + 1).softmax(-1), unary, kernels, penalties
        ).double()
        / (height * width)
        for t in range(len(expected))
    ]
    # Float32 sums in another order, the marginals amplified by up to 5 sharpening iterations.
    torch.testing.assert_close(torch.cat(ours), expected, rtol=1e-4, atol=1e-4)


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


def test_attractive_mean_field_descends() -> None:
    """A negative definite pairwise term on the tangent: every parallel update descends."""
    problem = random_problem(strength=2.0, penalty="potts")
    records = trace(MeanField(), *on(problem)[:2], [problem.penalties], 10)
    values = torch.stack([record.free_energy for record in records])
    assert (values.diff(dim=0) <= 1e-12).all()  # rounding


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
        logits = inference(problem.unary, problem.kernels, [problem.penalties], t)
        q = logits.softmax(-1)
        # The logarithm's rounding, times the 1 / q of a gradient's log q.
        close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
        for ours, function in (
            (record.relaxed_energy, relaxed_energy),
            (record.free_energy, free_energy),
        ):
            close(ours, function(q, *on(problem)))
        discrete = discrete_energy(q.argmax(-1), *on(problem))
        close(record.discrete_energy, discrete)
        norm = gradient_norm(q, *on(problem))
        close(record.gradient_norm, norm)
        if previous is None:
            assert record.largest_change.isnan().all()
        else:
            change = largest_change(q, previous)
            close(record.largest_change, change)
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


@pytest.mark.parametrize(("num_pixels", "num_labels"), [(1, 3), (4, 1), (1, 1)])
def test_one_pixel_and_one_label(num_pixels: int, num_labels: int) -> None:
    problem = random_problem(2, num_pixels, num_labels)
    q = problem.unary.softmax(-1)
    entropy, unary, pairs = parts(q, problem)
    ours = free_energy(q, *on(problem))
    expected = torch.from_numpy(entropy - unary + 0.5 * pairs)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)  # rounding


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
