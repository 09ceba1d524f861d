"""The exact step along one Frank-Wolfe direction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Regularizer = Literal["entropy", "l2"]
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
