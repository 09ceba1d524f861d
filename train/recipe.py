"""Describe everything that a comparison depends on: data, network, CRF, trainings, search."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from data import DataConfig, TransformConfig
from eval.grid import SearchConfig
from models import CrfForm, NetworkConfig, published_network
from models.crf import post_hoc_config
from runtime.run_folder import Execution, as_json, what_matters
from train.losses import LossConfig

# What a field acts on, declared with it.
#
# A recipe's fields act in the order of the stages. A field without a role acts on the starting
# checkpoint, and so on everything: what two recipes share can never be too much where a new field
# is declared without one.

Stage = Literal["start", "network", "search", "crf"]
NetworkArm = Literal["start", "unary"]  # an arm that trains a network a search may stand on

NETWORK: dict[str, Stage] = {"stage": "network"}  # the training of unary, and what follows
SEARCH: dict[str, Stage] = {"stage": "search"}  # post-hoc searches, and what follows
CRF: dict[str, Stage] = {"stage": "crf"}  # the trainings of a CRF

# One phase of training, as typed data.


@dataclass(frozen=True)
class FitConfig:
    """The numbers of one training.

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
    crf_lr: float = field(default=1e-2, metadata=CRF)
    compatibility_lr: float = field(default=1e-3, metadata=CRF)
    context_lr: float = field(default=0.1, metadata=CRF)
    weight_decay: float = 1e-4
    decay_depthwise: bool = True
    frozen: tuple[str, ...] = ()
    schedule: Literal["poly", "step"] = "poly"
    power: float = 0.9
    step_size: int = 2000
    warmup: int = 0
    crf_warmup: int = field(default=0, metadata=CRF)
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
        min_size, network_scale: see `models.SegmenterConfig`.
    """

    weights: Path | None = None
    backbone_weights: Path | None = None
    network: NetworkConfig = field(default_factory=published_network)
    freeze_batch_norm: bool = True
    min_size: int = 0
    network_scale: Literal[1, 2, 4] = 1


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


@dataclass(frozen=True, kw_only=True)
class Recipe(Execution):
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
        search: of the post-hoc CRF. Its `bias`, off by default, is one more number of every arm
            with a CRF, each found behind its own final network: it needs `search_again`.
        start_per_seed: train a starting checkpoint for every seed, not one for all: the spread over
            the seeds then holds what the start does.
        search_again: end the arm joint with the same search behind its trained network: what was
            found takes the place of what its CRF has learnt, as the arm post-hoc has it. Where
            the search has a bias, the learnt CRF takes part with its own best bias, and the better
            of the two on the tune split is kept.
        score: splits that every arm is scored on. ("tune",) while a method is looked for: what is
            chosen on the report split is not measured there.
    """

    data: DataConfig
    model: ModelConfig
    augment: TransformConfig
    start: FitConfig | None
    fit: FitConfig = field(metadata=NETWORK)
    crf_fit: FitConfig = field(metadata=CRF)
    crf: CrfForm = field(metadata=SEARCH)
    search: SearchConfig = field(metadata=SEARCH)
    score: tuple[Literal["tune", "report"], ...] = ("tune", "report")
    finish: FinishConfig | None = None
    crf_first: FitConfig | None = field(default=None, metadata=CRF)
    crf_last: FitConfig | None = field(default=None, metadata=CRF)
    crf_augment: TransformConfig | None = field(default=None, metadata=CRF)
    search_again: bool = field(default=False, metadata=CRF)
    start_per_seed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.score or len(set(self.score)) != len(self.score):
            raise ValueError(f"score must name tune, report, or both once, got {self.score}.")
        if self.search.bias and not self.search_again:
            raise ValueError(
                "search.bias gives post-hoc and crf-only a bias of the labels: with --search-again "
                "joint gets its own; set both or neither."
            )

    def start_seed(self, seed: int) -> int:
        """Return the seed of the starting checkpoint that the arms of a seed go on from."""
        return seed if self.start_per_seed else self.seeds[0]

    @property
    def start_seeds(self) -> tuple[int, ...]:
        """Seeds of the starting checkpoints."""
        return self.seeds if self.start_per_seed else self.seeds[:1]

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


# What two recipes have in common.


def network_inputs(recipe: Recipe, arm: NetworkArm) -> dict[str, Any]:
    """Collect what the trained network of an arm depends on, by field of the recipe."""
    values = {"start_seed": _shared_start(recipe), **_of_stage(recipe, "start")}
    if arm == "unary":
        values |= _of_stage(recipe, "network")
        # There is no CRF to learn.
        unused: dict[str, Any] = {
            f.name: f.default for f in fields(FitConfig) if f.metadata.get("stage") == "crf"
        }
        values["fit"] = replace(recipe.fit, **unused)
    return values


def search_inputs(recipe: Recipe, arm: NetworkArm) -> dict[str, Any]:
    """Collect what the post-hoc search on the network of an arm depends on."""
    values = {**network_inputs(recipe, arm), **_of_stage(recipe, "search")}
    return {**values, "crf": post_hoc_config(recipe.crf)}


def _shared_start(recipe: Recipe) -> int | None:
    """Return the seed of the one starting checkpoint; None where every seed has its own."""
    return None if recipe.start_per_seed else recipe.seeds[0]


def _of_stage(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    unread = {f.name for f in fields(Execution)}
    names = [f.name for f in fields(recipe) if f.metadata.get("stage", "start") == stage]
    return {name: getattr(recipe, name) for name in names if name not in unread}


def digest_inputs(recipe: Recipe) -> dict[str, Any]:
    """Collect what the digest of a recipe is taken of, as JSON values."""
    return {
        **what_matters(as_json(asdict(recipe))),
        # asdict forgets which data set a config is of.
        "data_kind": type(recipe.data).__name__,
        "network_kind": type(recipe.model.network).__name__,
        "start_seed": _shared_start(recipe),
    }
