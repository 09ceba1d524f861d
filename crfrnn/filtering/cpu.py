"""The native CPU path: float32 on contiguous rows, by the shared library of `csrc/`.

Functions of the same names and meanings as the plain ones in `lattice.py` and `separable.py`,
which serve whatever the library does not: other dtypes, more than 16 feature dimensions, more
than 2^31 table entries, and everything where the library was not built. Every row is computed
whole by one thread in a fixed order, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from crfrnn.filtering import lattice as plain_lattice
from crfrnn.filtering import separable as plain_separable
from crfrnn.filtering.lattice import Lattice, LatticeAccuracy, largest_precise
from crfrnn.native import (
    OVERFLOWED,
    LatticeArgument,
    PointsArgument,
    SeparableArgument,
    check_memory,
    empty,
    empty_like,
    int64_array,
    native_for,
)

MAX_DIM = 16  # of the features, as in csrc/lattice.h
MAX_ENTRIES = 2**31 - 1  # of a table of int32
ZERO_TAPS = 3  # around the taps of an axis, as in csrc/filters.h (PADDING)


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
        return plain_lattice.build_lattice(features, accuracy)
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
    """Whether the library reads these tables: at most 2^31 entries, and no list cut."""
    return lattice.slice_vertices.dtype == torch.int32 and not lattice.splat_segments.numel()


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """`lattice.lattice_filter`."""
    native = native_for(v, lattice.slice_weights)
    if native is None or not takes(lattice) or v.numel() == 0:
        return plain_lattice.lattice_filter(lattice, v, accuracy, transposed=transposed)
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
    """`separable.separable_filter`."""
    if native_for(theta, v) is None or v.numel() == 0:
        return plain_separable.separable_filter(theta, v, shape)
    return _convolved(plain_separable.gaussian_taps(theta, shape), v, shape)


def _convolved(every: Sequence[Tensor], v: Tensor, shape: Sequence[int]) -> Tensor:
    """One convolution for each axis, with its taps: (B, N, L)."""
    native = native_for(v)
    assert native is not None
    v = v.contiguous()
    argument, _keep = taps_argument(every, shape)
    filtered = empty_like(v)
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


def separable_argument(
    theta: Tensor, shape: Sequence[int]
) -> tuple[SeparableArgument, list[object]]:
    """The taps of all axes as C sees them, and what must outlive the call."""
    return taps_argument(plain_separable.gaussian_taps(theta, shape), shape)


def taps_argument(
    every: Sequence[Tensor], shape: Sequence[int]
) -> tuple[SeparableArgument, list[object]]:
    """`separable_argument` with any taps."""
    zeros = every[0].new_zeros(ZERO_TAPS)
    taps = torch.cat([part for axis in every for part in (zeros, axis, zeros)])
    radii, sizes = int64_array([axis.numel() // 2 for axis in every]), int64_array(shape)
    argument = SeparableArgument(
        len(shape), taps.data_ptr(), ctypes.addressof(radii), ctypes.addressof(sizes)
    )
    return argument, [taps, radii, sizes]
