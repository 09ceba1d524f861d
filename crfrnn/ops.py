"""The registered operators: schema, shapes, gradient, and the choice of an implementation.

Each is one whole filter, or several whole mean-field updates, opaque to torch.compile and
torch.export. Its arithmetic has the same name in `plain.py` and `lattice.py` ("plain"), `cpu.py`
("native") and `gpu/` ("gpu"); where a path has no function of that name, or does not take these
tensors, the plain one serves.

Gradients. That of K v in v is K' g, so a filter is its own backward. That in the features comes
in two forms: of the Gaussian itself (`plain.gaussian_features_grad`), and of the lattice that is
really computed (through its barycentric weights). What is not differentiated raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from types import ModuleType
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import Parameter

from crfrnn import cpu, plain
from crfrnn.lattice import Lattice, named
from crfrnn.lattice import barycentric_features_grad as plain_barycentric_features_grad

Function = Callable[..., Any]
Grads = tuple[Any, ...]
Implementation = Literal["automatic", "plain", "native", "gpu"]
IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)

# Registration, as `torch.library.custom_op` does it, without the compiler behind it.
#
# That decorator keeps the compiler out of an operator's body, and for this imports all of it at
# the first call: seconds. The body of an operator that is registered from its schema is opaque as
# it is. The schema is written out: what PyTorch infers from annotations depends on its release.


@final
class Operator:
    """A function, which modifies none of its arguments, as a registered operator.

    Args:
        schema: "crfrnn::" and the function's own name, then its arguments and what it returns.
        function: for the tensors of any device.
    """

    def __init__(self, schema: str, function: Function) -> None:
        name = schema[: schema.index("(")]
        self.name = name
        torch.library.define(name, schema[len(name) :], tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(name, "default", function)
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

    def register_fake(self, function: Function) -> Function:
        """A decorator: shapes and dtypes of what the operator returns, without values."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(self, backward: Function, *, setup_context: Function) -> None:
        """The gradient, and what it saves; without it, a backward pass raises."""
        self._backward, self._setup_context = backward, setup_context


def operator(schema: str) -> Callable[[Function], Operator]:
    """A decorator that registers a function: see `Operator`."""
    return lambda function: Operator(schema, function)


def path_of(implementation: str, like: Tensor) -> ModuleType:
    """The module whose functions serve tensors on the device of `like`."""
    if implementation == "automatic":
        implementation = {"cpu": "native", "cuda": "gpu"}.get(like.device.type, "plain")
    if implementation == "gpu":
        from crfrnn import gpu

        return gpu
    return cpu if implementation == "native" else plain


def run(name: str, implementation: str, like: Tensor, *arguments: Any, **options: Any) -> Any:
    """Call the function of that name of the implementation that serves."""
    function = getattr(path_of(implementation, like), name, None) or getattr(plain, name)
    with device_of(like):
        return function(*arguments, **options)


def device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Run Triton's kernels on the device of their tensors; by themselves they take the current."""
    if not tensor.is_cuda:
        return nullcontext()
    guard: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return guard


def serves_updates(implementation: str, unary: Tensor) -> bool:
    """Tell whether `mean_field_updates` takes such rows: Triton's kernels hold so many labels."""
    path = path_of(implementation, unary)
    return path in (cpu, plain) or bool(path.serves_updates(unary))


# Rows.


def pixel_major(x: Tensor) -> Tensor:
    """(B, L, *grid) as contiguous rows (B, N, L), N in row-major order."""
    rows = x.flatten(2).transpose(1, 2)
    if torch.compiler.is_compiling() or rows.is_contiguous():
        return rows.contiguous()
    return cpu.empty_like(rows).copy_(rows)


def rows_scaled(v: Tensor, log_factor: Tensor) -> Tensor:
    """v * exp(log_factor) for rows v (B, N, L) and a number; v itself for a fixed factor of 1.

    On a GPU a factor of 1 is multiplied with, which is cheaper than waiting for its value.

    The gradient of the factor is summed over pixels first, for each image and label: the sum
    of everything at once would depend on the number of threads.
    """
    fixed = not isinstance(log_factor, Parameter) and not torch.compiler.is_compiling()
    if fixed and log_factor.device.type == "cpu" and log_factor == 0:
        return v
    return v * log_factor.exp().to(v.dtype).expand(v.shape[0], 1, v.shape[2])


@operator("crfrnn::rows_product(Tensor v, Tensor matrix, str implementation) -> Tensor")
def rows_product(v: Tensor, matrix: Tensor, implementation: str) -> Tensor:
    """`plain.product`: v @ matrix, (B, N, L) and (L, K) -> (B, N, K)."""
    result: Tensor = run("product", implementation, v, v.contiguous(), matrix)
    return result


@rows_product.register_fake
def _(v: Tensor, matrix: Tensor, implementation: str) -> Tensor:
    return v.new_empty(*v.shape[:2], matrix.shape[1])


def _save_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    v, matrix, ctx.implementation = inputs
    # The softmax before it has saved the same v.
    ctx.save_for_backward(v if ctx.needs_input_grad[1] else None, matrix)


def _product_backward(ctx: Any, grad: Tensor) -> Grads:
    v, matrix = ctx.saved_tensors
    to_v, to_matrix = ctx.needs_input_grad[:2]
    return (
        rows_product(grad, matrix.t(), ctx.implementation) if to_v else None,
        rows_inner(v, grad) if to_matrix else None,
        None,
    )


rows_product.register_autograd(_product_backward, setup_context=_save_product)


def label_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices over labels, (L, K) and (K, M), or T of each: `rows_product` again."""
    if a.ndim == 2:
        product: Tensor = rows_product(a[None], b, "automatic")[0]
        return product
    return torch.stack([label_product(x, y) for x, y in zip(a, b, strict=True)])


@operator("crfrnn::rows_inner(Tensor a, Tensor b) -> Tensor")
def rows_inner(a: Tensor, b: Tensor) -> Tensor:
    """`plain.inner`: sum_i a_i b_i', (B, N, L) and (B, N, K) -> (L, K)."""
    return plain.inner(a.contiguous(), b.contiguous())


@rows_inner.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[2], b.shape[2])


def _save_inner(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _inner_backward(ctx: Any, grad: Tensor) -> Grads:
    a, b = ctx.saved_tensors
    to_a, to_b = ctx.needs_input_grad
    return (
        rows_product(b, grad.t(), "automatic") if to_a else None,
        rows_product(a, grad, "automatic") if to_b else None,
    )


rows_inner.register_autograd(_inner_backward, setup_context=_save_inner)


@operator("crfrnn::rows_softmax(Tensor logits, str implementation) -> Tensor")
def rows_softmax(logits: Tensor, implementation: str) -> Tensor:
    """`plain.softmax`, with the backward of `plain.softmax_grad`."""
    result: Tensor = run("softmax", implementation, logits, logits)
    return result


@rows_softmax.register_fake
def _(logits: Tensor, implementation: str) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _softmax_backward(ctx: Any, grad: Tensor) -> Grads:
    (q,) = ctx.saved_tensors
    return plain.softmax_grad(q, grad), None


rows_softmax.register_autograd(_softmax_backward, setup_context=_save_softmax)


# The exact filter.


@operator("crfrnn::exact_order(Tensor features, str implementation) -> Tensor")
def exact_order(features: Tensor, implementation: str) -> Tensor:
    """`plain.exact_order`."""
    order: Tensor = run("exact_order", implementation, features, features)
    return order


@exact_order.register_fake
def _(features: Tensor, implementation: str) -> Tensor:
    return features.new_empty(features.shape[:2], dtype=torch.int64)


@operator(
    "crfrnn::exact_filter(Tensor features, Tensor v, Tensor order, float epsilon, "
    "str implementation) -> Tensor"
)
def exact_filter(
    features: Tensor, v: Tensor, order: Tensor, epsilon: float, implementation: str
) -> Tensor:
    """`plain.exact_filter`, and on the GPU what `filters.ExactFilter` says of order, epsilon."""
    filtered: Tensor = run("exact_filter", implementation, v, features, v, order, epsilon)
    return filtered


@exact_filter.register_fake
def _(features: Tensor, v: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::exact_features_grad(Tensor features, Tensor v, Tensor grad, Tensor order, "
    "float epsilon, str implementation) -> Tensor",
)
def exact_features_grad(
    features: Tensor, v: Tensor, grad: Tensor, order: Tensor, epsilon: float, implementation: str
) -> Tensor:
    """`plain.exact_features_grad`; not differentiable itself."""
    result: Tensor = run(
        "exact_features_grad", implementation, v, features, v, grad, order, epsilon
    )
    return result


@exact_features_grad.register_fake
def _(features: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _save_exact(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, v, order, *ctx.options = inputs
    # v is as large as q and there is one for every iteration: kept only if features learn.
    ctx.save_for_backward(features, v if ctx.needs_input_grad[0] else None, order)


def _exact_backward(ctx: Any, grad: Tensor) -> Grads:
    features, v, order = ctx.saved_tensors
    grad = grad.contiguous()

    def kernel(x: Tensor) -> Tensor:
        result: Tensor = exact_filter(features, x, order, *ctx.options)
        return result

    to_features, to_v = ctx.needs_input_grad[:2]
    features_grad = None
    if to_features and torch.is_grad_enabled():  # filter by filter, for a second derivative
        features_grad = plain.gaussian_features_grad(kernel, kernel, features, v, grad)
    elif to_features:
        features_grad = exact_features_grad(features, v, grad, order, *ctx.options)
    return features_grad, kernel(grad) if to_v else None, None, None, None


exact_filter.register_autograd(_exact_backward, setup_context=_save_exact)

# The window: plain on every device.


@operator(
    "crfrnn::window_filter(Tensor features, Tensor v, SymInt[] shape, SymInt radius, "
    "SymInt dilation) -> Tensor",
)
def window_filter(
    features: Tensor, v: Tensor, shape: Sequence[int], radius: int, dilation: int
) -> Tensor:
    """`plain.window_filter`."""
    return plain.window_filter(features, v, shape, radius, dilation)


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
        plain.gaussian_features_grad(kernel, kernel, features, v, grad) if to_features else None,
        kernel(grad) if to_v else None,
        None,
        None,
        None,
    )


window_filter.register_autograd(_window_backward, setup_context=_save_window)

# The separable filter.


@operator(
    "crfrnn::separable_filter(Tensor theta, Tensor v, SymInt[] shape, str implementation) -> Tensor"
)
def separable_filter(theta: Tensor, v: Tensor, shape: Sequence[int], implementation: str) -> Tensor:
    """`plain.separable_filter`."""
    filtered: Tensor = run("separable_filter", implementation, v, theta, v, shape)
    return filtered


@separable_filter.register_fake
def _(theta: Tensor, v: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::separable_theta_grad(Tensor theta, Tensor v, Tensor grad, SymInt[] shape, "
    "str implementation) -> Tensor",
)
def separable_theta_grad(
    theta: Tensor, v: Tensor, grad: Tensor, shape: Sequence[int], implementation: str
) -> Tensor:
    """`plain.separable_theta_grad`; not differentiable itself."""
    kernel = Kernel(theta, shape=shape)
    if path_of(implementation, v) is cpu and cpu.serves_kernels([kernel], v, grad, theta):
        return cpu.source_grad(kernel, v, grad, transposed=False)
    result: Tensor = run("separable_theta_grad", implementation, v, theta, v, grad, shape)
    return result


@separable_theta_grad.register_fake
def _(theta: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(theta)


def _save_separable(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    theta, v, *ctx.options = inputs
    ctx.save_for_backward(theta, v if ctx.needs_input_grad[0] else None)


def _separable_backward(ctx: Any, grad: Tensor) -> Grads:
    theta, v = ctx.saved_tensors
    grad = grad.contiguous()
    to_theta, to_v = ctx.needs_input_grad[:2]
    return (
        separable_theta_grad(theta, v, grad, *ctx.options) if to_theta else None,
        separable_filter(theta, grad, *ctx.options) if to_v else None,
        None,
        None,
    )


separable_filter.register_autograd(_separable_backward, setup_context=_save_separable)


# The permutohedral lattice.
#
# A lattice is eight plain tensors here (`Lattice`, and the rank), because an operator takes and
# returns tensors; its number of vertices depends on the data, which the fake kernel says.


@operator(
    "crfrnn::build_lattice(Tensor features, str accuracy, str implementation) -> (Tensor, Tensor, "
    "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def build_lattice(features: Tensor, accuracy: str, implementation: str) -> tuple[Tensor, ...]:
    """`lattice.build_lattice`: the fields of `Lattice` in order, and the rank."""
    tables, rank = run("build_lattice", implementation, features, features, named(accuracy))
    return *tables, rank


@build_lattice.register_fake
def _(features: Tensor, accuracy: str, implementation: str) -> tuple[Tensor, ...]:
    batch, num_pixels, dim = features.shape
    pixels, size = batch * num_pixels, dim + 1
    vertices = torch.library.get_ctx().new_dynamic_size()
    cut = path_of(implementation, features) not in (cpu, plain)  # the GPU cuts long lists
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
    return (
        barycentric_features_grad(rank, weights_grad, ctx.accuracy).reshape(ctx.shape),
        None,
        None,
    )


build_lattice.register_autograd(_build_backward, setup_context=_save_build)


@operator("crfrnn::barycentric_features_grad(Tensor rank, Tensor grad, str accuracy) -> Tensor")
def barycentric_features_grad(rank: Tensor, grad: Tensor, accuracy: str) -> Tensor:
    """`lattice.barycentric_features_grad`; not differentiable itself."""
    return plain_barycentric_features_grad(rank, grad, named(accuracy).scale)


@barycentric_features_grad.register_fake
def _(rank: Tensor, grad: Tensor, accuracy: str) -> Tensor:
    return grad.new_empty(grad.shape[0], grad.shape[1] - 1)


@operator(
    "crfrnn::lattice_filter(Tensor features, Tensor v, Tensor[] tables, str accuracy, "
    "bool transposed, str implementation) -> Tensor",
)
def lattice_filter(
    features: Tensor,
    v: Tensor,
    tables: Sequence[Tensor],
    accuracy: str,
    transposed: bool,
    implementation: str,
) -> Tensor:
    """`lattice.lattice_filter`.

    The lattice is given by its tables; `features` is here for the gradient of the Gaussian,
    `slice_weights` takes that of the lattice. The caller detaches one of the two.
    """
    lattice, numbers = Lattice(*tables), named(accuracy)
    filtered: Tensor = run(
        "lattice_filter", implementation, v, lattice, v, numbers, transposed=transposed
    )
    return filtered


@lattice_filter.register_fake
def _(features: Tensor, v: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@operator(
    "crfrnn::lattice_weights_grad(Tensor v, Tensor grad, Tensor[] tables, str accuracy, "
    "bool transposed, str implementation) -> Tensor",
)
def lattice_weights_grad(
    v: Tensor,
    grad: Tensor,
    tables: Sequence[Tensor],
    accuracy: str,
    transposed: bool,
    implementation: str,
) -> Tensor:
    """`lattice.lattice_weights_grad`; not differentiable itself."""
    lattice, numbers = Lattice(*tables), named(accuracy)
    result: Tensor = run(
        "lattice_weights_grad", implementation, v, lattice, v, grad, numbers, transposed=transposed
    )
    return result


@lattice_weights_grad.register_fake
def _(v: Tensor, grad: Tensor, tables: Sequence[Tensor], *_: Any) -> Tensor:
    return torch.empty_like(Lattice(*tables).slice_weights)


@operator(
    "crfrnn::lattice_features_grad(Tensor features, Tensor v, Tensor grad, Tensor[] tables, "
    "str accuracy, bool transposed, str implementation) -> Tensor",
)
def lattice_features_grad(
    features: Tensor,
    v: Tensor,
    grad: Tensor,
    tables: Sequence[Tensor],
    accuracy: str,
    transposed: bool,
    implementation: str,
) -> Tensor:
    """`plain.gaussian_features_grad` by the lattice's filters; not differentiable itself."""
    kernel = Kernel(features, Lattice(*tables), accuracy)
    if path_of(implementation, v) is cpu and cpu.serves_kernels([kernel], v, grad, features):
        return cpu.source_grad(kernel, v, grad, transposed=transposed)

    def filtered(x: Tensor, *, other_way: bool = False) -> Tensor:
        way = transposed ^ other_way
        result: Tensor = lattice_filter(features, x, tables, accuracy, way, implementation)
        return result

    adjoint = partial(filtered, other_way=True)
    return plain.gaussian_features_grad(filtered, adjoint, features, v, grad).contiguous()


@lattice_features_grad.register_fake
def _(features: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _save_lattice(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, v, tables, *ctx.options = inputs
    wanted = ctx.needs_input_grad[0] or tables[WEIGHTS].requires_grad
    ctx.save_for_backward(features, v if wanted else None, *tables)


def _lattice_backward(ctx: Any, grad: Tensor) -> Grads:
    features, v, *tables = ctx.saved_tensors
    grad, (accuracy, transposed, path) = grad.contiguous(), ctx.options
    to_features, to_v, tables_learn = ctx.needs_input_grad[:3]
    to_tables: list[Tensor | None] = [None] * len(tables)
    if tables_learn[WEIGHTS]:
        to_tables[WEIGHTS] = lattice_weights_grad(v, grad, tables, *ctx.options)
    return (
        lattice_features_grad(features, v, grad, tables, *ctx.options) if to_features else None,
        lattice_filter(features, grad, tables, accuracy, not transposed, path) if to_v else None,
        to_tables,
        None,
        None,
        None,
    )


lattice_filter.register_autograd(_lattice_backward, setup_context=_save_lattice)

# Whole mean-field updates.
#
#     update(logits) = unary - sum_m K_m (softmax(logits) P_m'),   K_m = after_m * F_m before_m
#
# An operator takes tensors, numbers and strings. A kernel is packed once, by `flat`, and taken
# apart once, by `unpacked`, into what the native library and the GPU read.

STORAGE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Kernel:
    """A normalised kernel as the operators take it.

    Attributes:
        source: (B, N, d), the features of a lattice, or (ndim,), theta of a spatial Gaussian.
        lattice: the tables; None for the spatial Gaussian.
        accuracy: of the lattice; empty for the spatial Gaussian.
        shape: the grid of the spatial Gaussian.
        before: (B, N, 1), the factor ahead of the filter, or None for 1.
        after: (B, N, 1), likewise behind it.
        penalty: P (L, L); None where it does not count.
        implementation: of the filter.
    """

    source: Tensor
    lattice: Lattice | None = None
    accuracy: str = ""
    shape: Sequence[int] = ()
    before: Tensor | None = None
    after: Tensor | None = None
    penalty: Tensor | None = None
    implementation: str = "automatic"

    def filter(self, v: Tensor, *, transposed: bool) -> Tensor:
        """K v or K' v without the factors."""
        filtered: Tensor
        if self.lattice is None:
            filtered = separable_filter(self.source, v, self.shape, self.implementation)
        else:
            # The lattice is given: its features receive theirs from `source_grad`.
            filtered = lattice_filter(
                self.source.detach(),
                v,
                self.lattice,
                self.accuracy,
                transposed,
                self.implementation,
            )
        return filtered

    def source_grad(self, v: Tensor, grad: Tensor) -> Tensor:
        """d <grad, K v> to the source, without the factors."""
        result: Tensor
        if self.lattice is None:
            result = separable_theta_grad(self.source, v, grad, self.shape, self.implementation)
        else:
            result = lattice_features_grad(
                self.source, v, grad, self.lattice, self.accuracy, False, self.implementation
            )
        return result


FACTORS = 2  # of a flat kernel: before and after, then its source, then its tables
WEIGHTS = Lattice._fields.index("slice_weights")


def flat(kernels: Sequence[Kernel]) -> tuple[list[Tensor], str, list[int]]:
    """The kernels without their penalties: tensors, accuracies between commas, and the grid."""
    tensors: list[Tensor] = []
    shape = [0]  # an empty list reads as one of tensors on the way back
    for kernel in kernels:
        nothing = kernel.source.new_empty(0)
        tensors += [nothing if x is None else x for x in (kernel.before, kernel.after)]
        tensors += [kernel.source, *(kernel.lattice or ())]
        shape = list(kernel.shape) or shape
    return tensors, ",".join(kernel.accuracy for kernel in kernels), shape


def unpacked(
    penalties: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    implementation: str,
) -> list[Kernel]:
    """The kernels of `flat`, with their penalties."""
    kernels, first = [], 0
    for penalty, accuracy in zip(penalties, accuracies.split(","), strict=True):
        before, after = (x if x.numel() else None for x in tensors[first : first + FACTORS])
        first += FACTORS
        source, tables = tensors[first], tensors[first + 1 : first + 1 + len(Lattice._fields)]
        lattice = Lattice(*tables) if accuracy else None
        kernels.append(
            Kernel(source, lattice, accuracy, shape, before, after, penalty, implementation)
        )
        first += 1 + len(lattice or ())
    return kernels


def source_indices(kernels: Sequence[Kernel]) -> list[int]:
    """Say where in the tensors of `flat` the source of each kernel is."""
    indices, first = [], 0
    for kernel in kernels:
        indices.append(first + FACTORS)
        first += FACTORS + 1 + len(kernel.lattice or ())
    return indices


@operator(
    "crfrnn::mean_field_updates(Tensor? start, Tensor unary, Tensor[] penalties, "
    "Tensor[] tensors, str accuracies, SymInt[] shape, str implementation, SymInt iterations, "
    "bool store, str storage) -> (Tensor, Tensor)",
)
def mean_field_updates(
    start: Tensor | None,
    unary: Tensor,
    penalties: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    implementation: str,
    iterations: int,
    store: bool,
    storage: str,
) -> tuple[Tensor, Tensor]:
    """Several updates, one after another.

    Args:
        start: (B, N, L), the logits before the first update; None: the unary.
        unary: (B, N, L).
        penalties: P_m, (L, L).
        tensors: of `flat`.
        accuracies: of `flat`.
        shape: of `flat`.
        implementation: of the kernels.
        iterations: T, one or more.
        store: whether the second result is wanted, which a gradient needs.
        storage: dtype of q and of the messages to the filters: "float32", "bfloat16", "float16".

    Returns:
        The logits after T updates, (B, N, L), and q ahead of each, (T, B, N, L), or (0, B, N, L),
        as it is stored.
    """
    kernels = unpacked(penalties, tensors, accuracies, shape, implementation)
    like = unary.expand(iterations if store else 0, *unary.shape)
    history = cpu.empty_like(like, STORAGE[storage])
    path = path_of(implementation, unary)
    if path not in (cpu, plain) and path.serves_updates(unary):
        with device_of(unary):
            return path.mean_field_updates(start, unary, kernels, iterations, history), history
    if path is cpu and storage == "float32" and cpu.serves_kernels(kernels, unary):
        stored = history if store else None
        return cpu.mean_field_updates(start, unary, kernels, iterations, stored), history
    logits = unary if start is None else start
    for t in range(iterations):
        q = rows_softmax(logits, implementation).to(history.dtype)
        logits = _composed_update(q, unary, kernels)
        if store:
            history[t] = q
    return logits, history


@mean_field_updates.register_fake
def _(start: Tensor | None, unary: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    logits = torch.empty_like(unary, memory_format=torch.contiguous_format)
    iterations, store, storage = rest[-3:]
    return logits, unary.new_empty(iterations if store else 0, *unary.shape, dtype=STORAGE[storage])


@operator(
    "crfrnn::mean_field_updates_grad(Tensor grad, Tensor history, Tensor[] penalties, "
    "Tensor[] tensors, str accuracies, SymInt[] shape, str implementation, bool started, "
    "bool to_penalties, bool[] learn) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def mean_field_updates_grad(
    grad: Tensor,
    history: Tensor,
    penalties: Sequence[Tensor],
    tensors: Sequence[Tensor],
    accuracies: str,
    shape: Sequence[int],
    implementation: str,
    started: bool,
    to_penalties: bool,
    learn: Sequence[bool],
) -> Grads:
    """`cpu.mean_field_updates_grad`; not differentiable itself."""
    kernels = unpacked(penalties, tensors, accuracies, shape, implementation)
    path = path_of(implementation, grad)
    options: dict[str, Any] = {"to_penalties": to_penalties, "learn": learn}
    if path is cpu and cpu.serves_kernels(kernels, grad, history):
        return cpu.mean_field_updates_grad(grad, history, kernels, started=started, **options)
    if path in (cpu, plain) or not path.serves_updates(grad):
        grads = _composed_updates_grad(grad, history, None, kernels, **options)
    else:
        with device_of(grad):
            grads = path.mean_field_updates_grad(grad, history, kernels, **options)
    # One tensor for what is the same.
    start_grad, unary_grad, *others = grads
    if not started:
        start_grad, unary_grad = unary_grad.new_empty(0), unary_grad + start_grad
    elif len(history) == 1:
        unary_grad = unary_grad.new_empty(0)
    return start_grad, unary_grad, *others


@mean_field_updates_grad.register_fake
def _(grad: Tensor, history: Tensor, penalties: Sequence[Tensor], *rest: Any) -> Grads:
    (batch, num_pixels, labels), (started, to_penalties, learn) = grad.shape, rest[-3:]
    rows = torch.empty_like(grad, memory_format=torch.contiguous_format)
    nothing = grad.new_empty(0)
    alone = started and history.shape[0] == 1
    kernels = unpacked(penalties, *rest[:-3])
    sizes = [k.source.numel() for k, learns in zip(kernels, learn, strict=True) if learns]
    return (
        rows if started else nothing,
        nothing if alone else torch.empty_like(rows),
        grad.new_empty(len(penalties) if to_penalties else 0, labels, labels),
        grad.new_empty(len(sizes), 2, batch, num_pixels, 1),
        grad.new_empty(sum(sizes)),
    )


def _save_updates(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    start, _, penalties, tensors, *ctx.kernels, _, ctx.stored, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.started = start is not None
    ctx.count = len(penalties)
    ctx.save_for_backward(output[1], *penalties, *tensors)


def _updates_backward(ctx: Any, grad: Tensor | None, history_grad: Tensor | None) -> Any:
    history, *saved = ctx.saved_tensors
    penalties, tensors = saved[: ctx.count], saved[ctx.count :]
    if not ctx.stored:
        raise RuntimeError("mean-field updates have a gradient with store=True alone, got False.")
    to_start, to_unary, to_penalties, to_tensors = ctx.needs_input_grad[:4]
    each = penalties, tensors, *ctx.kernels
    kernels = unpacked(*each)
    sources = source_indices(kernels)
    learn = [any(to_tensors[k - FACTORS : k + 1]) for k in sources]
    if grad is None:
        grad = torch.zeros_like(history[0], dtype=penalties[0].dtype)
    grad = grad.contiguous()
    if history_grad is not None or torch.is_grad_enabled():
        start_grad, unary_grad, penalty_grads, factor_grads, source_grads = _composed_updates_grad(
            grad, history, history_grad, kernels, to_penalties=any(to_penalties), learn=learn
        )
        unary_grad = unary_grad if ctx.started else unary_grad + start_grad
    else:
        start_grad, unary_grad, penalty_grads, factor_grads, source_grads = mean_field_updates_grad(
            grad, history, *each, ctx.started, any(to_penalties), learn
        )
        unary_grad = unary_grad if unary_grad.numel() else grad
    tensor_grads: list[Tensor | None] = [None] * len(tensors)
    learning = [k for k, learns in zip(sources, learn, strict=True) if learns]
    own_grads = torch.split(source_grads, [tensors[k].numel() for k in learning])
    for k, (to_after, to_before), own in zip(learning, factor_grads, own_grads, strict=True):
        own_grad = own.view_as(tensors[k])
        for at, received in ((k - 2, to_before), (k - 1, to_after), (k, own_grad)):
            tensor_grads[at] = received if to_tensors[at] else None
    each_penalty = iter(penalty_grads)  # of all, or of none
    return (
        start_grad if to_start else None,
        unary_grad if to_unary else None,
        [g if wanted else None for wanted, g in zip_longest(to_penalties, each_penalty)],
        tensor_grads,
        *[None] * 6,
    )


mean_field_updates.register_autograd(_updates_backward, setup_context=_save_updates)

# The same updates and their gradients filter by filter, of the operators above: where no native
# code serves, and for a second derivative. All of it but the gradient to features and theta is
# differentiable.


def scaled(v: Tensor, factor: Tensor | None) -> Tensor:
    """factor * v, None standing for 1."""
    return v if factor is None else v * factor


def _penalised(v: Tensor, kernel: Kernel, *, transposed: bool) -> Tensor:
    """v P' of each row, or v P."""
    assert kernel.penalty is not None
    matrix = kernel.penalty if transposed else kernel.penalty.t()
    result: Tensor = rows_product(v, matrix, kernel.implementation)
    return result


def _composed_update(q: Tensor, unary: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """One of `mean_field_updates`, from the softmax of the logits on, as it is stored."""
    updated = unary
    for kernel in kernels:
        sent = scaled(_penalised(q.to(unary.dtype), kernel, transposed=False), kernel.before)
        sent = sent.to(q.dtype).to(unary.dtype)
        updated = updated - scaled(kernel.filter(sent, transposed=False), kernel.after)
    return updated


def _composed_updates_grad(
    grad: Tensor,
    history: Tensor,
    history_grad: Tensor | None,
    kernels: Sequence[Kernel],
    *,
    to_penalties: bool,
    learn: Sequence[bool],
) -> Grads:
    """Return what `cpu.mean_field_updates_grad` returns, for a start of its own.

    The gradient to the unary is never left out.

    Args:
        grad: (B, N, L), of the logits after the last update.
        history: (T, B, N, L), q ahead of each update.
        history_grad: (T, B, N, L), that q received besides; None for nothing.
        kernels: of the updates.
        to_penalties: whether the gradient to the penalties is wanted.
        learn: of each kernel, whether what it is made of learns.
    """
    learning = [kernel for kernel, learns in zip(kernels, learn, strict=True) if learns]
    unary_grad, penalty_grads = torch.zeros_like(grad), grad.new_zeros(())
    factor_grads = grad.new_zeros(len(learning), 2, *grad.shape[:2], 1)
    source_grads = grad.new_zeros(sum(kernel.source.numel() for kernel in learning))
    history = history.to(grad.dtype)
    for t in reversed(range(len(history))):
        unary_grad = unary_grad + grad
        if learning:
            own = [kernel_grads(grad, history[t], kernel) for kernel in learning]
            source_grads = source_grads + torch.cat([source.flatten() for source, _ in own])
            factor_grads = factor_grads + torch.stack([factors for _, factors in own])
        to_q = torch.zeros_like(grad) if history_grad is None else history_grad[t]
        own_penalties = [grad.new_empty(0, grad.shape[2], grad.shape[2])]
        for kernel in kernels:
            received = kernel.filter(scaled(grad, kernel.after), transposed=True)
            received = scaled(received, kernel.before)
            to_q = to_q - _penalised(received, kernel, transposed=True)
            if to_penalties:
                own_penalties.append(-rows_inner(received, history[t])[None])
        grad = plain.softmax_grad(history[t], to_q)
        penalty_grads = penalty_grads + torch.cat(own_penalties)
    return grad, unary_grad, penalty_grads, factor_grads, source_grads


def kernel_grads(grad: Tensor, q: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The gradients of one update to features or theta of a kernel, and to its factors.

    The latter are to after and to before, (2, B, N, 1); that to a factor of None means nothing.
    """
    v = _penalised(q, kernel, transposed=False)
    sent, received = scaled(v, kernel.before), scaled(grad, kernel.after)
    to_after = grad * kernel.filter(sent, transposed=False)
    to_before = v * kernel.filter(received, transposed=True)
    factor_grads = -torch.stack([to_after, to_before]).sum(-1, keepdim=True)
    return -kernel.source_grad(sent, received), factor_grads
