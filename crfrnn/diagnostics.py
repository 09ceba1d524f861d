"""Measure what an inference achieves: energies, divergence, stationarity, iteration by iteration.

The relaxed energy of marginals q, with P_m = mu W_m the penalties:

    E(q) = -<q, unary> + 1/2 sum_m <q, K_m (q P_m')>

The self term k(f_i, f_i) is included, as it is in the update: E of a one-hot q is the
energy of that labelling plus 1/2 sum_m sum_i K_m[i, i] P_m(x_i, x_i), a constant 0 for
Potts. Minus the gradient of E is the mean-field update u(q) where sum_m K_m (. P_m') is
symmetric: K_m ("symmetric" or "none" normalisation) and P_m both. Elsewhere ("after",
"before", a full matrix) u is not the gradient of this or any energy: E is then a number to
watch, which mean field does not minimise.

Everything is per image, (B,), and in the logits' unit; divide by N for a value per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crfrnn.checks import check_penalties, check_rows
from crfrnn.filters import Filter
from crfrnn.inference import (
    Inference,
    Pairwise,
    check_problem,
    largest_change,
    mean_field_update,
)

__all__ = [
    "Record",
    "discrete_energy",
    "free_energy",
    "gradient_norm",
    "kl_divergence",
    "largest_change",
    "relaxed_energy",
    "trace",
]


def relaxed_energy(
    q: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """E(q) = -<q, unary> + 1/2 sum_m <q, K_m (q P_m')>, (B,).

    Args:
        q: (B, N, L) marginals.
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        penalties: P_m = mu W_m, (L, L), one per kernel.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: no floating-point tensor, penalties of another dtype or device.
    """
    return _relaxed_energy(q, unary, _update(q, unary, kernels, penalties))


def discrete_energy(
    labels: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """E of a labelling: `relaxed_energy` of its one-hot rows, (B,).

    Args:
        labels: (B, N) int64 in 0..L - 1, for example `q.argmax(dim=-1)`.
        unary: (B, N, L) logits.
        kernels: K_m.
        penalties: P_m, (L, L), one per kernel.

    Raises:
        ValueError: shapes that do not fit, labels outside 0..L - 1.
        TypeError: labels that are not int64, and as `relaxed_energy`.
    """
    check_rows(unary)
    num_labels = unary.shape[2]
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}. Pass q.argmax(dim=-1).")
    if labels.shape != unary.shape[:2] or labels.min() < 0 or labels.max() >= num_labels:
        raise ValueError(
            f"labels must be {tuple(unary.shape[:2])} in 0..{num_labels - 1} for a unary of "
            f"{tuple(unary.shape)}, got {tuple(labels.shape)} in {labels.min()}..{labels.max()}. "
            "Give void pixels (255) a label first."
        )
    one_hot = torch.nn.functional.one_hot(labels, num_labels).to(unary)
    return relaxed_energy(one_hot, unary, kernels, penalties)


def free_energy(
    q: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """<q, log q> + E(q), (B,): what mean field minimises where K_m and P_m are symmetric.

    KL(q || p) = free energy + log Z, up to the self term: the exact divergence leaves out
    j = i (Krahenbuhl and Koltun, NIPS 2011, section 3), the update of every dense CRF in use
    does not. Arguments as in `relaxed_energy`.
    """
    return _entropy_term(q) + relaxed_energy(q, unary, kernels, penalties)


def kl_divergence(
    q: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """<q, log q> - <q, unary> + sum_m <q, K_m (q P_m')>, (B,), WITHOUT the factor 1/2.

    This is the number that the C++ dense CRF and its Python wrapper report as the KL
    divergence: every pair counts twice, so mean field need not decrease it. For comparison
    with them; `free_energy` is the divergence up to log Z. Arguments as in `relaxed_energy`.
    """
    return _entropy_term(q) - _inner(q, _update(q, unary, kernels, penalties))


def gradient_norm(
    q: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """|| (log q - u(q)) projected to the simplex's tangent ||_2, (B,).

    log q - u(q) is the gradient of the free energy up to a constant over labels (where the
    operator is symmetric, see the module); the projection takes each pixel's mean over
    labels away. It is 0 exactly at the fixed points of mean field, symmetric or not. A q of
    0 counts as the smallest normal number of its dtype. Arguments as in `relaxed_energy`.
    """
    return _gradient_norm(q, _update(q, unary, kernels, penalties))


@dataclass(frozen=True)
class Record:
    """One iteration of an inference. Tensors are (B,), on the device of the unary.

    Attributes:
        iteration: t; 0 is the start, q_0.
        relaxed_energy: E(q_t).
        discrete_energy: E of the argmax of q_t.
        free_energy: <q_t, log q_t> + E(q_t), the KL divergence up to log Z.
        largest_change: max |q_t - q_{t-1}|; NaN for t = 0.
        gradient_norm: of the free energy, in the simplex's tangent.
    """

    iteration: int
    relaxed_energy: Tensor
    discrete_energy: Tensor
    free_energy: Tensor
    largest_change: Tensor
    gradient_norm: Tensor


@torch.no_grad()
def trace(
    inference: Inference,
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
) -> list[Record]:
    """Run an inference and record every iteration, without gradient.

    Each record costs two filterings per kernel. With penalties that differ between
    iterations, all energies are those of the last iteration's, so that they compare.

    Args:
        inference: `MeanField(...)`, `FrankWolfe(...)` or another.
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        pairwise: penalties over iterations and kernels, as in `mean_field`.
        num_iterations: T.

    Returns:
        The records of t = 0, ..., T, or up to where the inference stopped.

    Raises:
        ValueError, TypeError: as the inference does.
    """
    check_problem(unary, kernels, pairwise, num_iterations)
    penalties = pairwise[max(0, min(num_iterations, len(pairwise)) - 1)]
    records: list[Record] = []
    previous = unary * torch.nan

    def record(q: Tensor) -> None:
        nonlocal previous
        update = mean_field_update(q, unary, kernels, penalties)
        relaxed = _relaxed_energy(q, unary, update)
        records.append(
            Record(
                iteration=len(records),
                relaxed_energy=relaxed,
                discrete_energy=discrete_energy(q.argmax(dim=-1), unary, kernels, penalties),
                free_energy=_entropy_term(q) + relaxed,
                largest_change=largest_change(q, previous),
                gradient_norm=_gradient_norm(q, update),
            )
        )
        previous = q

    inference(unary, kernels, pairwise, num_iterations, observe=record)
    return records


def _update(
    q: Tensor, unary: Tensor, kernels: Sequence[Filter], penalties: Sequence[Tensor]
) -> Tensor:
    """u(q) = unary - sum_m K_m (q P_m') of checked arguments."""
    check_rows(unary)
    check_penalties(penalties, len(kernels), unary)
    if q.shape != unary.shape:
        raise ValueError(f"q must be {tuple(unary.shape)} like the unary, got {tuple(q.shape)}.")
    return mean_field_update(q, unary, kernels, penalties)


def _relaxed_energy(q: Tensor, unary: Tensor, update: Tensor) -> Tensor:
    # sum_m K_m (q P_m') = unary - u(q), so E(q) = -1/2 <q, unary + u(q)>.
    return -0.5 * _inner(q, unary + update)


def _entropy_term(q: Tensor) -> Tensor:
    """<q, log q>, with 0 log 0 = 0."""
    return torch.xlogy(q, q).sum(dim=(1, 2))


def _gradient_norm(q: Tensor, update: Tensor) -> Tensor:
    gradient = q.clamp_min(torch.finfo(q.dtype).tiny).log() - update
    tangent = gradient - gradient.mean(dim=-1, keepdim=True)
    return tangent.square().sum(dim=(1, 2)).sqrt()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each image, (B,)."""
    return (a * b).sum(dim=(1, 2))
