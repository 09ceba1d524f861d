"""Regularised Frank-Wolfe: inference by steps towards the minimiser of a linearised energy.

    minimise over the simplex of every pixel   E(x) + lambda R(x),
    s_t = argmin_s <grad E(x_t), s> + lambda R(s),   x_{t+1} = x_t + gamma_t (s_t - x_t)

with E the relaxed energy (`crfrnn.diagnostics.relaxed_energy`), minus whose gradient is
the mean-field update u. Two regularisers R:

    "entropy"  sum x log x     s = softmax(u / lambda)      lambda = gamma = 1 is mean field
    "l2"       1/2 |x|^2       s = sparsemax(u / lambda)

Source: Le-Huu and Alahari, Regularized Frank-Wolfe for Dense CRFs, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from crfrnn.checks import check_between, check_choice, check_positive
from crfrnn.filtering import Filter
from crfrnn.inference import (
    Inference,
    Memory,
    Observer,
    Pairwise,
    check_problem,
    mean_field_update,
    per_iteration,
    recomputed,
)
from crfrnn.line_search import Regularizer, line_search
from crfrnn.rows_ops import rows_softmax
from crfrnn.sparsemax import sparsemax

Step = float | Tensor | Literal["decaying", "line_search"]


@final
@dataclass(frozen=True)
class FrankWolfe(Inference):
    """`frank_wolfe` with its options."""

    regularizer: Regularizer = "entropy"
    temperature: float = 1.0
    step: Step = 1.0
    unary_mixture: float = 0.0
    memory: Memory = "store"

    def __post_init__(self) -> None:
        check_options(
            self.regularizer, self.temperature, self.step, self.unary_mixture, self.memory
        )

    def __call__(
        self,
        unary: Tensor,
        kernels: Sequence[Filter],
        pairwise: Pairwise,
        num_iterations: int,
        *,
        observe: Observer | None = None,
    ) -> Tensor:
        """`frank_wolfe` on one problem."""
        return frank_wolfe(
            unary,
            kernels,
            pairwise,
            num_iterations,
            regularizer=self.regularizer,
            temperature=self.temperature,
            step=self.step,
            unary_mixture=self.unary_mixture,
            memory=self.memory,
            observe=observe,
        )


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
    advance = frank_wolfe_step if memory == "store" else recomputed(frank_wolfe_step)
    start = x = rows_softmax(unary)
    if observe is not None:
        observe(x.detach())
    for t, penalties in enumerate(per_iteration(pairwise, num_iterations)):
        gamma = step_size(step, t)
        x = advance(x, unary, kernels, penalties, regularizer, temperature, gamma)
        if observe is not None:
            observe(x.detach())
    x = torch.lerp(x, start, unary_mixture)
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()


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
        s = rows_softmax(update / temperature)
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
    check_choice("regularizer", regularizer, get_args(Regularizer))
    check_positive("temperature", temperature, "logits")
    check_between("unary_mixture", unary_mixture, "[0, 1)")
    check_choice("memory", memory, get_args(Memory))
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
