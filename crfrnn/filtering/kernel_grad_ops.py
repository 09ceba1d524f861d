"""The registered gradients of a message to what its kernel is made of.

    d <grad, after * K (before * v)>   to theta or features of K, to after and to before

with after and before (B, N, 1), the factors of `Normalized`, None for 1. The two gradients to
them come together, (2, B, N, 1); that to a factor of None means nothing. Not differentiable
themselves, the composed ones are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu, lattice_ops, ops
from crfrnn.filtering.accuracy import named
from crfrnn.filtering.lattice import Lattice
from crfrnn.operators import operator


@operator("crfrnn::lattice_kernel_grad")
def lattice_kernel_grad(
    features: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    slice_vertices: Tensor,
    slice_weights: Tensor,
    splat_pixels: Tensor,
    splat_weights: Tensor,
    splat_offsets: Tensor,
    stencils: Tensor,
    accuracy: str,
) -> tuple[Tensor, Tensor]:
    """To the features, (B, N, d), by the Gaussian's own derivative, and to the factors."""
    tables = (slice_vertices, slice_weights, splat_pixels, splat_weights, splat_offsets, stencils)
    return composed_lattice_kernel_grad(features, v, before, grad, after, *tables, accuracy)


@lattice_kernel_grad.register_kernel("cpu")
def _(
    features: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    *tables, accuracy = rest
    native = cpu.lattice_kernel_grad(
        Lattice(*tables), features, v, before, grad, after, named(accuracy), transposed=False
    )
    if native is not None:
        return native
    return composed_lattice_kernel_grad(features, v, before, grad, after, *rest)


def composed_lattice_kernel_grad(
    features: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """`lattice_kernel_grad` of filters."""
    sent, received = scaled(v, before), scaled(grad, after)
    features_grad = lattice_ops.lattice_features_grad(features, sent, received, *rest, False)
    # The lattice is given: through these its features receive nothing.
    given = features.detach()
    to_after = grad * lattice_ops.lattice_filter(given, sent, *rest, False)
    to_before = v * lattice_ops.lattice_filter(given, received, *rest, True)
    return features_grad, torch.stack([to_after, to_before]).sum(-1, keepdim=True)


@operator("crfrnn::separable_kernel_grad")
def separable_kernel_grad(
    theta: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    shape: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """To theta, (ndim,), and to the factors."""
    return composed_separable_kernel_grad(theta, v, before, grad, after, shape)


@separable_kernel_grad.register_kernel("cpu")
def _(
    theta: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    shape: Sequence[int],
) -> tuple[Tensor, Tensor]:
    native = cpu.separable_kernel_grad(theta, v, before, grad, after, shape)
    if native is not None:
        return native
    return composed_separable_kernel_grad(theta, v, before, grad, after, shape)


def composed_separable_kernel_grad(
    theta: Tensor,
    v: Tensor,
    before: Tensor | None,
    grad: Tensor,
    after: Tensor | None,
    shape: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """`separable_kernel_grad` of filters."""
    sent, received = scaled(v, before), scaled(grad, after)
    theta_grad = ops.separable_theta_grad(theta, sent, received, shape)
    to_after = grad * ops.separable_filter(theta, sent, shape)
    to_before = v * ops.separable_filter(theta, received, shape)
    return theta_grad, torch.stack([to_after, to_before]).sum(-1, keepdim=True)


@lattice_kernel_grad.register_fake
@separable_kernel_grad.register_fake
def _(own: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    own_grad = torch.empty_like(own, memory_format=torch.contiguous_format)
    return own_grad, v.new_empty(2, *v.shape[:2], 1)


def scaled(v: Tensor, factor: Tensor | None) -> Tensor:
    """factor * v."""
    return v if factor is None else v * factor
