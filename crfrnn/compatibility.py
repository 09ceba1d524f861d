"""Kernel weights and label compatibility: the small matrices on the label axis.

The update subtracts mu W_m (K_m q) for each kernel m. W_m weighs the messages of
kernel m, mu is a penalty: mu[l, l'] is what label l pays for a neighbour of label l'.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KernelWeights = Literal["scalar", "class", "matrix"]
Compatibility = Literal["potts", "full"]


def potts(num_labels: int) -> Tensor:
    """mu = 1 - I: every label pays one for every other label, (L, L)."""
    return 1 - torch.eye(num_labels)


def initial_kernel_weight(form: KernelWeights, value: float, num_labels: int) -> Tensor:
    """A weight that acts as the scalar `value` whatever its form: (), (L,) or (L, L)."""
    if form == "matrix":
        return value * torch.eye(num_labels)
    return torch.full((num_labels,) if form == "class" else (), float(value))


def weight_matrix(weight: Tensor, num_labels: int) -> Tensor:
    """W_m as (L, L), whatever its form: w I, diag(w) or W."""
    if weight.ndim == 2:
        return weight
    return torch.diag(weight.expand(num_labels))


def penalty_matrix(compatibility: Tensor, weight: Tensor) -> Tensor:
    """mu W_m: (L, L)."""
    return compatibility @ weight_matrix(weight, compatibility.shape[0])
