"""Parameter groups and the schedules of their learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from models import Segmenter
from train.recipe import FitConfig
from train.stage import Trainable

Kind = Literal["weights", "depthwise", "norms", "biases"]


def build_optimizer(
    segmenter: Segmenter, learns: Trainable, config: FitConfig
) -> torch.optim.Optimizer:
    """Group the parameters of backbone and head by their kind, and those of the CRF.

        group                  learning rate                    decay
        backbone_weights       lr                               weight_decay
        backbone_depthwise     lr                               0
        backbone_norms         lr                               0
        backbone_biases        lr x bias_multiplier             0
        head_...               the same x head_multiplier       the same
        crf_kernel_weights     crf_lr                           0       widths and scales, too
        crf_compatibility      compatibility_lr                 0
        crf_further_weights    context_lr                       0

    Depthwise weights are a group of their own only where they do not decay (DeepLab v3+,
    `decay_depthwise=False`); elsewhere they are among the weights. The factors on the head and on
    biases are those of the prototxt of DeepLab v1 and v2: 10 and 2, so 20 for the head's bias.

    Args:
        segmenter: what has requires_grad off is left out.
        learns: the parts that learn.
        config: of this stage.

    Raises:
        ValueError: nothing is left to learn.
    """
    groups: list[dict[str, Any]] = []
    if learns.network:
        network = segmenter.network
        inside = {id(p) for p in network.backbone.parameters()}
        learnt = [(kind, p) for kind, p in parameters_by_kind(network) if p.requires_grad]
        backbone = [(kind, p) for kind, p in learnt if id(p) in inside]
        head = [(kind, p) for kind, p in learnt if id(p) not in inside]
        groups += groups_by_kind("backbone", backbone, config.lr, config)
        groups += groups_by_kind("head", head, config.lr * config.head_multiplier, config)
    if learns.crf and segmenter.crf is not None:
        groups += segmenter.crf.param_groups(
            1.0,
            kernel_multiplier=config.crf_lr,
            compatibility_multiplier=config.compatibility_lr,
            further_multiplier=config.context_lr,
        )
    if not any(group["lr"] > 0 for group in groups):
        raise ValueError(
            "this training has nothing to learn: it needs parameters that are not frozen "
            f"(frozen={config.frozen}) and a learning rate above 0 (crf_lr={config.crf_lr:g}, "
            f"compatibility_lr={config.compatibility_lr:g}, context_lr={config.context_lr:g})."
        )
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr)


def parameters_by_kind(module: nn.Module) -> Iterator[tuple[Kind, nn.Parameter]]:
    """Yield every parameter with its kind, in the order of `module.parameters()`."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            yield kind_of(part, name, parameter), parameter


def kind_of(part: nn.Module, name: str, parameter: nn.Parameter) -> Kind:
    """Return the kind of a module's own parameter.

    A vector is the bias of a layer with weights, or else scales or shifts what is normalised.
    """
    if parameter.ndim <= 1:
        return "biases" if name == "bias" and isinstance(part, nn.Linear | _ConvNd) else "norms"
    if isinstance(part, _ConvNd) and 1 < part.groups == part.in_channels:
        return "depthwise"
    return "weights"


def groups_by_kind(
    part: str, learnt: list[tuple[Kind, nn.Parameter]], lr: float, config: FitConfig
) -> list[dict[str, Any]]:
    """Build the groups of the backbone or of the head, without those that would be empty.

    Args:
        part: its name.
        learnt: its parameters.
        lr: of its weights.
        config: of this stage.
    """
    decaying: tuple[Kind, ...] = (
        ("weights", "depthwise") if config.decay_depthwise else ("weights",)
    )
    groups: tuple[tuple[str, tuple[Kind, ...], float, float], ...] = (
        ("weights", decaying, lr, config.weight_decay),
        ("depthwise", () if config.decay_depthwise else ("depthwise",), lr, 0.0),
        ("norms", ("norms",), lr, 0.0),
        ("biases", ("biases",), lr * config.bias_multiplier, 0.0),
    )
    return [
        {"name": f"{part}_{name}", "params": chosen, "lr": rate, "weight_decay": decay}
        for name, kinds, rate, decay in groups
        if (chosen := [p for kind, p in learnt if kind in kinds])
    ]


def build_schedule(
    optimizer: torch.optim.Optimizer, config: FitConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build a linear rise, times what the schedule leaves of each group's learning rate.

        poly    (1 - step / steps) ** power          DeepLab v2, section 4.1
        step    1 / 10 ** floor(step / step_size)    DeepLab v1, section 4.1

    The groups of the CRF rise over the longer of `warmup` and `crf_warmup` steps.

    Args:
        optimizer: of `build_optimizer`.
        config: of this stage.
    """

    def factor(warmup: int) -> Callable[[int], float]:
        return lambda step: min(1.0, (step + 1) / (warmup + 1)) * decayed(step, config)

    longer = max(config.warmup, config.crf_warmup)
    factors = [
        factor(longer if group["name"].startswith("crf_") else config.warmup)
        for group in optimizer.param_groups
    ]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def decayed(step: int, config: FitConfig) -> float:
    """Return the factor of the schedule before this step, the first being 0."""
    if config.schedule == "step":
        return float(0.1 ** (step // config.step_size))
    return float(max(0.0, 1 - step / config.steps) ** config.power)
