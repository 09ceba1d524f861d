"""Normalisations and kernel types, as enum members and as module constants."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from crfrnn.filtering import Normalization


class NormalizationType(IntEnum):
    """How the rows and columns of K are brought to sum one; D = diag(K 1)."""

    NO_NORMALIZATION = 0  # K
    NORMALIZE_BEFORE = 1  # K D^-1
    NORMALIZE_AFTER = 2  # D^-1 K
    NORMALIZE_SYMMETRIC = 3  # D^-1/2 K D^-1/2


class KernelType(IntEnum):
    """How many parameters a kernel's precision matrix has for learning.

    All three start at the identity and only learning moves them apart: for inference,
    which is what this API offers, they are one and the same kernel.
    """

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


NO_NORMALIZATION = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = NormalizationType.NORMALIZE_SYMMETRIC
CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL

NAMES: dict[NormalizationType, Normalization] = {
    NO_NORMALIZATION: "none",
    NORMALIZE_BEFORE: "before",
    NORMALIZE_AFTER: "after",
    NORMALIZE_SYMMETRIC: "symmetric",
}

Constant = TypeVar("Constant", NormalizationType, KernelType)


def constant(name: str, value: object, kind: type[Constant]) -> Constant:
    """The member of the enum; an integer will do, a member of the other enum will not.

    Both are integers, so that swapped arguments would otherwise pass in silence.
    """
    is_number = isinstance(value, int) and not isinstance(value, (bool, IntEnum))
    if isinstance(value, kind) or (is_number and value in {int(member) for member in kind}):
        return kind(value)
    raise ValueError(
        f"{name} must be one of {', '.join(member.name for member in kind)}, got {value!r}."
    )
