"""The five arms of the comparison, and what each of them learns.

All arms of a seed see the same batches; `unary` and `joint` take the same number of
network steps from the same start, so that no gain is only longer training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ArmName = Literal["start", "unary", "post-hoc", "crf-only", "joint"]


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


ARMS: dict[ArmName, Arm] = {
    arm.name: arm
    for arm in (
        Arm("start", network=True, crf=False),  # trained only where no weights are given
        Arm("unary", network=True, crf=False),
        Arm("post-hoc", network=False, crf=False),  # searched, not trained
        Arm("crf-only", network=False, crf=True),
        Arm("joint", network=True, crf=True),
    )
}
