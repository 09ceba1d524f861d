"""Ending a run between two steps: on SIGTERM and SIGINT, of which any process may get one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch

from eval import processes


class Stopped(Exception):
    """A run was asked to stop, has saved, and can be resumed.

    Args:
        step: the last one that was taken, and saved; 0 outside of a training.
        signal_number: what asked.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        self.step = step
        self.signal_number = signal_number
        saved = f"after step {step}, which is saved" if step else "between two phases"
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} {saved}: the same command with "
            "--resume goes on."
        )


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the program in order where no `StopRequest` is open.

    Raises:
        Stopped: of step 0: what was finished before is kept.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(0, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """While open, SIGTERM and the first SIGINT only leave a note; the second SIGINT interrupts.

    A program started in the background may ignore SIGINT: that stays so.

    Args:
        device: where processes add up their notes.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for number in self.SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def __call__(self) -> int:
        """The signal to stop for, the same number in every process; 0 to go on."""
        if processes.num_processes() == 1:
            return self.received
        noted = torch.tensor([self.received], device=self.device)
        return int(processes.largest(noted))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT and number in self._before:
            signal.signal(number, self._before.pop(number))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
