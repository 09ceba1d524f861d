"""max(x, bound) that a parameter can come back from: projected gradient as an operator."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound), with a gradient where a descent step would lead back above the bound.

    The gradient of max is 0 below the bound, so an entry that one step pushed there would
    stay for ever. Here g passes where x > bound, or where g < 0: the step -g raises x.
    At the bound itself a step down is stopped, as projection stops it, so that an entry
    started there gathers no debt. One that a long step carried below climbs back first:
    the parameter may be negative, what it stands for is not.

    Away from the bound, and above it, this is the true gradient; below it the truth is 0.

    Args:
        x: any shape, floating point.
        bound: in the unit of x; -inf leaves x and its gradient alone.

    Returns:
        max(x, bound), in the shape of x.

    Source: the reparametrisation of Balle, Laparra and Simoncelli's learned image compression
    (ICLR 2017), whose authors' library calls it `lower_bound`, "identity if towards".
    """
    return _LowerBound.apply(x, bound)  # type: ignore[no-any-return]


class _LowerBound(Function):
    """max(x, bound); its gradient knows the direction of the step."""

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clamp_min(bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.bound = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        return grad.where((x > ctx.bound) | (grad < 0), 0.0), None
