"""The state of a training: saved, resumed bit for bit, and stopped in order."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import Segmenter
from runtime import distributed
from runtime.checkpoint import read_checkpoint, save_checkpoint
from runtime.provenance import differences
from train.optim import build_optimizer, build_schedule
from train.stage import Stage

# The random numbers of every library: saved in a checkpoint, restored on resuming.
#
# The batches need none of it (`data.stream` derives them from seed and step); dropout does, and
# whatever a user's own change draws.


def random_state() -> dict[str, Any]:
    """Read the state of the global generators, as tensors and plain values."""
    numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what others draw from
    algorithm, keys, *rest = numpy
    return {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    random.setstate(state["python"])
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# Ending a run between two steps: on SIGTERM and SIGINT, of which any process may get one.


class Stopped(Exception):
    """Signal that a run was asked to stop, has saved, and can be resumed.

    Args:
        step: the last one that was taken, and saved; 0 outside of a training.
        signal_number: the signal.
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
        Stopped: of step 0; what was finished before is on disk.
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
    """Note SIGTERM and the first SIGINT while open; let the second SIGINT interrupt.

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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __call__(self) -> int:
        """Return the signal to stop for, the same in every process; 0 to go on."""
        if distributed.num_processes() == 1:
            return self.received
        noted = torch.tensor([self.received], device=self.device)
        return int(distributed.largest(noted))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT and number in self._before:
            signal.signal(number, self._before.pop(number))


# Everything that a training is resumed from, as one file.


class TrainingState:
    """Hold weights, their moving average, optimiser, schedule, random numbers and progress.

    Args:
        segmenter: what is trained.
        stage: the numbers, and where to write.
        run_id: of the tracker's run, which a resumed training continues.

    Attributes:
        step: optimiser steps taken.
        best: highest mIoU on the tune split so far.
        without_gain: evaluations since then.
        finished: nothing is left to do; the weights are the result.
        corrupt: unreadable images that this process has met, by name, with what is wrong.
    """

    def __init__(self, segmenter: Segmenter, stage: Stage, run_id: str | None) -> None:
        self.segmenter = segmenter
        self.stage = stage
        self.run_id = run_id
        config = stage.fit
        self.optimizer = build_optimizer(segmenter, stage.learns, config)
        self.schedule = build_schedule(self.optimizer, config)
        self.average: AveragedModel | None = None
        if config.ema_decay > 0:
            averaging = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(segmenter, multi_avg_fn=averaging)
        self.step = 0
        self.best = -1.0
        self.without_gain = 0
        self.finished = False
        self.corrupt: dict[str, str] = {}

    @property
    def result(self) -> Segmenter:
        """The weights that are evaluated and saved: the moving average where there is one."""
        if self.average is None:
            return self.segmenter
        averaged: Segmenter = self.average.module  # type: ignore[assignment]
        return averaged

    def advance(self) -> None:
        """Count a step that the optimiser has taken."""
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.segmenter)
        self.step += 1

    def take(self, other: Segmenter) -> None:
        """Make the weights of another segmenter the result."""
        self.segmenter.load_state_dict(other.state_dict())
        self.average = None

    def save(self, path: Path) -> None:
        """Write everything; every process must call."""
        random = distributed.gathered(random_state())
        training = {
            "config": asdict(self.stage.fit),
            "weights": {} if self.average is None else self.segmenter.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "best": self.best,
            "without_gain": self.without_gain,
            "finished": self.finished,
            "corrupt": distributed.gathered(self.corrupt),  # every process may skip some
            "run_id": self.run_id,
        }
        self._write(path, training)

    def save_result(self, path: Path) -> None:
        """Write the weights alone."""
        self._write(path, {})

    def _write(self, path: Path, training: dict[str, Any]) -> None:
        if distributed.is_first():
            save_checkpoint(
                path,
                self.result,
                data=self.stage.data,
                arm=self.stage.arm,
                seed=self.stage.seed,
                step=self.step,
                training=training,
            )
        distributed.barrier()

    def restore(self, path: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            ValueError: it is of another configuration, or of another number of processes.
        """
        checkpoint = read_checkpoint(path)
        training = checkpoint["training"]
        expected = {
            "fit": asdict(self.stage.fit),
            "segmenter": asdict(self.segmenter.config),
            "data": self.stage.data,
            "processes": distributed.num_processes(),
        }
        found = {
            "fit": training["config"],
            "segmenter": checkpoint["segmenter"],
            "data": checkpoint["data"],
            "processes": len(training["random"]),
        }
        differing = differences(found, expected)
        if differing:
            raise ValueError(
                f"{path} is of another configuration: {'; '.join(differing[:5])}. "
                "Resume with the configuration it was written with, or give another --out."
            )
        self.finished = training["finished"]
        if self.finished:
            self.average = None
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint["model"])
            self.average.n_averaged.fill_(training["averaged"])
        raw = {} if self.finished else training["weights"]
        self.segmenter.load_state_dict(raw or checkpoint["model"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        set_random_state(training["random"][distributed.rank()])
        self.step = checkpoint["step"]
        self.best = training["best"]
        self.without_gain = training["without_gain"]
        self.corrupt = training["corrupt"][distributed.rank()]
