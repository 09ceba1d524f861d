"""Recipes: everything that a comparison depends on, as typed data.

Each opens with its command, its cost and what to expect. Any value can be changed from
the command line by its dotted name: `--fit.steps 200 --crf.resolution 4`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from data import CollageConfig, DataConfig, TransformConfig, VocConfig
from data.voc import ANIMALS
from eval.posthoc import SearchConfig
from models import CrfForm, DeepLabV3Config, NetworkConfig, TimmConfig, published_network


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
class FitConfig:
    """One phase of training.

    Attributes:
        steps: optimiser steps.
        batch_size: images in a forward pass.
        accumulate: forward passes in a step.
        optimizer: AdamW, or SGD with momentum 0.9.
        lr: of the backbone, at the first step.
        head_multiplier: of the head's learning rate.
        crf_lr: of the CRF's kernel weights and scales.
        compatibility_lr: of the CRF's compatibility.
        weight_decay: of the network's weights; never of biases, norms or the CRF.
        warmup: steps over which every lr rises linearly: Adam's first steps are its wildest.
        power: of the poly schedule, lr * (1 - step / steps) ** power.
        unary_loss: weight of the cross-entropy on the logits before the CRF, beside 1 on
            the logits after it; the loss is their weighted mean. It keeps the network from
            leaning on the CRF, and from its gradient: at the start of a joint run that is
            three to four times as long as the unary's own and mostly noise (cosine of the
            two on collage: 0.3).
        clip_norm: length that the network's gradient is cut to; 0 leaves it. Behind a CRF a
            few images have a gradient several times as long as the others.
    """

    steps: int = 100
    batch_size: int = 8
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-4
    head_multiplier: float = 1.0
    crf_lr: float = 1e-2
    compatibility_lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 0
    power: float = 0.9
    unary_loss: float = 4.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("warmup", "unary_loss", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in ("lr", "head_multiplier", "crf_lr", "compatibility_lr", "power"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Recipe:
    """A comparison of the five arms on one data set.

    Attributes:
        data: the data set.
        model: the network.
        augment: what a training image goes through.
        start: training of the starting checkpoint; none where it is read from
            `model.weights`.
        fit: training of the arms unary and joint: S = fit.steps.
        crf_fit: training of the arm crf-only.
        crf: the form of the CRF of every arm; the search finds its widths and weights.
        search: of the post-hoc CRF.
        seeds: one run of every arm but start for each.
        workers: processes that load data; 0 loads in the main process.
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
    workers: int = 0
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {self.seeds}.")

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


def collage() -> Recipe:
    """The embedded data set, from random initialisation: nothing to download.

    Command: python -m train compare collage   (or: make demo)
    Cost: under 10 minutes on 2 CPU cores.
    Expect: the table in README.md. From one seed to the next mIoU moves by several points.
    """
    # From a start that has been trained long enough the CRF's loss may weigh as much as the
    # unary's; the cut keeps the few images whose gradient it multiplies from deciding a step.
    fit = FitConfig(steps=90, lr=1e-4, warmup=8, unary_loss=1.0, clip_norm=1.0)
    return Recipe(
        data=CollageConfig(num_tune=60, num_report=160),
        model=ModelConfig(
            # From random initialisation in few steps the paper's BN momentum would leave the
            # statistics at their start.
            network=DeepLabV3Config(
                backbone=TimmConfig("resnet10t", normalization="half"),
                atrous_rates=(2,),
                head_channels=96,
                dropout=0.0,
                batch_norm_momentum=0.1,
            ),
            freeze_batch_norm=False,
        ),
        augment=TransformConfig(crop_size=None, scale=None, flip=True),
        start=FitConfig(steps=450, lr=1e-3),
        fit=fit,
        crf_fit=replace(fit, steps=30),
        crf=CrfForm(kernel_weights="class", normalization="symmetric", learn_output_scale=True),
        search=SearchConfig(
            num_images=20,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(10.0, 25.0),
            theta_beta=(8.0, 20.0),
            bilateral_weight=(3.0, 6.0),
        ),
    )


def voc12_animals() -> Recipe:
    """The animal subset of VOC 2012, from the published DeepLabv3 on MobileNetV2.

    Command: python -m train compare voc12-animals --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
    Cost: under 90 minutes on 2 CPU cores.
    Expect: see the table in README.md.
    """
    # Whole images: a crop would change what image pooling sees. One by one, because they differ
    # in size; BN is frozen.
    fit = FitConfig(steps=50, batch_size=1, accumulate=4, lr=1e-5, warmup=5)
    return Recipe(
        data=VocConfig(scored=ANIMALS),
        model=ModelConfig(min_size=513),
        augment=TransformConfig(),
        start=None,
        fit=fit,
        crf_fit=replace(fit, steps=30),
        crf=CrfForm(
            kernel_weights="class",
            normalization="after",
            learn_output_scale=True,
            resolution=2,
        ),
        search=SearchConfig(
            num_images=50,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(40.0, 80.0),
            theta_beta=(3.0, 5.0),
            bilateral_weight=(4.0, 6.0),
        ),
    )


RECIPES = {"collage": collage, "voc12-animals": voc12_animals}
