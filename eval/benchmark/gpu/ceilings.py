"""What the card itself reaches, measured in the same run: copying, and matrix products."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from eval.benchmark.gpu.clock import Clock, Entry, Task, rounds


@dataclass(frozen=True)
class Sizes:
    """What is copied and multiplied.

    Attributes:
        copy_bytes: of the tensor that is cloned; far more than any cache holds.
        side: of the square matrices.
    """

    copy_bytes: int = 2**31
    side: int = 8192


def measure_ceilings(
    device: torch.device, clock: Clock, repeats: int, sizes: Sizes
) -> dict[str, float]:
    """Bytes per second of "copy", counting those read and written; FLOP per second of products.

    "float32" multiplies without tensor cores, "tf32" float32 with 10 bits of the factors,
    "bfloat16" in that type; random data, which costs more power than zeros.
    """
    source = torch.rand(sizes.copy_bytes // 4, device=device)
    found = {"copy": 2 * source.nbytes / _median(clock, source.clone, repeats)}
    del source
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        a, b = torch.randn(2, sizes.side, sizes.side, device=device).to(dtype)
        with matmul_precision(precision):
            seconds = _median(clock, partial(torch.matmul, a, b), repeats)
        found[name] = 2 * sizes.side**3 / seconds
    return found


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Products of float32 at "highest" or "high" precision; what it was before comes back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _median(clock: Clock, task: Task, repeats: int) -> float:
    task()
    return statistics.median(rounds([Entry(clock, task)], repeats)[0])
