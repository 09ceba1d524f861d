"""Set up one training: what learns in it, and where it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import Segmenter
from runtime.run_folder import ArmName

# What each arm learns by gradient.
#
# All arms of a seed see the same batches; `unary` and `joint` take the same number of network
# steps from the same start, so that no gain is only longer training. The arm `post-hoc` is found
# by search: nothing in it is trained.


@dataclass(frozen=True)
class Arm:
    """What gradient descent changes in one arm.

    Attributes:
        name: of the arm.
        network: the network learns.
        crf: the CRF learns.
    """

    name: ArmName
    network: bool
    crf: bool


TRAINED: dict[ArmName, Arm] = {
    arm.name: arm
    for arm in (
        Arm("start", network=True, crf=False),  # only where no weights are given
        Arm("unary", network=True, crf=False),
        Arm("crf-only", network=False, crf=True),
        Arm("joint", network=True, crf=True),
    )
}


# Which run this is, where it writes, and on what it runs.


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


# What of a segmenter learns during a phase, and in which mode each part is.


@contextmanager
def only_learning(segmenter: Segmenter, arm: Arm, frozen: Sequence[str]) -> Iterator[None]:
    """Let only what the arm learns ask for gradients; afterwards everything does as before.

    Args:
        segmenter: network and CRF.
        arm: what learns.
        frozen: beginnings of names of the network's parts that do not learn.

    Raises:
        ValueError: no part of the network has such a name.
    """
    before = {p: p.requires_grad for p in segmenter.parameters()}
    check_names(segmenter.network, frozen)
    for name, parameter in segmenter.network.named_parameters():
        learns = arm.network and not begins_with(name, frozen)
        parameter.requires_grad_(parameter.requires_grad and learns)
    try:
        yield
    finally:
        for parameter, learnt in before.items():
            parameter.requires_grad_(learnt)


def set_mode(segmenter: Segmenter, arm: Arm, frozen: Sequence[str]) -> None:
    """Train mode for what learns: a frozen part keeps its BN and drops nothing."""
    segmenter.train()
    if not arm.network:
        segmenter.network.eval()
    for name, module in segmenter.network.named_modules():
        if begins_with(name, frozen):
            module.eval()


def begins_with(name: str, beginnings: Sequence[str]) -> bool:
    """Whether a dotted name is one of these parts or lies in one."""
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
