"""The native CPU path: float32 on contiguous rows, by the shared library of `csrc/`.

Functions of the same names and meanings as the plain ones in `lattice.py` and `separable.py`,
which serve whatever the library does not: other dtypes, more than 16 feature dimensions, more
than 2^31 table entries, and everything where the library was not built. Every row is computed
whole by one thread in a fixed order, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from crfrnn.filtering import lattice as plain_lattice
from crfrnn.filtering import separable as plain_separable
from crfrnn.filtering.accuracy import LatticeAccuracy
from crfrnn.filtering.lattice import Lattice
from crfrnn.filtering.simplex import RESOLUTION

MAX_DIM = 16  # of the features, as in csrc/simplex.h
MAX_ENTRIES = 2**31 - 1  # of a table of int32
ZERO_TAPS = 3  # around the taps of an axis, as in csrc/separable_rows.h
OVERFLOWED = 1

NOT_BUILT = (
    "the native CPU path of crfrnn is not built: the plain PyTorch path serves, several times "
    "slower. Install a C++17 compiler (GCC or Clang) and run `pip install --force-reinstall "
    "--no-deps crfrnn`, or `pip install -e .` in a clone."
)


class PointsArgument(ctypes.Structure):
    """`Points` of csrc/simplex.h."""

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
    """`Separable` of csrc/native.cpp."""

    _fields_ = (("axes", c_int32), ("taps", c_void_p), ("radii", c_void_p), ("shape", c_void_p))


class KernelArgument(ctypes.Structure):
    """`Kernel` of csrc/native.cpp."""

    _fields_ = (
        ("penalty", c_void_p),
        ("before", c_void_p),
        ("after", c_void_p),
        ("lattice", c_void_p),
        ("separable", c_void_p),
        ("transposed", c_int32),
    )


def library_path() -> Path | None:
    """Where the library was built: beside the package, whatever the platform calls it."""
    folder = Path(__file__).resolve().parents[1]
    paths = [folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


@cache
def library() -> ctypes.CDLL | None:
    """The native library; None, with one warning, where it was not built."""
    path = library_path()
    if path is None:
        warnings.warn(NOT_BUILT, RuntimeWarning, stacklevel=2)
        return None
    native = ctypes.CDLL(str(path))
    p, i, n = c_void_p, c_int, c_int64
    native.crfrnn_instructions.restype = ctypes.c_char_p
    native.crfrnn_build_start.argtypes = (p, n, n, i, p, i, p, p)
    native.crfrnn_build_finish.argtypes = (p, p, p, p, p, p, i, i)
    native.crfrnn_lattice_filter.argtypes = (p, n, i, p, p, i)
    native.crfrnn_separable_filter.argtypes = (p, n, n, p, p, i)
    native.crfrnn_mean_field_update.argtypes = (p, i, n, n, n, p, p, p, i)
    return native


def instructions() -> str | None:
    """The instruction set in use, or None where the plain path serves."""
    native = library()
    return None if native is None else native.crfrnn_instructions().decode()


def build_lattice(features: Tensor, accuracy: LatticeAccuracy) -> tuple[Lattice, Tensor]:
    """`lattice.build_lattice`, with the vertices in the order in which pixels touch them."""
    native = native_for(features)
    batch, num_pixels, dim = features.shape
    size, pixels = dim + 1, batch * num_pixels
    supported = 1 <= dim <= MAX_DIM and not accuracy.insertion
    if native is None or not supported or not 0 < pixels * size <= MAX_ENTRIES:
        return plain_lattice.build_lattice(features, accuracy)
    features = features.contiguous()
    scales = features.new_tensor(
        [accuracy.scale * size / math.sqrt(j * (j + 1)) for j in range(1, size)]
    )
    rank = torch.empty(pixels, size, dtype=torch.int8)
    slice_weights = features.new_empty(pixels, size)
    slice_vertices = torch.empty(pixels, size, dtype=torch.int32)
    digits = torch.empty(pixels, dim, dtype=torch.int32)
    points = PointsArgument(
        dim,
        features.data_ptr(),
        scales.data_ptr(),
        RESOLUTION / torch.finfo(torch.float32).eps * size,  # `check_precision`
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
        return plain_lattice.build_lattice(features, accuracy)
    check_memory(status)
    splat_pixels = torch.empty(pixels * size, dtype=torch.int32)
    splat_weights = features.new_empty(pixels * size)
    splat_offsets = torch.empty(vertices.value, dtype=torch.int32)
    stencils = torch.empty(size, vertices.value + 1, 2 * accuracy.reach + 1, dtype=torch.int32)
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
        slice_vertices, slice_weights, splat_pixels, splat_weights, splat_offsets, stencils
    )
    return tables, rank


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.lattice_filter`."""
    native = native_for(v, lattice.slice_weights)
    if native is None or lattice.slice_vertices.dtype != torch.int32 or v.numel() == 0:
        return plain_lattice.lattice_filter(lattice, v, accuracy, transposed=transposed)
    v = v.contiguous()
    argument, _keep = lattice_argument(lattice, accuracy)
    filtered = torch.empty_like(v)
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
    """`separable.separable_filter`."""
    native = native_for(theta, v)
    if native is None or v.numel() == 0:
        return plain_separable.separable_filter(theta, v, shape)
    v = v.contiguous()
    argument, _keep = separable_argument(theta, shape)
    filtered = torch.empty_like(v)
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


@dataclass(frozen=True)
class Kernel:
    """One term of a mean-field update: a normalised kernel, and its penalty.

    Attributes:
        penalty: P (L, L).
        before, after: (B, N, 1), the factors of `Normalized`, or None for 1.
        filter: the tables and accuracy of a lattice, or theta and grid of the spatial Gaussian.
    """

    penalty: Tensor
    before: Tensor | None
    after: Tensor | None
    filter: tuple[Lattice, LatticeAccuracy] | tuple[Tensor, Sequence[int]]


def mean_field_update(logits: Tensor, unary: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """unary - sum_m K_m (softmax(logits) P_m') in as few passes as there are filters.

    The caller has seen to it that `native_for` serves all of the tensors.

    Args:
        logits: (B, N, L).
        unary: (B, N, L).
        kernels: K_m with P_m.
    """
    native = library()
    assert native is not None  # the caller's part
    logits, unary = logits.contiguous(), unary.contiguous()
    updated = torch.empty_like(logits)
    keep: list[object] = []  # what the pointers point to
    arguments = (KernelArgument * len(kernels))()
    for argument, kernel in zip(arguments, kernels, strict=True):
        dense = [None if x is None else x.contiguous() for x in (kernel.before, kernel.after)]
        penalty = kernel.penalty.contiguous()
        argument.penalty = penalty.data_ptr()
        argument.before, argument.after = (x if x is None else x.data_ptr() for x in dense)
        table, options = kernel.filter
        if isinstance(table, Lattice):
            assert isinstance(options, LatticeAccuracy)
            lattice, tensors = lattice_argument(table, options)
            argument.lattice = ctypes.addressof(lattice)
            keep += [lattice, tensors]
        else:
            assert not isinstance(options, LatticeAccuracy)
            separable, numbers = separable_argument(table, options)
            argument.separable = ctypes.addressof(separable)
            keep += [separable, numbers]
        keep += [dense, penalty]
    check_memory(
        native.crfrnn_mean_field_update(
            arguments,
            len(kernels),
            *logits.shape,
            logits.data_ptr(),
            unary.data_ptr(),
            updated.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return updated


def lattice_argument(
    lattice: Lattice, accuracy: LatticeAccuracy
) -> tuple[LatticeArgument, list[Tensor]]:
    """The tables as C sees them, and the tensors that must outlive the call."""
    # In the order of a stencil's rows: behind, ahead, ..., itself.
    row = [tap for tap in accuracy.taps[1:] for _ in ("behind", "ahead")] + [accuracy.taps[0]]
    taps = torch.tensor(row, dtype=torch.float32)
    tables = [table.contiguous() for table in lattice]
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


def separable_argument(
    theta: Tensor, shape: Sequence[int]
) -> tuple[SeparableArgument, list[object]]:
    """The taps of all axes as C sees them, and what must outlive the call."""
    every = plain_separable.gaussian_taps(theta, shape)
    zeros = theta.new_zeros(ZERO_TAPS)
    taps = torch.cat([part for axis in every for part in (zeros, axis, zeros)])
    radii, sizes = int64_array([axis.numel() // 2 for axis in every]), int64_array(shape)
    argument = SeparableArgument(
        len(shape), taps.data_ptr(), ctypes.addressof(radii), ctypes.addressof(sizes)
    )
    return argument, [taps, radii, sizes]


def native_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The library, where it takes these tensors."""
    served = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return library() if served else None


def int64_array(numbers: Sequence[int]) -> ctypes.Array[c_int64]:
    """Numbers as C reads them."""
    return (c_int64 * len(numbers))(*numbers)


def check_memory(status: int) -> None:
    """Raise where a native call found no memory, the one way in which it can fail."""
    if status != 0:
        raise MemoryError("the native CPU path found no memory for its tables.")
