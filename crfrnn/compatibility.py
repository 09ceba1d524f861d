"""Label compatibility, and what every small matrix on the label axis has in common.

The update subtracts mu W_m (K_m q) for each kernel m. W_m weighs the messages of
kernel m, mu is a penalty: mu[l, l'] is what label l pays for a neighbour of label l'.

Each form is a module whose `forward()` takes nothing and returns its matrix, so the
penalty of kernel m is `mu() @ W_m()` (the forms of W_m: crfrnn/kernel_weights.py). With
`num_sets` = T, one set of parameters for each iteration, the matrices are (T, L, L) and
the same product holds. Forms name their parameters differently, so that a state of one
does not load into another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from crfrnn.checks import check_choice, check_count
from crfrnn.rows_ops import label_product

KernelWeights = Literal["scalar", "class", "matrix"]
CompatibilityForm = Literal["potts", "diagonal", "symmetric", "full", "low_rank"]

LOW_RANK_START = 0.1  # standard deviation of the random factor; mu is of order 1


def potts(num_labels: int) -> Tensor:
    """mu = 1 - I: every label pays one for every other label, (L, L)."""
    return 1 - torch.eye(num_labels)


class LabelMatrix(nn.Module, ABC):
    """A matrix on the label axis: (L, L), or one for each of T sets, (T, L, L).

    Args:
        num_labels: L.
        num_sets: T, parameters of their own for each iteration; None ties them.
    """

    def __init__(self, num_labels: int, *, num_sets: int | None = None) -> None:
        super().__init__()
        check_count("num_labels", num_labels, 1)
        if num_sets is not None:
            check_count("num_sets", num_sets, 1)
        self.num_labels = num_labels
        self.num_sets = num_sets

    @abstractmethod
    def forward(self) -> Tensor:
        """The matrix: (L, L), or (T, L, L) where untied."""

    def start(self, value: Tensor) -> nn.Parameter:
        """A parameter that starts at `value` in every set: (*value) or (T, *value)."""
        return nn.Parameter(value.expand((*self.sets, *value.shape)).clone())

    @property
    def sets(self) -> tuple[int, ...]:
        """The leading axes of every parameter: () or (T,)."""
        return () if self.num_sets is None else (self.num_sets,)

    def extra_repr(self) -> str:
        """The configuration in the words of the constructor."""
        shown = ", ".join(f"{k}={v!r}" for k, v in self.configuration().items())
        return f"{self.num_labels}, {shown}"

    def configuration(self) -> dict[str, object]:
        """Every argument of the constructor after num_labels, by name."""
        return {"num_sets": self.num_sets}


class Potts(LabelMatrix):
    """mu = 1 - I, fixed."""

    def __init__(self, num_labels: int, *, num_sets: int | None = None) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        self.penalty: Tensor
        # A buffer: no requires_grad_() makes it learn. Not in the state: there is nothing to load.
        self.register_buffer("penalty", potts(num_labels), persistent=False)

    def forward(self) -> Tensor:
        """1 - I: (L, L) or (T, L, L)."""
        return self.penalty.expand(*self.sets, -1, -1)


class Diagonal(LabelMatrix):
    """mu = diag(d), learned: label l pays d_l for a neighbour of its own label.

    d starts at -1. That is Potts less the matrix of ones, which adds the same
    sum_l' (W K q)_l' to every label of a pixel and so leaves q as it is: a start equal
    to Potts up to a constant over labels, whatever W. Only the logits shift.
    """

    def __init__(self, num_labels: int, *, num_sets: int | None = None) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        self.diagonal = self.start(-torch.ones(num_labels))

    def forward(self) -> Tensor:
        """diag(d): (L, L) or (T, L, L)."""
        return torch.diag_embed(self.diagonal)


class Symmetric(LabelMatrix):
    """mu = (R + R') / 2, learned from a Potts start: l pays l' what l' pays l.

    With a symmetric kernel and a scalar weight, a fixed point of the updates is then a
    stationary point of one energy; no energy belongs to an asymmetric mu.
    """

    def __init__(self, num_labels: int, *, num_sets: int | None = None) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        self.root = self.start(potts(num_labels))

    def forward(self) -> Tensor:
        """(R + R') / 2: (L, L) or (T, L, L)."""
        return (self.root + self.root.mT) / 2


class Full(LabelMatrix):
    """mu, learned entry by entry from a Potts start (Zheng et al., ICCV 2015, section 4)."""

    def __init__(self, num_labels: int, *, num_sets: int | None = None) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        self.matrix = self.start(potts(num_labels))

    def forward(self) -> Tensor:
        """mu: (L, L) or (T, L, L)."""
        return self.matrix


class LowRank(LabelMatrix):
    """mu = 1 - I + U V', learned from a Potts start: 2 L r numbers instead of L^2.

    U starts random and small, V at zero. So mu starts at Potts exactly and the first
    gradient reaches V; were both zero, neither would ever move.

    Args:
        num_labels: L.
        rank: r, from 1 to L.
        num_sets: T, or None.
    """

    def __init__(self, num_labels: int, *, rank: int, num_sets: int | None = None) -> None:
        super().__init__(num_labels, num_sets=num_sets)
        check_count("rank", rank, 1)
        if rank > num_labels:
            raise ValueError(
                f"rank must be at most the number of labels, {num_labels}, got {rank}. "
                "Choose a smaller rank, or the 'full' compatibility."
            )
        self.rank = rank
        self.penalty: Tensor
        self.register_buffer("penalty", potts(num_labels), persistent=False)
        # Drawn anew for each set: nothing ties the sets to one subspace.
        left = torch.randn(*self.sets, num_labels, rank) * LOW_RANK_START
        self.left = nn.Parameter(left)
        self.right = self.start(torch.zeros(num_labels, rank))

    def forward(self) -> Tensor:
        """1 - I + U V': (L, L) or (T, L, L)."""
        return self.penalty + label_product(self.left, self.right.mT)

    def configuration(self) -> dict[str, object]:
        """Every argument of the constructor after num_labels, by name."""
        return {"rank": self.rank, **super().configuration()}


COMPATIBILITIES: dict[str, type[Potts | Diagonal | Symmetric | Full]] = {
    "potts": Potts,
    "diagonal": Diagonal,
    "symmetric": Symmetric,
    "full": Full,
}


def build_compatibility(
    form: CompatibilityForm,
    num_labels: int,
    *,
    rank: int | None = None,
    num_sets: int | None = None,
) -> LabelMatrix:
    """The compatibility of that name; calling it returns mu, (L, L) or (T, L, L).

    Args:
        form: "potts", "diagonal", "symmetric", "full" or "low_rank".
        num_labels: L.
        rank: r of "low_rank", from 1 to L, and of no other form.
        num_sets: T, one mu for each iteration; None ties them.

    Raises:
        ValueError: another name, a count out of range, a rank without "low_rank" or the
            other way round.
    """
    check_choice("compatibility", form, get_args(CompatibilityForm))
    if (form == "low_rank") != (rank is not None):
        raise ValueError(
            "rank goes with the 'low_rank' compatibility and with no other, got "
            f"compatibility={form!r} and rank={rank!r}. Pass both or neither."
        )
    if rank is not None:
        return LowRank(num_labels, rank=rank, num_sets=num_sets)
    return COMPATIBILITIES[form](num_labels, num_sets=num_sets)
