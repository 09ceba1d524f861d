"""The mean over the labelled pixels of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from eval import processes


def labelled_mean(total: Tensor, weight: Tensor) -> Tensor:
    """What a loss over pixels adds up to, divided by what their weights add up to.

        loss = total / (sum of weight over the P processes / P)

    The mean over the processes of these losses, which DistributedDataParallel takes of their
    gradients, is the sum over all pixels of all processes divided by the sum of all weights. The
    mean of each process's own mean would give more to the pixels of a process with few of them.
    Without a labelled pixel anywhere the loss is 0, not 0 / 0.

    Args:
        total: of this process, a scalar.
        weight: of this process, a scalar: the number of labelled pixels, or the sum of their
            weights.
    """
    mean = processes.mean(weight)
    return total / torch.where(mean > 0, mean, 1)


def precise(logits: Tensor) -> Tensor:
    """The logits in at least float32: bfloat16 has three digits, and a loss adds up many."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
