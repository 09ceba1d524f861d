"""Everything that a comparison depends on: data, network, CRF, trainings, search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data import DataConfig, TransformConfig
from eval.tuning.grid import SearchConfig
from models import CrfForm, NetworkConfig, published_network
from runtime.distributed import DeviceName
from train.losses import LossConfig

# One phase of training, as typed data.


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


# What a comparison depends on, as typed data.


@dataclass(frozen=True)
class ModelConfig:
    """The network that every arm starts from.

    Attributes:
        weights: a safetensors file with the whole network, loaded strictly; none trains
            the network for `Recipe.start.steps` steps first.
        backbone_weights: a safetensors file with the ImageNet classifier that the backbone was
            cut from, for that first training; none starts at random, or from what
            `network.backbone.pretrained` fetches.
        network: its numbers.
        freeze_batch_norm: keep BN as it is after the start.
        min_size: see `models.SegmenterConfig`.
    """

    weights: Path | None = None
    backbone_weights: Path | None = None
    network: NetworkConfig = field(default_factory=published_network)
    freeze_batch_norm: bool = True
    min_size: int = 0


@dataclass(frozen=True)
class FinishConfig:
    """A second stage of the training of start, from the weights of the first.

    Attributes:
        fit: its training.
        output_stride: of the network from here on; as in the first stage if not given.
        freeze_batch_norm: keep BN as the first stage left it.
    """

    fit: FitConfig
    output_stride: Literal[8, 16] | None = None
    freeze_batch_norm: bool = False


@dataclass(frozen=True)
class Recipe:
    """A comparison of the five arms on one data set.

    Attributes:
        data: the data set.
        model: the network.
        augment: what a training image goes through.
        start: training of the starting checkpoint; none where it is read from
            `model.weights`.
        finish: a second stage of that training.
        fit: training of the arms unary and joint: S = fit.steps.
        crf_first: training of the CRF alone before that of the arm joint, the network frozen.
        crf_fit: training of the arm crf-only.
        crf: the form of the CRF of every arm; the search finds its widths and weights.
        crf_last: training of the CRF alone after that of the arm joint, the network frozen.
        crf_augment: what a training image goes through where the CRF learns behind a frozen
            network, in crf_first, crf_last and crf_fit; as `augment` if not given. Whole images
            keep the distances and neighbours that the CRF will meet.
        search: of the post-hoc CRF.
        search_again: end the arm joint with the same search behind its trained network: what was
            found takes the place of what its CRF has learnt, as the arm post-hoc has it.
        seeds: one run of every arm but start for each.
        score: splits that every arm is scored on. ("tune",) while a method is looked for: what is
            chosen on the report split is not measured there.
        max_corrupt: images that may turn out unreadable in the training of one process, each
            named and replaced by another; one more stops the run.
        workers: processes that load data; 0 loads in the main process.
        device: "auto" is the GPU where there is one.
        compile: run the network through torch.compile.
        log_every, save_every: steps between two lines of numbers, and two checkpoints.
        wandb: "auto" logs online where a key is set and offline elsewhere.
    """

    data: DataConfig
    model: ModelConfig
    augment: TransformConfig
    start: FitConfig | None
    fit: FitConfig
    crf_fit: FitConfig
    crf: CrfForm
    search: SearchConfig
    seeds: tuple[int, ...] = (0, 1)
    score: tuple[Literal["tune", "report"], ...] = ("tune", "report")
    finish: FinishConfig | None = None
    crf_first: FitConfig | None = None
    crf_last: FitConfig | None = None
    crf_augment: TransformConfig | None = None
    search_again: bool = False
    max_corrupt: int = 10
    workers: int = 0
    device: DeviceName = "auto"
    compile: bool = False
    log_every: int = 10
    save_every: int = 50
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {self.seeds}.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise ValueError(f"seeds must lie in 0 to 2^32 - 1, got {self.seeds}.")
        if not self.score or len(set(self.score)) != len(self.score):
            raise ValueError(f"score must name tune, report, or both once, got {self.score}.")
        for name, least in (
            ("workers", 0),
            ("max_corrupt", 0),
            ("log_every", 1),
            ("save_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    def check_start(self) -> None:
        """Raise, before anything is written, if there is nothing to start from."""
        weights = self.model.weights
        if weights is None and self.start is None:
            raise ValueError(
                "this recipe starts from trained weights: give them with --model.weights FILE "
                "(.safetensors)."
            )
        backbone = self.model.backbone_weights
        if weights is not None and backbone is not None:
            raise ValueError(
                "--model.weights holds the whole network: leave --model.backbone-weights out."
            )
        for option, path in (("weights", weights), ("backbone-weights", backbone)):
            if path is not None and not path.is_file():
                raise FileNotFoundError(
                    f"no weights at {path}: expected a .safetensors file (--model.{option} FILE)."
                )
