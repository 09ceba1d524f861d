"""Which run this is, where it writes, and on what it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from train.arms import Arm


@dataclass(frozen=True)
class Run:
    """One phase of one arm.

    Attributes:
        arm: what learns.
        seed: of the batches and of dropout.
        directory: holds checkpoint.pt.
        data: the data set's config as a dictionary, for the checkpoint.
        workers: processes that load data.
        device: where it runs.
        compile: run the network through torch.compile.
        log_every, save_every: steps between two lines, and two checkpoints.
        max_corrupt: unreadable images that a process skips before the run stops.
        first_step: steps of earlier phases, which the tracker has seen.
    """

    arm: Arm
    seed: int
    directory: Path
    data: dict[str, Any]
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compile: bool = False
    log_every: int = 10
    save_every: int = 50
    max_corrupt: int = 10
    first_step: int = 0

    @property
    def checkpoint(self) -> Path:
        """The file that the run leaves, and resumes from."""
        return self.directory / "checkpoint.pt"
