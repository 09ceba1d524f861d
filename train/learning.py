"""What of a segmenter learns during a phase, and in which mode each part is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from models import Segmenter
from train.arms import Arm


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
