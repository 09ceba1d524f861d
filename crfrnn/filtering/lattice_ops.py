"""The registered operators of the permutohedral lattice: build, filter, and both gradients.

A lattice is eight plain tensors here (`Lattice`, and the rank), because an operator takes and
returns tensors; its number of vertices depends on the data, which the fake kernel says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering import cpu, lattice
from crfrnn.filtering.cpu_kernels import Kernel, source_grad
from crfrnn.filtering.lattice import Lattice, named
from crfrnn.filtering.ops import Grads, gaussian_features_grad
from crfrnn.operators import on_device_of, operator

Built = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@operator(
    "crfrnn::build_lattice(Tensor features, str accuracy) -> (Tensor, Tensor, Tensor, Tensor, "
    "Tensor, Tensor, Tensor, Tensor)",
)
def build_lattice(features: Tensor, accuracy: str) -> Built:
    """`lattice.build_lattice`: the fields of `Lattice` in order, and the rank."""
    tables, rank = lattice.build_lattice(features, named(accuracy))
    return *tables, rank


@build_lattice.register_kernel("cpu")
def _(features: Tensor, accuracy: str) -> Built:
    tables, rank = cpu.build_lattice(features, named(accuracy))
    return *tables, rank


@build_lattice.register_kernel("cuda")
def _(features: Tensor, accuracy: str) -> Built:
    from crfrnn.filtering import cuda

    with on_device_of(features):
        tables, rank = cuda.build_lattice(features, named(accuracy))
    return *tables, rank


@build_lattice.register_fake
def _(features: Tensor, accuracy: str) -> Built:
    batch, num_pixels, dim = features.shape
    pixels, size = batch * num_pixels, dim + 1
    vertices = torch.library.get_ctx().new_dynamic_size()
    cut = features.device.type == "cuda"
    segments = torch.library.get_ctx().new_dynamic_size() if cut else vertices
    index = features.new_empty(0, dtype=torch.int32)
    return (
        index.new_empty(pixels, size),
        features.new_empty(pixels, size),
        index.new_empty(pixels * size),
        features.new_empty(pixels * size),
        index.new_empty(segments),
        index.new_empty(vertices + 1 if cut else 0),
        index.new_empty(size, vertices + 1, 2 * named(accuracy).reach + 1),
        index.new_empty(pixels, size, dtype=torch.int8),
    )


def _save_build(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tables, rank = output
    ctx.shape, ctx.accuracy = inputs[0].shape, inputs[1]
    ctx.save_for_backward(rank)
    # splat_weights repeats slice_weights; the gradient takes one way, through the latter.
    slice_weights = Lattice(*tables).slice_weights
    ctx.mark_non_differentiable(*(table for table in output if table is not slice_weights))


def _build_backward(ctx: Any, *grads: Tensor) -> Grads:
    (rank,) = ctx.saved_tensors
    weights_grad = Lattice(*grads[:-1]).slice_weights
    return barycentric_features_grad(rank, weights_grad, ctx.accuracy).reshape(ctx.shape), None


build_lattice.register_autograd(_build_backward, setup_context=_save_build)


@operator("crfrnn::barycentric_features_grad(Tensor rank, Tensor grad, str accuracy) -> Tensor")
def barycentric_features_grad(rank: Tensor, grad: Tensor, accuracy: str) -> Tensor:
    """`lattice.barycentric_features_grad`; not differentiable itself."""
    return lattice.barycentric_features_grad(rank, grad, named(accuracy).scale)


@barycentric_features_grad.register_fake
def _(rank: Tensor, grad: Tensor, accuracy: str) -> Tensor:
    return grad.new_empty(grad.shape[0], grad.shape[1] - 1)


@operator(
    "crfrnn::lattice_filter(Tensor features, Tensor v, Tensor slice_vertices, "
    "Tensor slice_weights, Tensor splat_pixels, Tensor splat_weights, Tensor splat_offsets, "
    "Tensor splat_segments, Tensor stencils, str accuracy, bool transposed) -> Tensor",
)
def lattice_filter(
    features: Tensor,
    v: Tensor,
    slice_vertices: Tensor,
    slice_weights: Tensor,
    splat_pixels: Tensor,
    splat_weights: Tensor,
    splat_offsets: Tensor,
    splat_segments: Tensor,
    stencils: Tensor,
    accuracy: str,
    transposed: bool,
) -> Tensor:
    """`lattice.lattice_filter`.

    The lattice is given; `features` is here for the gradient of the Gaussian, `slice_weights`
    takes that of the lattice. The caller detaches one of the two.
    """
    tables = (
        slice_vertices,
        slice_weights,
        splat_pixels,
        splat_weights,
        splat_offsets,
        splat_segments,
        stencils,
    )
    return lattice.lattice_filter(Lattice(*tables), v, named(accuracy), transposed=transposed)


@lattice_filter.register_kernel("cpu")
def _(features: Tensor, v: Tensor, *rest: Any) -> Tensor:
    *tables, accuracy, transposed = rest
    return cpu.lattice_filter(Lattice(*tables), v, named(accuracy), transposed=transposed)


@lattice_filter.register_kernel("cuda")
def _(features: Tensor, v: Tensor, *rest: Any) -> Tensor:
    from crfrnn.filtering import cuda

    *tables, accuracy, transposed = rest
    with on_device_of(v):
        return cuda.lattice_filter(Lattice(*tables), v, named(accuracy), transposed=transposed)


@lattice_filter.register_fake
def _(features: Tensor, v: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::lattice_weights_grad(Tensor v, Tensor grad, Tensor slice_vertices, "
    "Tensor slice_weights, Tensor splat_pixels, Tensor splat_weights, Tensor splat_offsets, "
    "Tensor splat_segments, Tensor stencils, str accuracy, bool transposed) -> Tensor",
)
def lattice_weights_grad(
    v: Tensor,
    grad: Tensor,
    slice_vertices: Tensor,
    slice_weights: Tensor,
    splat_pixels: Tensor,
    splat_weights: Tensor,
    splat_offsets: Tensor,
    splat_segments: Tensor,
    stencils: Tensor,
    accuracy: str,
    transposed: bool,
) -> Tensor:
    """`lattice.lattice_weights_grad`; not differentiable itself."""
    tables = (
        slice_vertices,
        slice_weights,
        splat_pixels,
        splat_weights,
        splat_offsets,
        splat_segments,
        stencils,
    )
    return lattice.lattice_weights_grad(
        Lattice(*tables), v, grad, named(accuracy), transposed=transposed
    )


@lattice_weights_grad.register_kernel("cuda")
def _(v: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    from crfrnn.filtering import cuda

    *tables, accuracy, transposed = rest
    with on_device_of(v):
        return cuda.lattice_weights_grad(
            Lattice(*tables), v, grad, named(accuracy), transposed=transposed
        )


@lattice_weights_grad.register_fake
def _(v: Tensor, grad: Tensor, slice_vertices: Tensor, slice_weights: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(slice_weights)


@operator(
    "crfrnn::lattice_features_grad(Tensor features, Tensor v, Tensor grad, "
    "Tensor slice_vertices, Tensor slice_weights, Tensor splat_pixels, Tensor splat_weights, "
    "Tensor splat_offsets, Tensor splat_segments, Tensor stencils, str accuracy, "
    "bool transposed) -> Tensor",
)
def lattice_features_grad(
    features: Tensor,
    v: Tensor,
    grad: Tensor,
    slice_vertices: Tensor,
    slice_weights: Tensor,
    splat_pixels: Tensor,
    splat_weights: Tensor,
    splat_offsets: Tensor,
    splat_segments: Tensor,
    stencils: Tensor,
    accuracy: str,
    transposed: bool,
) -> Tensor:
    """`ops.gaussian_features_grad` by the lattice's filters; not differentiable itself."""
    tables = (
        slice_vertices,
        slice_weights,
        splat_pixels,
        splat_weights,
        splat_offsets,
        splat_segments,
        stencils,
    )

    def kernel(x: Tensor) -> Tensor:
        result: Tensor = lattice_filter(features, x, *tables, accuracy, transposed)
        return result

    def adjoint(x: Tensor) -> Tensor:
        result: Tensor = lattice_filter(features, x, *tables, accuracy, not transposed)
        return result

    return gaussian_features_grad(kernel, adjoint, features, v, grad).contiguous()


@lattice_features_grad.register_kernel("cpu")
def _(features: Tensor, v: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    *tables, accuracy, transposed = rest
    kernel = Kernel(features, (Lattice(*tables), named(accuracy)))
    native = source_grad(kernel, v, grad, transposed=transposed)
    if native is not None:
        return native
    plain: Tensor = lattice_features_grad.function(features, v, grad, *rest)
    return plain


@lattice_features_grad.register_fake
def _(features: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _save_lattice(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, v, *tables, ctx.accuracy, ctx.transposed = inputs
    to_features, _, _, to_weights = ctx.needs_input_grad[:4]
    ctx.save_for_backward(features, v if to_features or to_weights else None, *tables)


def _lattice_backward(ctx: Any, grad: Tensor) -> Grads:
    features, v, *tables = ctx.saved_tensors
    grad = grad.contiguous()

    def adjoint(x: Tensor) -> Tensor:
        result: Tensor = lattice_filter(features, x, *tables, ctx.accuracy, not ctx.transposed)
        return result

    options = (ctx.accuracy, ctx.transposed)
    to_features, to_v, _, to_weights = ctx.needs_input_grad[:4]
    return (
        lattice_features_grad(features, v, grad, *tables, *options) if to_features else None,
        adjoint(grad) if to_v else None,
        None,
        lattice_weights_grad(v, grad, *tables, *options) if to_weights else None,
        *(None,) * 7,
    )


lattice_filter.register_autograd(_lattice_backward, setup_context=_save_lattice)
