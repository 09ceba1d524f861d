"""Matrices over labels: the compatibility mu and the weights of a kernel."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import Function

from crfrnn.checks import check_choice, check_count, check_finite
from crfrnn.ops import label_product

# max(x, bound) that a parameter can come back from: projected gradient as an operator.


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound), with a gradient where a descent step would lead back above the bound.

    The gradient of max is 0 below the bound, so an entry that one step pushed there would
    stay for ever. Here g passes where x > bound, or where g < 0: the step -g raises x.
    At the bound itself a step down is stopped, as projection stops it, so that an entry
    started there gathers no debt. One that a long step carried below climbs back first:
    the parameter may be negative, what it stands for is not.

    Away from the bound, and above it, this is the true gradient; below it the truth is 0.

    Args:
        x: any shape, floating point.
        bound: in the unit of x; -inf leaves x and its gradient alone.

    Returns:
        max(x, bound), in the shape of x.

    Source: the reparametrisation of Balle, Laparra and Simoncelli's learned image compression
    (ICLR 2017), whose authors' library calls it `lower_bound`, "identity if towards".
    """
    return _LowerBound.apply(x, bound)  # type: ignore[no-any-return]


class _LowerBound(Function):
    """max(x, bound); its gradient knows the direction of the step."""

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clamp_min(bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.bound = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        return grad.where((x > ctx.bound) | (grad < 0), 0.0), None


# Label compatibility, and what every small matrix on the label axis has in common.
#
# The update subtracts mu W_m (K_m q) for each kernel m. W_m weighs the messages of kernel m, mu
# is a penalty: mu[l, l'] is what label l pays for a neighbour of label l'.
#
# Each form is a module whose `forward()` takes nothing and returns its matrix, so the penalty of
# kernel m is `mu() @ W_m()` (the forms of W_m: crfrnn/label_matrices.py). With `num_sets` = T,
# one set of parameters for each iteration, the matrices are (T, L, L) and the same product holds.
# Forms name their parameters differently, so that a state of one does not load into another.

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


# Kernel weights W_m: how much each kernel's messages count, for each label.
#
# The update subtracts mu W_m (K_m q). Every form is a module whose `forward()` returns W as (L,
# L), or (T, L, L) with parameters of their own for each of T iterations.


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
