"""What each arm learns by gradient.

All arms of a seed see the same batches; `unary` and `joint` take the same number of
network steps from the same start, so that no gain is only longer training. The arm
`post-hoc` is found by search: nothing in it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.arms import ArmName


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
