"""One phase of training, as typed data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from train.objective import LossConfig


@dataclass(frozen=True)
class FitConfig:
    """One phase of training.

    Attributes:
        steps: optimiser steps.
        batch_size: images in a forward pass of one process.
        accumulate: forward passes in a step.
        optimizer: AdamW, or SGD with momentum.
        momentum: of SGD.
        lr: of the backbone, at the first step.
        head_multiplier: of the head's learning rate.
        bias_multiplier: of the learning rate of biases, which do not decay.
        crf_lr: of the CRF's kernel weights, widths and scales; 0 holds them as they are.
        compatibility_lr: of the CRF's compatibility; 0 holds it.
        context_lr: of the matrix of its context kernel, where it has one; 0 holds it.
        weight_decay: of the network's weights; never of biases, norms or the CRF.
        decay_depthwise: depthwise weights decay like the others.
        frozen: parts of the network that keep their weights and their BN statistics, by the
            beginnings of their names: "backbone", "backbone.conv1".
        schedule: "poly" is lr (1 - step / steps) ** power, "step" divides by 10 every
            `step_size` steps.
        power: of the poly schedule.
        step_size: of the step schedule.
        warmup: steps over which every lr rises linearly: Adam's first steps are its wildest.
        crf_warmup: the same for the CRF's groups alone, where it is the longer of the two.
        loss: its terms.
        clip_norm: length that the network's gradient is cut to; 0 leaves it. Behind a CRF a
            few images have a gradient several times as long as the others.
        ema_decay: of the moving average of the weights that is evaluated and kept as the
            result; 0 keeps the last weights.
        precision: of the network's forward pass; weights, CRF and losses stay in float32.
        sync_batch_norm: statistics over the images of all processes (on GPUs only).
        eval_every: steps between evaluations on the tune split; 0 evaluates at the end alone.
        patience: stop after that many evaluations without a better mIoU on the tune split, and
            keep the best weights; 0 takes all steps.
    """

    steps: int = 100
    batch_size: int = 8
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    lr: float = 1e-4
    head_multiplier: float = 1.0
    bias_multiplier: float = 1.0
    crf_lr: float = 1e-2
    compatibility_lr: float = 1e-3
    context_lr: float = 0.1
    weight_decay: float = 1e-4
    decay_depthwise: bool = True
    frozen: tuple[str, ...] = ()
    schedule: Literal["poly", "step"] = "poly"
    power: float = 0.9
    step_size: int = 2000
    warmup: int = 0
    crf_warmup: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    sync_batch_norm: bool = True
    eval_every: int = 0
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "step_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in (
            "crf_lr",
            "compatibility_lr",
            "context_lr",
            "warmup",
            "crf_warmup",
            "weight_decay",
            "clip_norm",
            "eval_every",
            "patience",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in (
            "lr",
            "head_multiplier",
            "bias_multiplier",
            "power",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.patience and not 0 < self.eval_every <= self.steps:
            raise ValueError(
                "patience counts evaluations on the tune split: set eval_every to 1.."
                f"{self.steps} steps, got {self.eval_every}."
            )
