"""What a comparison depends on, as typed data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data import DataConfig, TransformConfig
from eval.device import DeviceName
from eval.tuning.grid import SearchConfig
from models import CrfForm, NetworkConfig, published_network
from train.fit_config import FitConfig


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
