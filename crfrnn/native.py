"""The shared library of `csrc/`: where it is, its functions, and the structures they take."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.context
import os
import warnings
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

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
    """Where the library was built: beside the package, whatever the platform calls it."""
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


def native_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The library, where it takes these tensors."""
    served = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return library() if served else None


def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous tensor without values, of that dtype, on pages as large as the system gives.

    Fresh memory comes page by page, and of 4 KiB each this takes longer than most filters.
    """
    fresh = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    native = native_for(x)
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
