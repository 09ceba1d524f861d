"""How fast a training is, what it waits for, and what memory it takes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from eval import processes


class Meter:
    """Speed since it was last read.

    Args:
        images: of one step of one process.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.images_per_second = 0.0
        self._reset()

    def _reset(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count what happens inside as one step."""
        began = time.perf_counter()
        yield
        self._steps += 1
        self._seconds += time.perf_counter() - began
        everywhere = self.images * processes.num_processes()
        self.images_per_second = everywhere * self._steps / self._seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens inside, which is part of a step, as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def read(self, device: torch.device) -> dict[str, float]:
        """Images per second of all processes, share of time spent waiting, peak memory."""
        values = {
            "speed/images_per_second": self.images_per_second,
            "speed/waiting_share": self._waited / self._seconds,
            "speed/peak_memory_mb": peak_memory(device) / 1e6,
        }
        self._reset()
        return values


def peak_memory(device: torch.device) -> int:
    """The largest memory so far, bytes: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
