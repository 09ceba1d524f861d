"""The GPU's loops, in Triton: `csrc/` is their counterpart on the CPU.

The other files of this folder import Triton, and are imported by the filters' CUDA files on first
use alone: the library needs neither Triton nor CUDA to be imported.
"""

from __future__ import annotations

from importlib.util import find_spec

# Looked up once: a cached function is one that the compiler warns of.
FOUND = find_spec("triton") is not None

MAX_LABELS = 64  # of `rows.py`: more spill registers


def available() -> bool:
    """Tell whether Triton can be imported, as it can beside PyTorch's builds for GPUs."""
    return FOUND
