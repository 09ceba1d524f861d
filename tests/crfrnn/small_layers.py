"""Small layers and inputs that fit them: a few pixels, so that every sum can be written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crfrnn import CrfRnn


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
    for parameter in crf.potentials.parameters():
        noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = parameter.data * 0.2 + noise
    return crf
