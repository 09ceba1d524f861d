"""Kernel weights W_m: how much each kernel's messages count, for each label.

The update subtracts mu W_m (K_m q). Every form is a module whose `forward()` returns
W as (L, L), or (T, L, L) with parameters of their own for each of T iterations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from crfrnn.checks import check_choice, check_finite
from crfrnn.compatibility import KernelWeights, LabelMatrix
from crfrnn.lower_bound import lower_bound


class KernelWeight(LabelMatrix, ABC):
    """W of one kernel, which starts by acting as a scalar w in every form.

    Args:
        num_labels: L.
        value: w, the start. At 0, which every form holds exactly, the kernel is silent.
        nonnegative: keep every entry of W at 0 or above, by `lower_bound`.
        num_sets: T, or None.
    """

    def __init__(
        self,
        num_labels: int,
        *,
        value: float,
        nonnegative: bool = False,
        num_sets: int | None = None,
    ) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        check_finite("value", value)
        if not isinstance(nonnegative, bool):
            raise TypeError(f"nonnegative must be True or False, got {nonnegative!r}.")
        if nonnegative and value < 0:
            raise ValueError(
                f"value must be at least 0 for a nonnegative kernel weight, got {value!r}. "
                "Start at 0 or above, or pass nonnegative=False."
            )
        self.value = float(value)
        self.nonnegative = nonnegative
        self.low = 0.0 if nonnegative else -math.inf
        self.register_start()

    @abstractmethod
    def register_start(self) -> None:
        """Register the learned entries, so that W acts as `value`."""

    def configuration(self) -> dict[str, object]:
        """Every argument of the constructor after num_labels, by name."""
        own = {"value": self.value, "nonnegative": self.nonnegative}
        return {**own, **super().configuration()}


class ScalarWeight(KernelWeight):
    """W = w I: one number for all labels."""

    def register_start(self) -> None:
        """w: () or (T,)."""
        self.scalar = self.start(torch.tensor(self.value))

    def forward(self) -> Tensor:
        """w I: (L, L) or (T, L, L)."""
        scalar = lower_bound(self.scalar, self.low)
        return torch.diag_embed(scalar[..., None].expand(*self.sets, self.num_labels))


class ClassWeight(KernelWeight):
    """W = diag(w): one number for the messages of each label."""

    def register_start(self) -> None:
        """w: (L,) or (T, L)."""
        self.diagonal = self.start(torch.full((self.num_labels,), self.value))

    def forward(self) -> Tensor:
        """diag(w): (L, L) or (T, L, L)."""
        return torch.diag_embed(lower_bound(self.diagonal, self.low))


class MatrixWeight(KernelWeight):
    """W, entry by entry, from w I: off the diagonal it starts at the bound of `nonnegative`."""

    def register_start(self) -> None:
        """W: (L, L) or (T, L, L)."""
        self.matrix = self.start(self.value * torch.eye(self.num_labels))

    def forward(self) -> Tensor:
        """W: (L, L) or (T, L, L)."""
        return lower_bound(self.matrix, self.low)


KERNEL_WEIGHTS: dict[str, type[ScalarWeight | ClassWeight | MatrixWeight]] = {
    "scalar": ScalarWeight,
    "class": ClassWeight,
    "matrix": MatrixWeight,
}


def build_kernel_weight(
    form: KernelWeights,
    num_labels: int,
    *,
    value: float,
    nonnegative: bool = False,
    num_sets: int | None = None,
) -> KernelWeight:
    """The kernel weight of that name; calling it returns W, (L, L) or (T, L, L).

    Args:
        form: "scalar", "class" or "matrix".
        num_labels: L.
        value: w, the start: W acts as that scalar whatever its form.
        nonnegative: keep every entry of W at 0 or above.
        num_sets: T, one W for each iteration; None ties them.

    Raises:
        ValueError: another name, a count out of range, a start that is not finite, or is
            negative where the weight may not be.
        TypeError: `nonnegative` is no bool.
    """
    check_choice("kernel_weights", form, KERNEL_WEIGHTS)
    return KERNEL_WEIGHTS[form](num_labels, value=value, nonnegative=nonnegative, num_sets=num_sets)
