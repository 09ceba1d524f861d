"""One training: what learns in it, by which numbers, and where it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import Segmenter
from runtime.run_folder import ArmName, Execution
from train.recipe import FitConfig


@dataclass(frozen=True)
class Trainable:
    """The parts of a segmenter that gradient descent changes."""

    network: bool
    crf: bool


NETWORK = Trainable(network=True, crf=False)
CRF = Trainable(network=False, crf=True)
BOTH = Trainable(network=True, crf=True)


@dataclass(frozen=True)
class Stage:
    """One training of an arm; most arms have one.

    Attributes:
        arm: whose training it is.
        seed: of the batches and of dropout.
        fit: the numbers.
        learns: the parts that learn.
        directory: holds checkpoint.pt.
        data: the data set's config as a dictionary, for the checkpoint.
        device: where it runs.
        execution: processes that load data, and when it logs and saves.
        first_step: steps that earlier stages of the arm have taken and logged.
    """

    arm: ArmName
    seed: int
    fit: FitConfig
    learns: Trainable
    directory: Path
    data: dict[str, Any]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    execution: Execution = field(default_factory=Execution)
    first_step: int = 0

    @property
    def checkpoint(self) -> Path:
        """The file that the stage leaves, and resumes from."""
        return self.directory / "checkpoint.pt"


@contextmanager
def only_learning(segmenter: Segmenter, learns: Trainable, frozen: Sequence[str]) -> Iterator[None]:
    """Freeze the parameters that do not learn; restore `requires_grad` afterwards.

    Args:
        segmenter: network and CRF.
        learns: the parts that learn.
        frozen: beginnings of names of the network's parts that do not.

    Raises:
        ValueError: no part of the network has such a name.
    """
    before = {p: p.requires_grad for p in segmenter.parameters()}
    check_names(segmenter.network, frozen)
    for name, parameter in segmenter.network.named_parameters():
        wanted = learns.network and not begins_with(name, frozen)
        parameter.requires_grad_(parameter.requires_grad and wanted)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def set_mode(segmenter: Segmenter, stage: Stage) -> None:
    """Put what learns in train mode; a frozen part keeps its BN and drops nothing."""
    segmenter.train()
    if not stage.learns.network:
        segmenter.network.eval()
    for name, module in segmenter.network.named_modules():
        if begins_with(name, stage.fit.frozen):
            module.eval()


def begins_with(name: str, beginnings: Sequence[str]) -> bool:
    """Tell if a dotted name is one of these parts or lies in one."""
    return any(name == part or name.startswith(f"{part}.") for part in beginnings)


def check_names(network: nn.Module, frozen: Sequence[str]) -> None:
    """Raise ValueError where a name is that of no part."""
    names = [name for name, _ in network.named_modules() if name]
    for part in frozen:
        if part not in names:
            children = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                f"frozen: this network has no part {part!r}. Its parts: {children}, and parts of "
                "these, as in backbone.conv1."
            )
