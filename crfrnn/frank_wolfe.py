"""Regularised Frank-Wolfe (Le-Huu and Alahari, NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from crfrnn.checks import all_finite, check_between, check_choice, check_positive
from crfrnn.filters import Filter
from crfrnn.inference import (
    MEMORIES,
    Inference,
    Memory,
    Observer,
    Pairwise,
    check_problem,
    implementation_of,
    mean_field_update,
    per_iteration,
    recomputed,
)
from crfrnn.ops import rows_softmax

# Sparsemax: the Euclidean counterpart of softmax, with exact zeros.


def sparsemax(logits: Tensor) -> Tensor:
    """The point of the simplex nearest to the logits: argmin_s |s - z|^2.

        s = max(z - tau, 0),   tau such that sum_l s_l = 1,

    found by sorting: the support holds the k largest entries, k the largest number with
    1 + k z_(k) > z_(1) + ... + z_(k), and tau = (z_(1) + ... + z_(k) - 1) / k.
    On the support S the Jacobian is I - 1 1' / |S|, elsewhere 0.

    Args:
        logits: z, (..., L), floating point.

    Returns:
        (..., L), at least 0, sums to 1 over the last axis; differentiable in `logits`
        wherever the support does not change.

    Source: Martins and Astudillo, ICML 2016, algorithm 1 and proposition 2.
    """
    # A constant over labels changes nothing; with the maximum at 0, tau is in [-1, 0).
    z = logits - logits.detach().amax(dim=-1, keepdim=True)
    with torch.no_grad():  # the support is piecewise constant: the sort needs no gradient
        descending = z.sort(dim=-1, descending=True).values
        total = descending.cumsum(dim=-1)
        rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        size = (1 + rank * descending > total).sum(dim=-1, keepdim=True)
        support = z > (total.gather(-1, size - 1) - 1) / size
        size = support.sum(dim=-1, keepdim=True)
    tau = (torch.where(support, z, 0).sum(dim=-1, keepdim=True) - 1) / size
    return torch.where(support, z - tau, 0)


# The exact step along one Frank-Wolfe direction.

Regularizer = Literal["entropy", "l2"]
REGULARIZERS: tuple[str, ...] = get_args(Regularizer)
NEWTON_ITERATIONS = 50  # a bound; bisection alone would reach float64 precision by then


def line_search(
    x: Tensor,
    d: Tensor,
    update: Tensor,
    response: Tensor,
    regularizer: Regularizer,
    temperature: float,
) -> Tensor:
    """The gamma in [0, 1] that minimises E + lambda R on the segment from x to s = x + d.

    With c = <d, A d>, A x = sum_m K_m (x P_m'), the derivative along the segment is

        phi'(gamma) = gamma c - <u(x), d> + lambda <R'(x + gamma d), d>.

    By the choice of s, phi'(0) <= 0 and phi'(1) <= c. Where c <= 0, the whole of it is at
    most 0 and the answer is 1: so it is for every direction where attractive Potts meets a positive
    definite kernel, and there the search costs a filtering and changes nothing. Where c > 0,
    phi is convex: "l2" has its minimum in closed form, "entropy" by Newton's method on phi'
    inside a bracket. (For "entropy" the closed form of the quadratic part alone would not
    do: what bends phi for a Potts model is the entropy.)

    Where A is not symmetric, phi' is the field that mean field sets to zero and not the
    derivative of an energy.

    Args:
        x: x_t, (B, N, L).
        d: s - x, (B, N, L), s of the same regulariser and temperature.
        update: u(x) = unary - A x, (B, N, L).
        response: A d, (B, N, L).
        regularizer: R.
        temperature: lambda.

    Returns:
        gamma of each image, (B, 1, 1), differentiable in all tensors.
    """
    curvature = inner(d, response)
    if regularizer == "l2":
        curvature = curvature + temperature * inner(d, d)
    convex = curvature > 0
    # 1 where it is not used: 0 / 0 at a fixed point would turn its gradient to NaN.
    curvature = torch.where(convex, curvature, 1)
    if regularizer == "l2":
        gamma = (inner(update, d) - temperature * inner(x, d)) / curvature
    else:
        gamma = entropy_step(x, d, update, curvature, temperature)
    return torch.where(convex, gamma.clamp(0, 1), 1)


def entropy_step(
    x: Tensor, d: Tensor, update: Tensor, curvature: Tensor, temperature: float
) -> Tensor:
    """The root of phi' for R = sum x log x and c > 0, (B, 1, 1)."""
    tiny = torch.finfo(x.dtype).tiny
    linear = inner(update, d)

    def derivative(gamma: Tensor) -> Tensor:  # phi'; the 1 of log x + 1 meets sum_l d = 0
        log_x = (x + gamma * d).clamp_min(tiny).log()
        return gamma * curvature - linear + temperature * inner(log_x, d)

    def second_derivative(gamma: Tensor) -> Tensor:  # phi'' > 0
        return curvature + temperature * inner(d / (x + gamma * d).clamp_min(tiny), d)

    with torch.no_grad():
        low, high = torch.zeros_like(curvature), torch.ones_like(curvature)
        gamma = (low + high) / 2
        for _ in range(NEWTON_ITERATIONS):
            value = derivative(gamma)
            low, high = torch.where(value < 0, gamma, low), torch.where(value < 0, high, gamma)
            newton = gamma - value / second_derivative(gamma)
            inside = (newton >= low) & (newton <= high)
            previous, gamma = gamma, torch.where(inside, newton, (low + high) / 2)
            if (gamma - previous).abs().max() <= torch.finfo(x.dtype).eps:
                break
    # One more step of Newton, seen by autograd: d gamma = -d phi' / phi'' at the root,
    # the implicit function theorem.
    return gamma - derivative(gamma) / second_derivative(gamma).detach()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each image: (B, 1, 1)."""
    return (a * b).sum(dim=(1, 2), keepdim=True)


# Regularised Frank-Wolfe: inference by steps towards the minimiser of a linearised energy.
#
#     minimise over the simplex of every pixel   E(x) + lambda R(x),
#     s_t = argmin_s <grad E(x_t), s> + lambda R(s),   x_{t+1} = x_t + gamma_t (s_t - x_t)
#
# with E the relaxed energy (`crfrnn.diagnostics.relaxed_energy`), minus whose gradient is the
# mean-field update u. Two regularisers R:
#
#     "entropy"  sum x log x     s = softmax(u / lambda)      lambda = gamma = 1 is mean field
#     "l2"       1/2 |x|^2       s = sparsemax(u / lambda)
#
# Source: Le-Huu and Alahari, Regularized Frank-Wolfe for Dense CRFs, NeurIPS 2021.

Step = float | Tensor | Literal["decaying", "line_search"]


def frank_wolfe(
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
    *,
    regularizer: Regularizer = "entropy",
    temperature: float = 1.0,
    step: Step = 1.0,
    unary_mixture: float = 0.0,
    memory: Memory = "store",
    observe: Observer | None = None,
) -> Tensor:
    """Regularised Frank-Wolfe from x_0 = softmax(unary).

    Args:
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        pairwise: for each iteration, one (L, L) penalty mu W_m per kernel, as in `mean_field`.
        num_iterations: T.
        regularizer: R, "entropy" or "l2".
        temperature: lambda, above 0: lower is nearer to a hard assignment.
        step: gamma. A number in (0, 1] is a fixed step; "decaying" is 2 / (t + 2), t from 0;
            "line_search" minimises along the segment, for each image, at twice the cost. A
            tensor in (0, 1], () or (T,) with the last entry reused, may be learnt: pass, for
            example, raw.sigmoid().
        unary_mixture: weight in [0, 1) of softmax(unary) in the result. The paper trains with
            0.5 and tests with 0: sparsemax has no gradient where it is 0 or 1, the mixture does.
        memory: "store", or "recompute": x alone, (B, N, L), is kept of each iteration.
        observe: is shown x_0, ..., x_T, before the mixture.

    Returns:
        (B, N, L) logits log(x), whose softmax is x. Zeros of x count as the smallest normal
        number of the dtype (a logit of about -87 in float32) and pass no gradient.

    Raises:
        ValueError: shapes that do not fit, an option outside its range.
        TypeError: no floating-point tensor, penalties of another dtype or device.
    """
    check_problem(unary, kernels, pairwise, num_iterations)
    check_options(regularizer, temperature, step, unary_mixture, memory)
    if regularizer == "l2" and not torch.compiler.is_compiling() and not all_finite(unary):
        raise ValueError("unary must be finite for the l2 regularizer, got NaN or infinite values.")
    advance = frank_wolfe_step if memory == "store" else recomputed(frank_wolfe_step)
    start = x = rows_softmax(unary, implementation_of(kernels))
    if observe is not None:
        observe(x.detach())
    for t, penalties in enumerate(per_iteration(pairwise, num_iterations)):
        gamma = step_size(step, t)
        x = advance(x, unary, kernels, penalties, regularizer, temperature, gamma)
        if observe is not None:
            observe(x.detach())
    x = torch.lerp(x, start, unary_mixture)
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()


@final
@dataclass(frozen=True)
class FrankWolfe(Inference):
    """`frank_wolfe` with its options."""

    regularizer: Regularizer = "entropy"
    temperature: float = 1.0
    step: Step = 1.0
    unary_mixture: float = 0.0
    memory: Memory = "store"

    solve = staticmethod(frank_wolfe)

    def __post_init__(self) -> None:
        check_options(
            self.regularizer, self.temperature, self.step, self.unary_mixture, self.memory
        )


def frank_wolfe_step(
    x: Tensor,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    regularizer: Regularizer,
    temperature: float,
    gamma: float | Tensor | None,
) -> Tensor:
    """One iteration, x_t -> x_{t+1}, both (B, N, L); gamma None searches for it."""
    update = mean_field_update(x, unary, kernels, penalties)
    if regularizer == "entropy":
        s = rows_softmax(update / temperature, implementation_of(kernels))
    else:
        s = sparsemax(update / temperature)
    if gamma is None:
        d = s - x
        response = -mean_field_update(d, torch.zeros_like(d), kernels, penalties)
        gamma = line_search(x, d, update, response, regularizer, temperature)
    if isinstance(gamma, Tensor):
        return torch.lerp(x, s, gamma.to(x))
    return torch.lerp(x, s, gamma)  # exactly s where gamma = 1


def step_size(step: Step, t: int) -> float | Tensor | None:
    """gamma_t, or None where it is to be searched for."""
    if step == "line_search":
        return None
    if step == "decaying":
        return 2 / (t + 2)
    if isinstance(step, Tensor) and step.ndim == 1:
        return step[min(t, len(step) - 1)]
    return step


def check_options(
    regularizer: str, temperature: float, step: Step, unary_mixture: float, memory: str
) -> None:
    """Raise unless the options of `frank_wolfe` are in their ranges."""
    check_choice("regularizer", regularizer, REGULARIZERS)
    check_positive("temperature", temperature, "logits")
    check_between("unary_mixture", unary_mixture, "[0, 1)")
    check_choice("memory", memory, MEMORIES)
    if isinstance(step, str):
        check_choice("step", step, ["decaying", "line_search"])
    elif not isinstance(step, Tensor):
        check_between("step", step, "(0, 1]")
    elif step.ndim > 1 or step.numel() == 0 or not step.is_floating_point():
        raise ValueError(
            "step must be floating point of shape () or (T,), got "
            f"{tuple(step.shape)} of {step.dtype}."
        )
    elif not torch.compiler.is_compiling() and not ((step > 0) & (step <= 1)).all():
        raise ValueError(
            f"step must be in (0, 1], got {step.detach().cpu().tolist()}. A step that is learnt "
            "stays inside as raw.sigmoid()."
        )
