"""The fixed point of mean field, differentiated implicitly: memory of two iterations.

At a fixed point z = f(z) of the update f(z) = unary - sum_m K_m (softmax(z) P_m'), whatever
f depends on (unary, P_m, all that the kernels were built from) moves z by

    dz = (I - J)^-1 df,   J = df/dz,

so a gradient v at z becomes g = v + J' g, and g then passes through f once. Neither
direction keeps the path that led there: forward, damped mean field without gradient;
backward, the same damped iteration on g.

Source: the implicit function theorem, as Bai, Kolter and Koltun use it (Deep Equilibrium
Models, NeurIPS 2019, theorem 1). Damping by a turns I - J into (1 - a)(I - J): the fixed
point and its gradient are those of the undamped update.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from crfrnn.checks import check_between, check_positive
from crfrnn.filters import Filter
from crfrnn.inference import (
    Inference,
    Observer,
    Pairwise,
    check_problem,
    implementation_of,
    largest_change,
    mean_field_update,
    show,
)
from crfrnn.ops import rows_softmax


class ConvergenceWarning(UserWarning):
    """A fixed point was not reached: the result or the gradient is approximate."""


@dataclass
class FixedPointReport:
    """How near the last call, and the backward pass through it, came to their fixed points.

    Attributes:
        forward_residual: largest change of q under one more undamped update, (B,).
        forward_iterations: updates that were made.
        backward_residual: max |v + J' g - g| / max |v| of each image, (B,); None before the
            backward pass.
        backward_iterations: updates of g that were made.
    """

    forward_residual: Tensor | None = None
    forward_iterations: int = 0
    backward_residual: Tensor | None = None
    backward_iterations: int = 0


def implicit_mean_field(
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
    *,
    damping: float = 0.5,
    tolerance: float = 1e-4,
    report: FixedPointReport | None = None,
    observe: Observer | None = None,
) -> Tensor:
    """The fixed point of mean field, with the gradient of the fixed point itself.

    It converges where the penalties are weak enough for J to contract and, with damping, in
    many cases where they are not; where it does not, the residual says so and a warning is
    given. Strong attraction has several fixed points: the gradient is that of the one that
    was reached from softmax(unary).

    Args:
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        pairwise: one entry, for all iterations: an (L, L) penalty mu W_m per kernel.
        num_iterations: the most updates of the logits forward, and of g backward.
            A fixed point takes tens, not the 5 to 10 of unrolled mean field.
        damping: a, in [0, 1), of both directions.
        tolerance: of `FixedPointReport`'s residuals; an image at or below it is done.
        report: is filled, forward and backward.
        observe: is shown q_0, q_1, ... of the forward pass.

    Returns:
        (B, N, L) logits of one undamped update at the last iterate.

    Raises:
        ValueError: shapes that do not fit, an option outside its range, several entries of
            `pairwise`.
        TypeError: no floating-point tensor, penalties of another dtype or device.
        NotImplementedError: in the backward pass, when a gradient of the gradient is wanted.

    Warns:
        ConvergenceWarning: a residual above the tolerance, forward or backward.
    """
    check_problem(unary, kernels, pairwise, num_iterations)
    check_options(damping, tolerance)
    if len(pairwise) > 1:
        raise ValueError(
            "pairwise must hold one entry: a fixed point belongs to one update, got "
            f"{len(pairwise)}. Share the penalties over the iterations, or use mean_field."
        )
    report = FixedPointReport() if report is None else report
    penalties = pairwise[0]
    with torch.no_grad():
        logits = solve_forward(
            unary, kernels, penalties, num_iterations, damping, tolerance, report, observe
        )
    update = mean_field_update(logits.softmax(dim=-1), unary, kernels, penalties)
    report.forward_residual = largest_change(update.softmax(dim=-1), logits.softmax(dim=-1))
    report.backward_residual, report.backward_iterations = None, 0
    warn_above(tolerance, report.forward_residual, "forward", num_iterations)
    if not (kernels and update.requires_grad):
        return update  # nothing to differentiate, or no neighbours: the unary itself

    # The second graph of f: from z alone, where that of `update` starts at all but z.
    logits.requires_grad_()
    fixed = [penalty.detach() for penalty in penalties]
    again = mean_field_update(
        rows_softmax(logits, implementation_of(kernels)), unary.detach(), kernels, fixed
    )

    def transposed_jacobian(g: Tensor) -> Tensor:
        return torch.autograd.grad(again, logits, g, retain_graph=True)[0]

    def solve(v: Tensor) -> Tensor:
        return solve_backward(v, transposed_jacobian, num_iterations, damping, tolerance, report)

    result: Tensor = _ReplaceGradient.apply(update, solve)
    return result


@final
@dataclass(frozen=True)
class ImplicitMeanField(Inference):
    """`implicit_mean_field` with its options; `report` describes the latest call."""

    damping: float = 0.5
    tolerance: float = 1e-4
    report: FixedPointReport = field(default_factory=FixedPointReport, compare=False, repr=False)

    solve = staticmethod(implicit_mean_field)

    def __post_init__(self) -> None:
        check_options(self.damping, self.tolerance)


def solve_forward(
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    num_iterations: int,
    damping: float,
    tolerance: float,
    report: FixedPointReport,
    observe: Observer | None,
) -> Tensor:
    """Damped mean field from the unary until every image's undamped update is still."""
    logits = unary.detach()
    report.forward_iterations = 0
    show(observe, logits)
    for _ in range(num_iterations):
        q = logits.softmax(dim=-1)
        update = mean_field_update(q, unary, kernels, penalties)
        still = largest_change(update.softmax(dim=-1), q).view(-1, 1, 1) <= tolerance
        if still.all():
            break
        logits = torch.where(still, logits, torch.lerp(update, logits, damping))
        report.forward_iterations += 1
        show(observe, logits)
    return logits


def solve_backward(
    v: Tensor,
    transposed_jacobian: Callable[[Tensor], Tensor],
    num_iterations: int,
    damping: float,
    tolerance: float,
    report: FixedPointReport,
) -> Tensor:
    """g = v + J' g by damped iteration from g = v, (B, N, L)."""
    scale = v.abs().amax(dim=(1, 2), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)  # an image without gradient has no residual
    g = v
    for made in range(num_iterations + 1):  # the last product only measures the residual
        target = v + transposed_jacobian(g)
        residual = (target - g).abs().amax(dim=(1, 2), keepdim=True) / scale
        still = residual <= tolerance
        if still.all() or made == num_iterations:
            break
        g = torch.where(still, g, torch.lerp(target, g, damping))
    report.backward_residual, report.backward_iterations = residual.flatten(), made
    warn_above(tolerance, report.backward_residual, "backward", num_iterations)
    return g


class _ReplaceGradient(torch.autograd.Function):
    """The identity, whose gradient is what `solve` makes of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "implicit_mean_field has no gradient of its gradient (create_graph=True). "
                "Use mean_field, which has."
            )
        return ctx.solve(grad), None


def warn_above(tolerance: float, residual: Tensor, direction: str, num_iterations: int) -> None:
    """Warn unless every image's residual is at most the tolerance; NaN is not."""
    if not (residual <= tolerance).all():
        warnings.warn(
            f"the {direction} fixed point was not reached: residual "
            f"{residual.max().item():.3g}, tolerance {tolerance:.3g}, after {num_iterations} "
            "iterations. Allow more iterations, raise the damping, or weaken the penalties.",
            ConvergenceWarning,
            stacklevel=2,
        )


def check_options(damping: float, tolerance: float) -> None:
    """Raise unless the options of `implicit_mean_field` are in their ranges."""
    check_between("damping", damping, "[0, 1)")
    check_positive("tolerance", tolerance, "largest change of q")
