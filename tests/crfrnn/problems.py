"""Small problems and layers, the same in NumPy, and what the reference arrays are of."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filters import ExactFilter, Filter, Normalization, Normalized
from crfrnn.inference import Inference

Array = npt.NDArray[Any]

# Sums of non-negative terms: each of at most 100 roundings (the pixels around a vertex, 3 taps in
# each of d + 1 blurs, d + 1 vertices) is off by at most 2^-24 of the sum so far. Both paths add in
# the same order, and differ by the roundings that a fused multiply-add leaves out.
ROUNDINGS = 100 * 2**-24


def image_cases(reference: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Return what each image of the reference arrays was computed with: numbers, lists, words."""
    lines = dict(line.split(": ", 1) for line in reference["meta"].tolist())
    return {
        name: {
            key: ast.literal_eval(v) if v[0] in "[0123456789" else v
            for key, v in re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", line)
        }
        for name, line in lines.items()
        if f"{name}/image" in reference and name != "crfasrnn"
    }


@dataclass(frozen=True)
class Problem:
    """Two kernels on B images of N pixels: `kernels` as filters, `dense` as (B, N, N)."""

    unary: Tensor
    features: list[Tensor]
    kernels: list[Filter]
    dense: list[Array]
    penalties: list[Tensor]

    @property
    def shared(self) -> tuple[Tensor, list[Filter], list[Tensor]]:
        """What an energy takes: unary, kernels, penalties."""
        return self.unary, self.kernels, self.penalties

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
        kernels = [normalized(f[b : b + 1]) for f in self.features]
        return replace(self, unary=self.unary[b : b + 1], kernels=kernels)


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
    return normalize_written(kernel, kernel.sum(2), normalization)


def normalize_written(kernel: Array, degree: Array, normalization: str) -> Array:
    """A matrix (B, N, N) divided by its degree (B, N)."""
    received, sent = degree[:, :, None], degree[:, None]
    divisor = {"none": 1, "after": received, "before": sent, "symmetric": np.sqrt(received * sent)}
    return np.asarray(kernel / divisor[normalization])


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


# rows and layers


def random_features(batch: int, num_pixels: int, dim: int) -> Tensor:
    """(B, N, d), some 2 widths apart."""
    generator = torch.Generator().manual_seed(dim)
    return torch.randn(batch, num_pixels, dim, generator=generator) * 2


def random_rows(batch: int, num_pixels: int, num_labels: int) -> Tensor:
    """(B, N, L) in [0, 1)."""
    generator = torch.Generator().manual_seed(num_labels)
    return torch.rand(batch, num_pixels, num_labels, generator=generator)


def random_inputs(
    batch: int = 2, num_labels: int = 3, height: int = 7, width: int = 6
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(batch, num_labels, height, width, generator=generator)
    image = torch.rand(batch, 3, height, width, generator=generator) * 255
    return unary.double(), image.double()


def small_crf(num_labels: int = 3, **options: Any) -> CrfRnn:
    """Widths that fit a 7 x 6 image, and matrices that are far from their start."""
    options = {"theta_alpha": 3.0, "theta_beta": 60.0, "theta_gamma": 1.5} | options
    crf = CrfRnn(num_labels, **options).double()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in crf.potentials.named_parameters():
        if "log_theta" not in name:
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = parameter.data * 0.2 + noise
    return crf


def written_layer(
    crf: CrfRnn,
    unary: Tensor,
    image: Tensor,
    guides: dict[str, Tensor] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The layer with its kernels, normalisation, mask and updates as sums over pixel pairs."""
    parts, shape = crf.potentials, unary.shape[2:]
    rows = unary.flatten(2).transpose(1, 2).numpy() * crf.log_unary_scale.exp().item()
    valid = np.ones(rows.shape[:2]) if mask is None else mask.flatten(1).numpy()
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    place = np.broadcast_to(place, (len(unary), *place.shape))

    def kernel(**maps: Any) -> Array:
        """exp(-1/2 sum_c ((x_ic - x_jc) / theta_c)^2) of (B, C, *shape) each: (B, N, N)."""
        exponent = np.zeros((len(unary), rows.shape[1], rows.shape[1]))
        for of, x in maps.items():
            theta = parts.kernel(name).log_theta(of).exp().detach().numpy()  # type: ignore[arg-type]
            theta = np.broadcast_to(theta, x.shape[1])
            flat = np.asarray(x).reshape(len(unary), x.shape[1], -1) / theta[:, None]
            exponent += ((flat[..., :, None] - flat[..., None, :]) ** 2).sum(1)
        k = np.exp(-0.5 * exponent) * valid[:, :, None] * valid[:, None]
        return normalize_written(k, np.where(valid, k.sum(2), 1.0), parts.normalization)

    dense = []
    for name in parts.kernels:
        guide = {} if name == "spatial" else {"guide": (guides or {}).get(name, image)}
        over_position = name in ("spatial", "bilateral")
        dense.append(kernel(**({"position": place} if over_position else {}), **guide))
    sets = (-1, crf.num_labels, crf.num_labels)  # one matrix, or one for each iteration
    weights = [w.numpy().reshape(sets) for w in parts.kernel_weight_matrices().values()]
    mu = parts.compatibility().detach().numpy().reshape(sets)
    pairwise = [[m @ w for w in ws] for m, *ws in zip(mu, *weights, strict=True)]
    count = crf.num_iterations if crf.training else crf.num_iterations_eval
    logits = torch.from_numpy(written_mean_field(rows, dense, pairwise, count))
    return logits.transpose(1, 2).reshape(unary.shape) * crf.log_output_scale.exp().item()


def assert_gradients(
    crf: CrfRnn,
    unary: Tensor,
    image: Tensor,
    guides: dict[str, Tensor] | None = None,
    mask: Tensor | None = None,
) -> None:
    """gradcheck in float64, for every parameter that learns and every input that requires it.

    The fast mode compares one random projection of the Jacobian for each of them. Differences
    over 1e-6 of outputs of order 1 to 100 are good to 1e-8; the default tolerances, 1e-5, would
    hide the gradient of an image in 0..255, which is small because its unit is.
    """
    inputs = [x for x in (unary, image, *(guides or {}).values()) if x.requires_grad]
    learnt = [p for p in crf.parameters() if p.requires_grad]

    def layer(*_: Tensor) -> Tensor:
        out: Tensor = crf(unary, image, guides, mask)
        return out

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.autograd.gradcheck(
            layer,
            (*inputs, *learnt),
            atol=1e-7,
            rtol=1e-4,
            check_undefined_grad=False,  # one output, which always has a gradient
            fast_mode=True,
        )
