"""Registered operators, as `torch.library.custom_op` makes them, without the compiler behind it.

That decorator keeps the compiler out of an operator's body, and for this imports all of it at the
first call: seconds. The body of an operator that is registered from its schema is opaque as it is.
The schema is written out: what PyTorch infers from annotations, and from which, depends on its
release.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

import torch
from torch import Tensor
from torch._ops import OpOverload

Function = Callable[..., Any]


@final
class Operator:
    """A function, which modifies none of its arguments, as a registered operator.

    Args:
        schema: "crfrnn::" and the function's own name, then its arguments and what it returns.
        function: the kernel of every device that has no other.
        device_types: those that `function` serves; "default" is all of them.
    """

    def __init__(self, schema: str, function: Function, device_types: str) -> None:
        name = schema[: schema.index("(")]
        self.name = name
        self.function = function
        torch.library.define(name, schema[len(name) :], tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, device_types, function)
        namespace, own = name.split("::")
        self.overload: OpOverload[..., Any] = getattr(getattr(torch.ops, namespace), own).default
        self._backward: Function = self._refuse
        self._setup_context: Function = lambda ctx, inputs, output: None
        torch.library.register_autograd(
            name,
            lambda ctx, *grads: self._backward(ctx, *grads),
            setup_context=lambda ctx, inputs, output: self._setup_context(ctx, inputs, output),
        )

    def _refuse(self, ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            f"no autograd formula was registered for {self.name}: it is not differentiable."
        )

    def __call__(self, *arguments: Any) -> Any:
        """The function, through the dispatcher."""
        return self.overload(*arguments)

    def register_kernel(self, device_type: str) -> Callable[[Function], Function]:
        """A decorator: another function for the tensors of one device."""

        def register(function: Function) -> Function:
            torch.library.impl(self.name, device_type, function)
            return function

        return register

    def register_fake(self, function: Function) -> Function:
        """A decorator: shapes and dtypes of what the operator returns, without values."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(self, backward: Function, *, setup_context: Function) -> None:
        """The gradient, and what it saves; without it, a backward pass raises."""
        self._backward, self._setup_context = backward, setup_context


def on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Where the kernels of Triton run, which take the current device, not that of their tensors."""
    guard: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return guard


def operator(schema: str, device_types: str = "default") -> Callable[[Function], Operator]:
    """A decorator that registers a function: see `Operator`."""
    return lambda function: Operator(schema, function, device_types)
