"""Mean-field inference of the dense CRF.

Sign convention, stated once: logits are higher for likelier labels, the
compatibility mu is a PENALTY and is subtracted,

    logits_{t+1} = unary - sum_m mu W_m (K_m q_t),   q_t = softmax(logits_t).

With Potts, mu = 1 - I and a scalar weight w, this equals unary + w K q up to a
constant over labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from crfrnn.filtering import Filter


def mean_field(
    unary: Tensor, kernels: Sequence[Filter], pairwise: Sequence[Tensor], num_iterations: int
) -> Tensor:
    """Parallel mean-field updates (Zheng et al., ICCV 2015, algorithm 1).

    One iteration: normalise, pass messages through every kernel, weight them and apply
    the compatibility transform, add the unary. The first messages are computed from
    q_0 = softmax(unary).

    Args:
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        pairwise: mu W_m, one (L, L) matrix per kernel: the penalty of label l (row) for
            a unit of message of label l' (column).
        num_iterations: T; 0 returns the unary.

    Returns:
        (B, N, L) logits after T updates; their softmax is the marginal q_T.
    """
    logits = unary
    for _ in range(num_iterations):
        q = logits.softmax(dim=-1)
        logits = unary
        for kernel, penalty in zip(kernels, pairwise, strict=True):
            logits = logits - kernel(q) @ penalty.t()
    return logits
