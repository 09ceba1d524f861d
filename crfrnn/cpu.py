"""The native CPU path: float32 on contiguous rows, by the shared library of `csrc/` and ctypes.

Functions of the same names and meanings as the plain ones in `plain.py` and `lattice.py`, which
serve whatever the library does not: other dtypes, more than 16 feature dimensions, more than 2^31
table entries, and everything where the library was not built. Every row is computed whole by one
thread in a fixed order, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import multiprocessing.context
import os
import warnings
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crfrnn import plain
from crfrnn.lattice import Lattice, LatticeAccuracy, largest_precise, named

if TYPE_CHECKING:
    from crfrnn.ops import Kernel

# The library: where it is, its functions, and the structures they take.

OVERFLOWED = 1
INTERFACE = 8  # of the functions below, as `crfrnn_interface` of csrc/native.cpp says it

NOT_BUILT = (
    "the native CPU path of crfrnn is not built: the plain PyTorch path serves, several times "
    "slower. Install a C++17 compiler (GCC or Clang) and run `pip install --force-reinstall "
    "--no-deps crfrnn`, or `pip install -e .` in a clone."
)
OUTDATED = (
    "the native CPU path of crfrnn was built from another version of its source: the plain "
    "PyTorch path serves, several times slower. Build it again: `pip install -e .` in a clone, or "
    "`pip install --force-reinstall --no-deps crfrnn`."
)


def _use_one_thread() -> None:
    """Keep torch from its threads, which do not survive a fork: a child would wait for them.

    One thread is what a process of a pool should use anyway. Calling `torch.set_num_threads` in a
    forked child brings the wait back. The threads of csrc/ end with each call: no fork meets them.
    """
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
    if isinstance(multiprocessing.current_process(), multiprocessing.context.ForkProcess):
        _use_one_thread()  # imported in the child: its parent may have used torch's threads


class PointsArgument(ctypes.Structure):
    """`Points` of csrc/lattice.h."""

    _fields_ = (
        ("dim", c_int32),
        ("features", c_void_p),
        ("scales", c_void_p),
        ("farthest", c_float),
        ("weights", c_void_p),
        ("rank", c_void_p),
        ("digits", c_void_p),
    )


class LatticeArgument(ctypes.Structure):
    """`Lattice` of csrc/loops.h."""

    _fields_ = (
        ("pixels", c_int64),
        ("vertices", c_int64),
        ("size", c_int32),
        ("width", c_int32),
        ("slice_vertices", c_void_p),
        ("slice_weights", c_void_p),
        ("splat_pixels", c_void_p),
        ("splat_weights", c_void_p),
        ("splat_offsets", c_void_p),
        ("stencils", c_void_p),
        ("taps", c_void_p),
        ("gain", c_float),
    )


class SeparableArgument(ctypes.Structure):
    """`Separable` of csrc/loops.h."""

    _fields_ = (("axes", c_int32), ("taps", c_void_p), ("radii", c_void_p), ("shape", c_void_p))


class KernelArgument(ctypes.Structure):
    """`Kernel` of csrc/loops.h."""

    _fields_ = (
        ("penalty", c_void_p),
        ("before", c_void_p),
        ("after", c_void_p),
        ("lattice", c_void_p),
        ("separable", c_void_p),
    )


class KernelGradArgument(ctypes.Structure):
    """`KernelGrad` of csrc/filters.h."""

    _fields_ = (
        ("dim", c_int32),
        ("features", c_void_p),
        ("changes", c_void_p),
        ("own", c_void_p),
        ("factors", c_void_p),
    )


def library_path() -> Path | None:
    """Say where the library was built: beside the package, whatever the platform calls it."""
    folder = Path(__file__).resolve().parent
    paths = [folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


@cache
def library() -> ctypes.CDLL | None:
    """The native library; None, with one warning, where it was not built or is outdated."""
    path = library_path()
    if path is None:
        warnings.warn(NOT_BUILT, RuntimeWarning, stacklevel=2)
        return None
    native = ctypes.CDLL(str(path))
    if getattr(native, "crfrnn_interface", lambda: None)() != INTERFACE:
        warnings.warn(OUTDATED, RuntimeWarning, stacklevel=2)
        return None
    p, i, n = c_void_p, c_int, c_int64
    native.crfrnn_instructions.restype = ctypes.c_char_p
    native.crfrnn_build_start.argtypes = (p, n, n, i, p, i, p, p)
    native.crfrnn_build_finish.argtypes = (p, p, p, p, p, p, i, i)
    native.crfrnn_lattice_filter.argtypes = (p, n, i, p, p, i)
    native.crfrnn_kernel_grad.argtypes = (p, n, n, n, p, p, i, p, i)
    native.crfrnn_large_pages.argtypes = (p, n)
    native.crfrnn_large_pages.restype = None
    native.crfrnn_softmax.argtypes = (p, n, n, p, i)
    native.crfrnn_product.argtypes = (p, n, n, p, p, i)
    native.crfrnn_separable_filter.argtypes = (p, n, n, p, p, i)
    native.crfrnn_mean_field_update.argtypes = (p, i, n, n, n, i, p, p, p, p, i)
    native.crfrnn_mean_field_update_grad.argtypes = (p, i, n, n, n, i, p, p, p, p, p, p, i)
    return native


def instructions() -> str | None:
    """The instruction set in use, or None where the plain path serves."""
    native = library()
    return None if native is None else native.crfrnn_instructions().decode()


def serving(*tensors: Tensor) -> ctypes.CDLL | None:
    """The library, where it takes these tensors."""
    served = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return library() if served else None


def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous tensor without values, of that dtype, on pages as large as the system gives.

    Fresh memory comes page by page, and of 4 KiB each this takes longer than most filters.
    """
    fresh = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    native = serving(x)
    return fresh if native is None else _on_large_pages(fresh, native)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """`empty_like` of a shape, on the CPU."""
    native = library()
    fresh = torch.empty(*shape, dtype=dtype, device="cpu")
    return fresh if native is None else _on_large_pages(fresh, native)


def _on_large_pages(fresh: Tensor, native: ctypes.CDLL) -> Tensor:
    native.crfrnn_large_pages(fresh.data_ptr(), fresh.nbytes)
    return fresh


def int64_array(numbers: Sequence[int]) -> ctypes.Array[c_int64]:
    """Numbers as C reads them."""
    return (c_int64 * len(numbers))(*numbers)


def check_memory(status: int) -> None:
    """Raise where a native call found no memory, the one way in which it can fail."""
    if status != 0:
        raise MemoryError("the native CPU path found no memory for its tables.")


# Rows.


def product(v: Tensor, matrix: Tensor) -> Tensor:
    """`plain.product`."""
    native, labels = serving(v, matrix), v.shape[2]
    if native is None or matrix.shape != (labels, labels) or v.numel() == 0:
        return plain.product(v, matrix)
    v, matrix, out = v.contiguous(), matrix.contiguous(), empty_like(v)
    check_memory(
        native.crfrnn_product(
            v.data_ptr(),
            v.numel() // labels,
            labels,
            matrix.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return out


def softmax(logits: Tensor) -> Tensor:
    """`plain.softmax`."""
    native = serving(logits)
    if native is None or logits.numel() == 0:
        return plain.softmax(logits)
    logits, q, labels = logits.contiguous(), empty_like(logits), logits.shape[-1]
    check_memory(
        native.crfrnn_softmax(
            logits.data_ptr(),
            logits.numel() // labels,
            labels,
            q.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return q


# Filters.

MAX_DIM = 16  # of the features, as in csrc/lattice.h
MAX_ENTRIES = 2**31 - 1  # of a table of int32
ZERO_TAPS = 3  # around the taps of an axis, as in csrc/filters.h (PADDING)


def build_lattice(features: Tensor, accuracy: LatticeAccuracy) -> tuple[Lattice, Tensor]:
    """`lattice.build_lattice`, with the vertices in the order in which pixels touch them."""
    native = serving(features)
    batch, num_pixels, dim = features.shape
    size, pixels = dim + 1, batch * num_pixels
    supported = 1 <= dim <= MAX_DIM and not accuracy.insertion
    if native is None or not supported or not 0 < pixels * size <= MAX_ENTRIES:
        return plain.build_lattice(features, accuracy)
    features = features.contiguous()
    scales = features.new_tensor(
        [accuracy.scale * size / math.sqrt(j * (j + 1)) for j in range(1, size)]
    )
    rank = empty(pixels, size, dtype=torch.int8)
    slice_weights = empty(pixels, size)
    slice_vertices = empty(pixels, size, dtype=torch.int32)
    digits = empty(pixels, dim, dtype=torch.int32)
    points = PointsArgument(
        dim,
        features.data_ptr(),
        scales.data_ptr(),
        largest_precise(torch.float32, size),
        slice_weights.data_ptr(),
        rank.data_ptr(),
        digits.data_ptr(),
    )
    build, vertices = c_void_p(), c_int64()
    status = native.crfrnn_build_start(
        ctypes.byref(points),
        batch,
        num_pixels,
        accuracy.reach,
        slice_vertices.data_ptr(),
        torch.get_num_threads(),
        ctypes.byref(build),
        ctypes.byref(vertices),
    )
    if status == OVERFLOWED:
        # Raises, in words.
        return plain.build_lattice(features, accuracy)
    check_memory(status)
    splat_pixels = empty(pixels * size, dtype=torch.int32)
    splat_weights = empty(pixels * size)
    splat_offsets = empty(vertices.value, dtype=torch.int32)
    stencils = empty(size, vertices.value + 1, 2 * accuracy.reach + 1, dtype=torch.int32)
    check_memory(
        native.crfrnn_build_finish(
            build,
            slice_weights.data_ptr(),
            splat_pixels.data_ptr(),
            splat_weights.data_ptr(),
            splat_offsets.data_ptr(),
            stencils.data_ptr(),
            accuracy.reach,
            torch.get_num_threads(),
        )
    )
    tables = Lattice(
        slice_vertices,
        slice_weights,
        splat_pixels,
        splat_weights,
        splat_offsets,
        splat_offsets.new_empty(0),
        stencils,
    )
    return tables, rank


def takes(lattice: Lattice) -> bool:
    """Tell whether the library reads these tables: at most 2^31 entries, and no list cut."""
    return lattice.slice_vertices.dtype == torch.int32 and not lattice.splat_segments.numel()


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.lattice_filter`."""
    native = serving(v, lattice.slice_weights)
    if native is None or not takes(lattice) or v.numel() == 0:
        return plain.lattice_filter(lattice, v, accuracy, transposed=transposed)
    v = v.contiguous()
    argument, _keep = lattice_argument(lattice, accuracy)
    filtered = empty_like(v)
    check_memory(
        native.crfrnn_lattice_filter(
            ctypes.byref(argument),
            v.shape[2],
            transposed,
            v.data_ptr(),
            filtered.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return filtered


def separable_filter(theta: Tensor, v: Tensor, shape: Sequence[int]) -> Tensor:
    """`plain.separable_filter`."""
    native = serving(theta, v)
    if native is None or v.numel() == 0:
        return plain.separable_filter(theta, v, shape)
    v, filtered = v.contiguous(), empty_like(v)
    argument, _keep = taps_argument(plain.gaussian_taps(theta, shape), shape)
    check_memory(
        native.crfrnn_separable_filter(
            ctypes.byref(argument),
            v.shape[0],
            v.shape[2],
            v.data_ptr(),
            filtered.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return filtered


def lattice_argument(
    lattice: Lattice, accuracy: LatticeAccuracy
) -> tuple[LatticeArgument, list[Tensor]]:
    """The tables as C sees them, and the tensors that must outlive the call."""
    # In the order of a stencil's rows: behind, ahead, ..., itself.
    row = [tap for tap in accuracy.taps[1:] for _ in ("behind", "ahead")] + [accuracy.taps[0]]
    taps = torch.tensor(row, dtype=torch.float32)
    tables = [table.contiguous() for table in lattice if table is not lattice.splat_segments]
    pixels, size = lattice.slice_weights.shape
    argument = LatticeArgument(
        pixels,
        lattice.splat_offsets.numel(),
        size,
        len(row),
        *(table.data_ptr() for table in tables),
        taps.data_ptr(),
        accuracy.gain(size - 1),
    )
    return argument, [*tables, taps]


def taps_argument(
    every: Sequence[Tensor], shape: Sequence[int]
) -> tuple[SeparableArgument, list[object]]:
    """The taps of all axes as C sees them, and what must outlive the call."""
    zeros = every[0].new_zeros(ZERO_TAPS)
    taps = torch.cat([part for axis in every for part in (zeros, axis, zeros)])
    radii, sizes = int64_array([axis.numel() // 2 for axis in every]), int64_array(shape)
    argument = SeparableArgument(
        len(shape), taps.data_ptr(), ctypes.addressof(radii), ctypes.addressof(sizes)
    )
    return argument, [taps, radii, sizes]


# Kernels with their penalties and factors, whole mean-field updates, and their gradients.


def serves_kernels(kernels: Sequence[Kernel], *rows: Tensor) -> bool:
    """Tell whether the library takes the tables of all kernels, and these rows."""
    tables = all(kernel.lattice is None or takes(kernel.lattice) for kernel in kernels)
    return tables and rows[0].numel() > 0 and serving(*rows) is not None


def kernel_arguments(kernels: Sequence[Kernel]) -> tuple[Any, list[object]]:
    """The kernels as C sees them, and what must outlive the call."""
    keep: list[object] = []
    arguments = (KernelArgument * len(kernels))()
    for argument, kernel in zip(arguments, kernels, strict=True):
        dense = [
            None if x is None else x.contiguous()
            for x in (kernel.penalty, kernel.before, kernel.after)
        ]
        argument.penalty, argument.before, argument.after = (
            None if x is None else x.data_ptr() for x in dense
        )
        if kernel.lattice is not None:
            lattice, tensors = lattice_argument(kernel.lattice, named(kernel.accuracy))
            argument.lattice = ctypes.addressof(lattice)
            keep += [lattice, tensors]
        else:
            taps = plain.gaussian_taps(kernel.source, kernel.shape)
            separable, numbers = taps_argument(taps, kernel.shape)
            argument.separable = ctypes.addressof(separable)
            keep += [separable, numbers]
        keep.append(dense)
    return arguments, keep


class Received:
    """Hold what a kernel that learns receives: C adds to it through `argument`.

    Attributes:
        factor_grads: (2, B, N, 1), to after and to before; None where they are not wanted.
        argument: how C sees it.
    """

    def __init__(self, kernel: Kernel, rows: Sequence[int], factor_grads: Tensor | None) -> None:
        self.kernel = kernel
        self.factor_grads = factor_grads
        self._keep: list[object] = []
        source = kernel.source
        dim = source.shape[-1]
        self._own = source.new_zeros(dim, *rows)
        self.argument = KernelGradArgument(
            dim=dim,
            own=self._own.data_ptr(),
            factors=None if factor_grads is None else factor_grads.data_ptr(),
        )
        if kernel.lattice is not None:
            # Positions count from the middle: differences of them are wanted, and less cancels.
            centred = source - source.mean(1, keepdim=True)
            columns = centred.permute(2, 0, 1).contiguous()
            self.argument.features = columns.data_ptr()
            self._keep.append(columns)
        else:
            every = plain.gaussian_taps(source, kernel.shape)
            changes = (SeparableArgument * dim)()
            for k, taps in enumerate(plain.taps_grads(source, every)):
                changes[k], numbers = taps_argument(
                    [*every[:k], taps, *every[k + 1 :]], kernel.shape
                )
                self._keep.append(numbers)
            self.argument.changes = ctypes.addressof(changes)
            self._keep.append(changes)

    def source_grad(self) -> Tensor:
        """Return what features, (B, N, d), or theta, (ndim,), have received."""
        if self.kernel.lattice is not None:
            return self._own.permute(1, 2, 0).contiguous()
        # The pixels of each image first: the bits do not depend on the number of threads.
        return torch.stack([own.sum(1).sum() for own in self._own])


def source_grad(kernel: Kernel, v: Tensor, grad: Tensor, *, transposed: bool) -> Tensor:
    """d <grad, K v> to features or theta of K, where the library serves.

    Factors and penalty of the kernel do not count.

    Args:
        kernel: K, its features a Gaussian's, whose own derivative this is.
        v: (B, N, L).
        grad: (B, N, L), of K v.
        transposed: K' instead of K.
    """
    native = library()
    assert native is not None
    v, grad = v.contiguous(), grad.contiguous()
    received = Received(kernel, v.shape[:2], None)
    arguments, _keep = kernel_arguments([kernel])
    check_memory(
        native.crfrnn_kernel_grad(
            arguments,
            *v.shape,
            v.data_ptr(),
            grad.data_ptr(),
            transposed,
            ctypes.byref(received.argument),
            torch.get_num_threads(),
        )
    )
    return received.source_grad()


def mean_field_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Kernel],
    iterations: int,
    history: Tensor | None,
) -> Tensor:
    """logits = unary - sum_m K_m softmax(logits) P_m', `iterations` times: (B, N, L).

    Args:
        start: (B, N, L), the logits before the first update; None: the unary.
        unary: (B, N, L).
        kernels: K_m with P_m.
        iterations: T, one or more.
        history: (T, B, N, L), receives q ahead of each update.
    """
    start = unary if start is None else start
    native = library()
    assert native is not None
    start, unary = start.contiguous(), unary.contiguous()
    updated = empty_like(unary)
    arguments, _keep = kernel_arguments(kernels)
    check_memory(
        native.crfrnn_mean_field_update(
            arguments,
            len(kernels),
            *unary.shape,
            iterations,
            start.data_ptr(),
            unary.data_ptr(),
            None if history is None else history.data_ptr(),
            updated.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return updated


def mean_field_updates_grad(
    grad: Tensor,
    history: Tensor,
    kernels: Sequence[Kernel],
    *,
    started: bool,
    to_penalties: bool,
    learn: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of several updates to their start, the unary, all P_m and the kernels.

    Of one update, with q = softmax(logits),

        h_m = K_m' grad,   dP_m = -sum_i h_m(i) q(i)',   dunary = grad,
        dlogits = q (g - <q, g>),   g = -sum_m h_m P_m.

    Args:
        grad: (B, N, L), of the logits after the last update.
        history: (T, B, N, L), q ahead of each update.
        kernels: K_m with P_m.
        started: whether the start was another than the unary.
        to_penalties: whether dP is wanted.
        learn: of each kernel, whether what it is made of learns.

    Returns:
        (B, N, L), or empty without a start of its own; (B, N, L), or empty where that is `grad`
        itself; (M, L, L), or (0, L, L). Of the kernels that learn, K of them: to after and before,
        (K, 2, B, N, 1), that to a factor of None without a meaning; and to their features or
        theta, flat, one kernel after another.
    """
    native = library()
    assert native is not None
    grad, history = grad.contiguous(), history.contiguous()
    iterations, labels = history.shape[0], grad.shape[2]
    nothing = grad.new_empty(0)
    start_grad = empty_like(grad) if started else nothing
    unary_grad = nothing if started and iterations == 1 else empty_like(grad)
    penalty_grads = grad.new_empty(len(kernels) if to_penalties else 0, labels, labels)
    arguments, _keep = kernel_arguments(kernels)
    learning = [kernel for kernel, learns in zip(kernels, learn, strict=True) if learns]
    factor_grads = grad.new_zeros(len(learning), 2, *grad.shape[:2], 1)
    received = [
        Received(kernel, grad.shape[:2], own)
        for kernel, own in zip(learning, factor_grads, strict=True)
    ]
    following = iter(received)
    to_kernels = (c_void_p * len(kernels))(
        *(ctypes.addressof(next(following).argument) if learns else None for learns in learn)
    )
    check_memory(
        native.crfrnn_mean_field_update_grad(
            arguments,
            len(kernels),
            *grad.shape,
            iterations,
            history.data_ptr(),
            grad.data_ptr(),
            *(x.data_ptr() if x.numel() else None for x in (start_grad, unary_grad, penalty_grads)),
            to_kernels,
            torch.get_num_threads(),
        )
    )
    source_grads = torch.cat([nothing, *(own.source_grad().flatten() for own in received)])
    return start_grad, unary_grad, penalty_grads, factor_grads, source_grads
