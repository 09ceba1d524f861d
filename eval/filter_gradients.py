"""Which gradient a lattice should pass to widths and guide, measured against the exact kernel.

The derivative of the lattice itself is exact for the approximation, but piecewise constant in
the features; that of the Gaussian, filtered by the lattice, is an approximation of the right
thing (`crfrnn.filtering.ops.gaussian_features_grad`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.filtering import ExactFilter, FeaturesGradient, Filter, LatticeFilter, Normalized
from crfrnn.kernels import positions

FORMS: tuple[FeaturesGradient, ...] = ("gaussian", "lattice")
Grads = tuple[Tensor, Tensor]  # of the image and of (theta_alpha, theta_beta)


def gradient_errors(
    photo: Tensor, theta_alpha: float, theta_beta: float, v: Tensor
) -> dict[str, dict[str, float]]:
    """Each form's gradient beside the exact kernel's, for a normalised filter behind a random loss.

    Args:
        photo: (H, W, 3), 0..255.
        theta_alpha: pixels.
        theta_beta: grey levels.
        v: (1, HW, C), what is filtered.

    Returns:
        By form: "cosine" of the image's gradient with the exact one, and the "theta" error
        |g - g_exact| / |g_exact| of (theta_alpha, theta_beta).
    """
    weights = torch.randn(v.shape, generator=torch.Generator().manual_seed(0))

    def gradients(build: Callable[[Tensor], Filter]) -> Grads:
        image = photo.clone().requires_grad_()
        log_theta = torch.tensor([theta_alpha, theta_beta]).log().requires_grad_()
        alpha, beta = log_theta.exp()
        place = positions(photo.shape[:2], photo) / alpha
        features = torch.cat([place, image.flatten(0, 1) / beta], dim=1)[None]
        kernel = Normalized(build(features), "symmetric", torch.ones_like(v[..., :1]))
        return torch.autograd.grad((kernel(v) * weights).sum(), (image, log_theta))  # type: ignore[return-value]

    exact_image, exact_theta = gradients(ExactFilter)
    found: dict[str, dict[str, float]] = {}
    for form in FORMS:
        image, theta = gradients(lambda features, form=form: LatticeFilter(features, gradient=form))  # type: ignore[misc]
        found[form] = {
            "cosine": F.cosine_similarity(image.flatten(), exact_image.flatten(), dim=0).item(),
            "theta": ((theta - exact_theta).norm() / exact_theta.norm()).item(),
        }
    return found


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """One row for each kernel, means over photographs and inputs."""
    lines = ["| kernel | " + " | ".join(f"{form}: cosine | theta error" for form in FORMS) + " |"]
    lines.append("| --- |" + " ---: |" * (2 * len(FORMS)))
    for row in rows:
        cells = [f"bilateral {row['theta_position']:g}/{row['theta_colour']:g}"]
        for form in FORMS:
            cells += [f"{row[form]['cosine']:.2f}", f"{row[form]['theta']:.2g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
