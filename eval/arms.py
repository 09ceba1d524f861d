"""The five arms of the comparison, in the order in which they are shown everywhere."""

from __future__ import annotations

from typing import Literal, get_args

ArmName = Literal["start", "unary", "post-hoc", "crf-only", "joint"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)

ABOUT_ARMS: dict[str, str] = {
    "start": "the starting checkpoint as it is",
    "unary": "the network alone, trained from start",
    "post-hoc": "unary plus a dense CRF, its settings searched on the tune split",
    "crf-only": "unary frozen, the CRF trained by gradient from the post-hoc values",
    "joint": "network and CRF trained together from start",
}
