"""Trace a CRF: its parameters, their gradients, and its iterations on one image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from data import Sample
from models import Segmenter
from models.layers import shrink, shrink_image

PARTS = {
    "kernel_weights": "potentials.kernel_weights.",
    "compatibility": "potentials.compatibility.",
    "theta": "potentials.kernels.",
    "scales": "log_",
    "step": "step_logit",
}
"""Beginnings of the names of a CRF's parameters, by what they are."""


@torch.no_grad()
def crf_scalars(segmenter: Segmenter) -> dict[str, float]:
    """Collect a few numbers that show where the CRF is going; none without a CRF.

    Widths are in pixels of the full-resolution image and grey levels of 0..255. Of the kernel
    weights, mean, least and largest entry of the diagonal of W_m; of the compatibility, the mean
    entry off the diagonal (Potts: 1). Untied sets of parameters count together.
    """
    crf = segmenter.crf
    if crf is None:
        return {}
    potentials = crf.potentials
    values = {
        "crf/theta_alpha": potentials.theta_alpha.item() * segmenter.resolution,
        "crf/theta_beta": potentials.theta_beta.item(),
        "crf/theta_gamma": potentials.theta_gamma.item() * segmenter.resolution,
        "crf/unary_scale": crf.log_unary_scale.exp().item(),
        "crf/output_scale": crf.log_output_scale.exp().item(),
    }
    for name, matrix in potentials.kernel_weight_matrices().items():
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        values[f"crf/{name}_weight_mean"] = diagonal.mean().item()
        values[f"crf/{name}_weight_min"] = diagonal.min().item()
        values[f"crf/{name}_weight_max"] = diagonal.max().item()
    if crf.num_labels > 1:
        compatibility = potentials.compatibility()
        others = ~torch.eye(crf.num_labels, dtype=torch.bool, device=compatibility.device)
        values["crf/compatibility_off_diagonal"] = compatibility[..., others].mean().item()
    if crf.step_logit is not None:
        values["crf/step_mean"] = crf.step_logit.sigmoid().mean().item()
    return values


def crf_gradient_norms(segmenter: Segmenter) -> dict[str, float]:
    """Compute the Euclidean norm of the gradient of every part of the CRF that learns.

    For after `backward`. Parts without a gradient are left out.
    """
    if segmenter.crf is None:
        return {}
    norms: dict[str, float] = {}
    for part, beginning in PARTS.items():
        gradients = [
            parameter.grad.flatten()
            for name, parameter in segmenter.crf.named_parameters()
            if name.startswith(beginning) and parameter.grad is not None
        ]
        if gradients:
            norms[f"crf/gradient_norm/{part}"] = torch.cat(gradients).norm().item()
    return norms


@torch.no_grad()
def iteration_trace(segmenter: Segmenter, sample: Sample) -> list[dict[str, float]]:
    """Compute energies, divergence and change of q in every iteration on one image, in eval mode.

    See `crfrnn.diagnostics.Record`. Energies are per pixel of the grid that the CRF runs on.

    Returns:
        One row for each of q_0, ..., q_T: "iteration", "relaxed_energy", "discrete_energy",
        "kl" (the free energy: KL(q || p) up to log Z), and "largest_change" of q, 0 for q_0.
        No rows without a CRF.
    """
    if segmenter.crf is None:
        return []
    with evaluating(segmenter):
        image = sample.image[None].to(segmenter.crf.log_unary_scale.device).float()
        unary = shrink(segmenter.unary(image), segmenter.resolution)
        small = shrink_image(image, segmenter.resolution)
        kernels = segmenter.crf.potentials.build_kernels(small)
        records = segmenter.crf.trace(unary, kernels)
    pixels = unary[0, 0].numel()
    return [
        {
            "iteration": record.iteration,
            "relaxed_energy": record.relaxed_energy.item() / pixels,
            "discrete_energy": record.discrete_energy.item() / pixels,
            "kl": record.free_energy.item() / pixels,
            "largest_change": record.largest_change.item() if record.iteration else 0.0,
        }
        for record in records
    ]


@contextmanager
def evaluating(segmenter: Segmenter) -> Iterator[None]:
    """Enter eval mode for the time of the context; then restore every module's own mode.

    In training some parts may be in eval mode: a frozen network, frozen BN.
    """
    modes = {module: module.training for module in segmenter.modules()}
    segmenter.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
