"""The inference as a part of the layer: which ones it takes, and their steps where these learn."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from crfrnn.checks import is_number
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.implicit import ImplicitMeanField
from crfrnn.inference import Inference


def check_inference(inference: object, *, untied: bool) -> None:
    """Raise unless inference is a strategy that takes such penalties."""
    if not isinstance(inference, Inference):
        raise TypeError(
            "inference must be an instance such as MeanField() or FrankWolfe(step=0.5), got "
            f"{inference!r}."
        )
    if untied and isinstance(inference, ImplicitMeanField):
        raise ValueError(
            "untied parameters do not go with ImplicitMeanField: a fixed point belongs to one "
            "update. Use MeanField, or untied=False."
        )


def initial_steps(inference: Inference, num_iterations: int) -> nn.Parameter:
    """The logit of each iteration's step, (T,): a step is between 0 and 1."""
    if not isinstance(inference, FrankWolfe) or not is_number(inference.step):
        raise ValueError(
            "learn_step needs inference=FrankWolfe(step=NUMBER), the number it starts at, "
            f"got {inference!r}."
        )
    start = torch.full((max(1, num_iterations),), float(inference.step))
    return nn.Parameter(start.clamp(0.01, 0.99).logit())


def with_steps(inference: Inference, step_logit: Tensor | None) -> Inference:
    """The inference, with its steps where they learn."""
    if step_logit is None:
        return inference
    assert isinstance(inference, FrankWolfe)  # checked by `initial_steps`
    return replace(inference, step=step_logit.sigmoid())
