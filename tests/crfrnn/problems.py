"""Small inference problems, with their kernels written out as NumPy matrices too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crfrnn.filters import ExactFilter, Filter, Normalization, Normalized
from crfrnn.inference import Inference

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """Two kernels on B images of N pixels: `kernels` as filters, `dense` as (B, N, N)."""

    unary: Tensor
    features: list[Tensor]
    kernels: list[Filter]
    dense: list[Array]
    penalties: list[Tensor]

    @property
    def arguments(self) -> tuple[Tensor, list[Filter], list[list[Tensor]]]:
        """What an inference takes: unary, kernels, penalties that all iterations share."""
        return self.unary, self.kernels, [self.penalties]

    def learning(self) -> Problem:
        """The same of leaves that want gradients: unary, penalties, and features in K."""
        features = [f.clone().requires_grad_() for f in self.features]
        return replace(
            self,
            unary=self.unary.clone().requires_grad_(),
            features=features,
            kernels=learnt_kernels(features),
            penalties=[p.clone().requires_grad_() for p in self.penalties],
        )

    def gradients(self, infer: Inference, num_iterations: int) -> tuple[Tensor, ...]:
        """Of a weighted sum of marginals: to the unary, the features and the penalties."""
        leaves = self.learning()
        q = infer(*leaves.arguments, num_iterations).softmax(-1)
        weights = torch.linspace(-1, 1, q.numel(), dtype=q.dtype).view_as(q)
        wanted = (leaves.unary, *leaves.features, *leaves.penalties)
        return torch.autograd.grad((q * weights).sum(), wanted)

    def image(self, b: int) -> Problem:
        """The problem of one image of the batch."""
        return Problem(
            self.unary[b : b + 1],
            [f[b : b + 1] for f in self.features],
            [normalized(f[b : b + 1]) for f in self.features],
            [k[b : b + 1] for k in self.dense],
            self.penalties,
        )


def random_problem(
    batch: int = 2,
    num_pixels: int = 6,
    num_labels: int = 3,
    strength: float = 1.0,
    normalization: Normalization = "symmetric",
    penalty: str = "any",
) -> Problem:
    """Random logits and features; penalties "any", "symmetric" or "potts" times a strength."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    unary = normal(batch, num_pixels, num_labels)
    features = [normal(batch, num_pixels, d) for d in (2, 3)]
    penalties = []
    for _ in features:
        matrix = normal(num_labels, num_labels)
        if penalty == "symmetric":
            matrix = matrix + matrix.t()
        elif penalty == "potts":
            matrix = 1 - torch.eye(num_labels, dtype=torch.float64)
        penalties.append(strength * matrix)
    return Problem(
        unary=unary,
        features=features,
        kernels=[normalized(f, normalization) for f in features],
        dense=[written_kernel(f.numpy(), normalization) for f in features],
        penalties=penalties,
    )


def normalized(features: Tensor, normalization: Normalization = "symmetric") -> Filter:
    """The exact filter of the features, normalised."""
    return Normalized(ExactFilter(features), normalization, torch.ones_like(features[..., :1]))


def written_kernel(features: Array, normalization: str) -> Array:
    """exp(-|f_i - f_j|^2 / 2), normalised: (B, N, N)."""
    kernel = np.exp(-0.5 * ((features[:, :, None] - features[:, None]) ** 2).sum(-1))
    degree = kernel.sum(2)
    if normalization == "symmetric":
        return np.asarray(kernel / np.sqrt(degree[:, :, None] * degree[:, None]))
    if normalization == "after":
        return np.asarray(kernel / degree[:, :, None])
    if normalization == "before":
        return np.asarray(kernel / degree[:, None])
    assert normalization == "none"
    return np.asarray(kernel)


def neighbours(q: Array, dense: list[Array], penalties: Sequence[Array | Tensor]) -> Array:
    """sum_m sum_j sum_l' K_m[i, j] P_m[l, l'] q_j(l'): (B, N, L)."""
    pairs = zip(dense, map(np.asarray, penalties), strict=True)
    messages = (np.einsum("bij,kl,bjl->bik", k, p, q) for k, p in pairs)
    return sum(messages, start=np.zeros_like(q))


def written_mean_field(
    unary: Array,
    dense: list[Array],
    pairwise: Sequence[Sequence[Array | Tensor]],
    num_iterations: int,
    damping: float = 0.0,
) -> Array:
    """Zheng et al., algorithm 1, on rows: the logits (B, N, L); the last penalties are reused."""
    logits = unary
    for t in range(num_iterations):
        penalties = pairwise[min(t, len(pairwise) - 1)]
        update = unary - neighbours(softmax(logits), dense, penalties)
        logits = (1 - damping) * update + damping * logits
    return logits


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


class LearntKernel(Filter):
    """A dense K (B, N, N) that is itself differentiated, and therefore saves what it filters."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, v: Tensor) -> Tensor:
        return self.matrix @ v

    def transpose(self, v: Tensor) -> Tensor:
        return self.matrix.transpose(1, 2) @ v


def learnt_kernels(features: list[Tensor]) -> list[Filter]:
    """Kernels through which gradients reach the features."""
    return [LearntKernel(torch.exp(-0.5 * torch.cdist(f, f).square())) for f in features]
