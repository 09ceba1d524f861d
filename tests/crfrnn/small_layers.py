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
    for name, parameter in crf.potentials.named_parameters():
        if "log_theta" not in name:
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = parameter.data * 0.2 + noise
    return crf


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
