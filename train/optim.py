"""Parameter groups and the poly schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models import Segmenter
from train.arms import Arm
from train.fit_config import FitConfig


def build_optimizer(segmenter: Segmenter, arm: Arm, config: FitConfig) -> torch.optim.Optimizer:
    """Groups for the backbone, the head (each with and without decay) and the CRF."""
    groups: list[dict[str, Any]] = []
    if arm.network:
        network = segmenter.network
        inside = {id(p) for p in network.backbone.parameters()}
        for name, params, lr in (
            ("backbone", [p for p in network.parameters() if id(p) in inside], config.lr),
            (
                "head",
                [p for p in network.parameters() if id(p) not in inside],
                config.lr * config.head_multiplier,
            ),
        ):
            groups += decay_groups(name, params, lr, config.weight_decay)
    if arm.crf and segmenter.crf is not None:
        groups += segmenter.crf.param_groups(
            1.0,
            kernel_multiplier=config.crf_lr,
            compatibility_multiplier=config.compatibility_lr,
        )
    if not groups:
        raise ValueError(f"arm {arm.name!r} has nothing to learn.")
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def decay_groups(
    name: str, params: list[nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Weights decay; biases and the affine parameters of norms do not."""
    learnt = [p for p in params if p.requires_grad]
    return [
        {"name": f"{name}_{kind}", "params": chosen, "lr": lr, "weight_decay": decay}
        for kind, decay, chosen in (
            ("weights", weight_decay, [p for p in learnt if p.ndim > 1]),
            ("biases", 0.0, [p for p in learnt if p.ndim <= 1]),
        )
        if chosen
    ]


def poly_schedule(
    optimizer: torch.optim.Optimizer, config: FitConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """A linear rise, times lr_0 (1 - step / steps) ** power (DeepLab v2, section 4.1)."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (config.warmup + 1))
        remaining: float = max(0.0, 1 - step / config.steps) ** config.power
        return rise * remaining

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
