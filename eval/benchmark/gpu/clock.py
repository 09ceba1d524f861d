"""How a call is timed and its memory measured: by a GPU's own events, or on the wall."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import final

import torch

Task = Callable[[], object]


class Clock(ABC):
    """Measures one call of a task."""

    @abstractmethod
    def seconds(self, task: Task) -> float:
        """From its start to the end of its work."""

    @abstractmethod
    def peak_bytes(self, task: Task) -> int | None:
        """Most memory of the device in use during the call, inputs included; None: not counted."""


@final
class WallClock(Clock):
    """Of the CPU, whose work is done when a call returns. It does not count memory."""

    def seconds(self, task: Task) -> float:
        """As `Clock.seconds`."""
        start = time.perf_counter()
        task()
        return time.perf_counter() - start

    def peak_bytes(self, task: Task) -> int | None:
        """None: `eval.benchmark.memory` measures a process of its own."""
        return None


@final
class EventClock(Clock):
    """Of a GPU: the time between two events in its stream, after all earlier work is done.

    Python runs ahead of the GPU; where it does not, the GPU waits for it, and that counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, task: Task) -> float:
        """As `Clock.seconds`."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self.device)
        start.record()
        task()
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1e3

    def peak_bytes(self, task: Task) -> int | None:
        """As `Clock.peak_bytes`, of what PyTorch allocated."""
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        task()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)


def clock_of(device: torch.device) -> Clock:
    """Events where there are any."""
    return EventClock(device) if device.type == "cuda" else WallClock()


@dataclass(frozen=True)
class Entry:
    """A task with what measures it.

    Attributes:
        clock: of the device that works.
        task: what is timed.
        active: entered around every call, outside of what is timed.
    """

    clock: Clock
    task: Task
    active: Callable[[], AbstractContextManager[None]] = nullcontext

    def seconds(self) -> float:
        """Of one call."""
        with self.active():
            return self.clock.seconds(self.task)

    def peak_bytes(self) -> int | None:
        """Of one call."""
        with self.active():
            return self.clock.peak_bytes(self.task)


def found_memory(entry: Entry) -> bool:
    """Call a task once, uncounted; whether the device had the memory it takes."""
    try:
        with entry.active():
            entry.task()
    except torch.OutOfMemoryError:
        return False
    return True


def rounds(entries: Sequence[Entry], repeats: int) -> list[list[float]]:
    """Seconds of each entry, called in turn in every round.

    The first call of a task compiles kernels and fills caches: it belongs before this.
    """
    seconds: list[list[float]] = [[] for _ in entries]
    for _ in range(repeats):
        for entry, own in zip(entries, seconds, strict=True):
            own.append(entry.seconds())
    return seconds
