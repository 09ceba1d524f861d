"""The registered operators: schema, shapes, gradient. The lattice's are in `lattice_ops.py`.

Each operator is one whole filter, opaque to torch.compile and torch.export; its arithmetic is in
the file of its name. A device-specific version is registered beside the plain one.

Gradients. That of K v in v is K' g, so a filter is its own backward. That in the features comes
in two forms: of the Gaussian itself (`gaussian_features_grad`), and of the lattice that is
really computed (through its barycentric weights). What is not differentiated raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu, exact, separable, window
from crfrnn.filtering.cpu_kernels import Kernel, source_grad
from crfrnn.operators import on_device_of, operator

Grads = tuple[Any, ...]


def gaussian_features_grad(
    forward: Callable[[Tensor], Tensor],
    transposed: Callable[[Tensor], Tensor],
    features: Tensor,
    v: Tensor,
    grad: Tensor,
) -> Tensor:
    """d <grad, K v> / d features of a Gaussian kernel, by filters alone: (B, N, d).

        d/df_i = sum_j k_ij (f_j - f_i) (grad_i . v_j + v_i . grad_j)

    and sum_j k_ij f_j v_j is the filter applied to f v: 2 d + 2 filters in all. Exact for the
    exact sum; for an approximation of it, it approximates the Gaussian's own derivative.

    Args:
        forward: v -> K v on (B, N, L).
        transposed: v -> K' v.
        features: (B, N, d).
        v: (B, N, L).
        grad: (B, N, L), of K v.
    """
    # Positions count from the middle: the two terms below cancel, and the less the better.
    features = features - features.mean(1, keepdim=True)
    smooth_v, smooth_grad = forward(v), transposed(grad)
    columns = []
    for f in torch.split(features, 1, dim=2):
        received = grad * (forward(f * v) - f * smooth_v)
        sent = v * (transposed(f * grad) - f * smooth_grad)
        columns.append((received + sent).sum(2))
    return torch.stack(columns, dim=2)


# exact


@operator("crfrnn::exact_order(Tensor features) -> Tensor")
def exact_order(features: Tensor) -> Tensor:
    """`exact.exact_order`."""
    return exact.exact_order(features)


@exact_order.register_kernel("cuda")
def _(features: Tensor) -> Tensor:
    from crfrnn.filtering import cuda_exact

    return cuda_exact.exact_order(features)


@exact_order.register_fake
def _(features: Tensor) -> Tensor:
    return features.new_empty(features.shape[:2], dtype=torch.int64)


@operator("crfrnn::exact_filter(Tensor features, Tensor v, Tensor order, float epsilon) -> Tensor")
def exact_filter(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    """`exact.exact_filter`, and on the GPU what `filters.ExactFilter` says of order, epsilon."""
    return exact.exact_filter(features, v)


@exact_filter.register_kernel("cuda")
def _(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    from crfrnn.filtering import cuda_exact

    with on_device_of(v):
        return cuda_exact.exact_filter(features, v, order, epsilon)


@exact_filter.register_fake
def _(features: Tensor, v: Tensor, order: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::exact_features_grad(Tensor features, Tensor v, Tensor grad, Tensor order, "
    "float epsilon) -> Tensor",
)
def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float
) -> Tensor:
    """`gaussian_features_grad` of the exact sum; not differentiable itself."""
    return gaussian_features_grad(*_exact_both_ways(features, order, epsilon), features, v, grad)


@exact_features_grad.register_kernel("cuda")
def _(features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float) -> Tensor:
    from crfrnn.filtering import cuda_exact

    with on_device_of(v):
        own = cuda_exact.exact_features_grad(features, v, grad, order, epsilon)
    if own is not None:
        return own
    plain: Tensor = exact_features_grad.function(features, v, grad, order, epsilon)
    return plain


@exact_features_grad.register_fake
def _(features: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _exact_both_ways(
    features: Tensor, order: Tensor, epsilon: float
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """v -> K v and v -> K' v, which are one."""

    def kernel(x: Tensor) -> Tensor:
        result: Tensor = exact_filter(features, x, order, epsilon)
        return result

    return kernel, kernel


def _save_exact(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, v, order, ctx.epsilon = inputs
    # v is as large as q and there is one for every iteration: kept only if features learn.
    ctx.save_for_backward(features, v if ctx.needs_input_grad[0] else None, order)


def _exact_backward(ctx: Any, grad: Tensor) -> Grads:
    features, v, order = ctx.saved_tensors
    grad = grad.contiguous()
    kernel, transposed = _exact_both_ways(features, order, ctx.epsilon)
    to_features, to_v = ctx.needs_input_grad[:2]
    features_grad = None
    if to_features and torch.is_grad_enabled():  # filter by filter, for a second derivative
        features_grad = gaussian_features_grad(kernel, transposed, features, v, grad)
    elif to_features:
        features_grad = exact_features_grad(features, v, grad, order, ctx.epsilon)
    return features_grad, transposed(grad) if to_v else None, None, None


exact_filter.register_autograd(_exact_backward, setup_context=_save_exact)


# window


@operator(
    "crfrnn::window_filter(Tensor features, Tensor v, SymInt[] shape, SymInt radius, "
    "SymInt dilation) -> Tensor",
)
def window_filter(
    features: Tensor, v: Tensor, shape: Sequence[int], radius: int, dilation: int
) -> Tensor:
    """`window.window_filter`."""
    return window.window_filter(features, v, shape, radius, dilation)


@window_filter.register_fake
def _(features: Tensor, v: Tensor, shape: Sequence[int], radius: int, dilation: int) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


def _save_window(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, v, *ctx.window = inputs
    ctx.save_for_backward(features, v if ctx.needs_input_grad[0] else None)


def _window_backward(ctx: Any, grad: Tensor) -> Grads:
    features, v = ctx.saved_tensors
    grad = grad.contiguous()

    def kernel(x: Tensor) -> Tensor:
        result: Tensor = window_filter(features, x.contiguous(), *ctx.window)
        return result

    to_features, to_v = ctx.needs_input_grad[:2]
    return (
        gaussian_features_grad(kernel, kernel, features, v, grad) if to_features else None,
        kernel(grad) if to_v else None,
        None,
        None,
        None,
    )


window_filter.register_autograd(_window_backward, setup_context=_save_window)


# separable


@operator("crfrnn::separable_filter(Tensor theta, Tensor v, SymInt[] shape) -> Tensor")
def separable_filter(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    """`separable.separable_filter`."""
    return separable.separable_filter(theta, v, shape)


@separable_filter.register_kernel("cpu")
def _(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    return cpu.separable_filter(theta, v, shape)


@separable_filter.register_kernel("cuda")
def _(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    from crfrnn.filtering import cuda_separable

    with on_device_of(v):
        return cuda_separable.separable_filter(theta, v, shape)


@separable_filter.register_fake
def _(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::separable_theta_grad(Tensor theta, Tensor v, Tensor grad, SymInt[] shape) -> Tensor",
)
def separable_theta_grad(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    """`separable.separable_theta_grad`; not differentiable itself."""
    return separable.separable_theta_grad(theta, v, grad, shape)


@separable_theta_grad.register_kernel("cpu")
def _(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    native = source_grad(Kernel(theta, shape), v, grad, transposed=False)
    return separable.separable_theta_grad(theta, v, grad, shape) if native is None else native


@separable_theta_grad.register_kernel("cuda")
def _(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    from crfrnn.filtering import cuda_separable

    with on_device_of(v):
        return cuda_separable.separable_theta_grad(theta, v, grad, shape)


@separable_theta_grad.register_fake
def _(theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty_like(theta)


def _save_separable(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    theta, v, ctx.shape = inputs
    ctx.save_for_backward(theta, v if ctx.needs_input_grad[0] else None)


def _separable_backward(ctx: Any, grad: Tensor) -> Grads:
    theta, v = ctx.saved_tensors
    grad = grad.contiguous()
    to_theta, to_v = ctx.needs_input_grad[:2]
    return (
        separable_theta_grad(theta, v, grad, ctx.shape) if to_theta else None,
        separable_filter(theta, grad, ctx.shape) if to_v else None,
        None,
    )


separable_filter.register_autograd(_separable_backward, setup_context=_save_separable)
