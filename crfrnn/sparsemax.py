"""Sparsemax: the Euclidean counterpart of softmax, with exact zeros."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsemax(logits: Tensor) -> Tensor:
    """The point of the simplex nearest to the logits: argmin_s |s - z|^2.

        s = max(z - tau, 0),   tau such that sum_l s_l = 1,

    found by sorting: the support holds the k largest entries, k the largest number with
    1 + k z_(k) > z_(1) + ... + z_(k), and tau = (z_(1) + ... + z_(k) - 1) / k.
    On the support S the Jacobian is I - 1 1' / |S|, elsewhere 0.

    Args:
        logits: z, (..., L), floating point.

    Returns:
        (..., L), at least 0, sums to 1 over the last axis; differentiable in `logits`
        wherever the support does not change.

    Source: Martins and Astudillo, ICML 2016, algorithm 1 and proposition 2.
    """
    # A constant over labels changes nothing; with the maximum at 0, tau is in [-1, 0).
    z = logits - logits.detach().amax(dim=-1, keepdim=True)
    with torch.no_grad():  # the support is piecewise constant: the sort needs no gradient
        descending = z.sort(dim=-1, descending=True).values
        total = descending.cumsum(dim=-1)
        rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        size = (1 + rank * descending > total).sum(dim=-1, keepdim=True)
        support = z > (total.gather(-1, size - 1) - 1) / size
        size = support.sum(dim=-1, keepdim=True)
    tau = (torch.where(support, z, 0).sum(dim=-1, keepdim=True) - 1) / size
    return torch.where(support, z - tau, 0)
