"""Everything that a training goes on from, as one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eval import processes
from eval.checkpoint import read_checkpoint, save_checkpoint
from eval.differences import differences
from models import Segmenter
from train.fit_config import FitConfig
from train.optim import build_optimizer, build_schedule
from train.random_state import random_state, set_random_state
from train.run import Run


class TrainingState:
    """Weights, their moving average, optimiser, schedule, random numbers, and how far it got.

    Args:
        segmenter: what is trained.
        config: of this phase.
        run: names and places.
        run_id: of the tracker's run, which a resumed training continues.

    Attributes:
        step: optimiser steps taken.
        best: highest mIoU on the tune split so far.
        without_gain: evaluations since then.
        finished: nothing is left to do; the weights are the result.
        corrupt: unreadable images that this process has met, by name, with what is wrong.
    """

    def __init__(
        self, segmenter: Segmenter, config: FitConfig, run: Run, run_id: str | None
    ) -> None:
        self.segmenter = segmenter
        self.config = config
        self.run = run
        self.run_id = run_id
        self.optimizer = build_optimizer(segmenter, run.arm, config)
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
        """The weights that are evaluated and kept: the moving average where there is one."""
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
        """Let the weights of another segmenter be the result."""
        self.segmenter.load_state_dict(other.state_dict())
        self.average = None

    def save(self, path: Path) -> None:
        """Write everything; every process must call."""
        random = processes.gathered(random_state())
        training = {
            "config": asdict(self.config),
            "weights": {} if self.average is None else self.segmenter.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "best": self.best,
            "without_gain": self.without_gain,
            "finished": self.finished,
            "corrupt": processes.gathered(self.corrupt),  # every process may skip some
            "run_id": self.run_id,
        }
        self._write(path, training)

    def save_result(self, path: Path) -> None:
        """Write the weights alone."""
        self._write(path, {})

    def _write(self, path: Path, training: dict[str, Any]) -> None:
        if processes.is_first():
            save_checkpoint(
                path,
                self.result,
                data=self.run.data,
                arm=self.run.arm.name,
                seed=self.run.seed,
                step=self.step,
                training=training,
            )
        processes.barrier()

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            ValueError: it is of another configuration, or of another number of processes.
        """
        checkpoint = read_checkpoint(path)
        training = checkpoint["training"]
        expected = {
            "fit": asdict(self.config),
            "segmenter": asdict(self.segmenter.config),
            "data": self.run.data,
            "processes": processes.num_processes(),
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
        set_random_state(training["random"][processes.rank()])
        self.step = checkpoint["step"]
        self.best = training["best"]
        self.without_gain = training["without_gain"]
        corrupt = training["corrupt"]  # of all processes together, as it was written at first
        self.corrupt = corrupt if isinstance(corrupt, dict) else corrupt[processes.rank()]
