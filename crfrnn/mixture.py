"""The mixture of two distributions over labels, given and returned as logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_mixture(logits: Tensor, unary: Tensor, weight: float) -> Tensor:
    """log((1 - m) softmax(logits) + m softmax(unary)), over the last axis.

    A mean field that is sure and wrong passes no gradient; the mixture always passes that of
    the unary (Le-Huu and Alahari, NeurIPS 2021, who train with m = 0.5 and test with 0).

    Args:
        logits: (B, N, L).
        unary: (B, N, L).
        weight: m, in (0, 1).
    """
    return torch.logaddexp(
        logits.log_softmax(dim=-1) + math.log1p(-weight),
        unary.log_softmax(dim=-1) + math.log(weight),
    )
