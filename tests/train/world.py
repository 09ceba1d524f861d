"""Training a tiny segmenter in a temporary folder, and looking at what came of it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import data
from data import Augment, Collage, CollageConfig, CorruptSample, Sample, TrainStream
from eval.grid import SearchConfig
from models import CrfConfig, DeepLabV3Config, Segmenter, SegmenterConfig, TimmConfig
from runtime.run_folder import ArmName, Execution
from train.loop import fit
from train.recipe import FitConfig, ModelConfig, Recipe
from train.recipes import RECIPES
from train.stage import BOTH, CRF, NETWORK, Stage
from train.tracking import RunTracker

LEARNS = {"start": NETWORK, "unary": NETWORK, "crf-only": CRF, "joint": BOTH}
CPU = torch.device("cpu")


def tiny_recipe() -> Recipe:
    """A recipe so small that a whole comparison takes seconds."""
    fit = FitConfig(steps=4, batch_size=2, lr=3e-2)  # as much as makes the arms differ
    network = DeepLabV3Config(
        backbone=TimmConfig("test_efficientnet", normalization="half"),
        atrous_rates=(),
        head_channels=8,
        dropout=0.1,
        batch_norm_momentum=0.1,  # four steps must move the statistics
    )
    recipe = RECIPES["collage"]()
    return replace(
        recipe,
        data=CollageConfig(size=33, num_train=8, num_tune=2, num_report=3),
        model=ModelConfig(network=network, freeze_batch_norm=False),
        start=fit,
        fit=fit,
        crf_fit=replace(fit, steps=2),
        crf=replace(recipe.crf, num_iterations=2, num_iterations_eval=2),
        search=SearchConfig(
            num_images=2, theta_alpha=(5.0,), theta_beta=(10.0,), bilateral_weight=(1.0, 3.0)
        ),
        log_every=1,
        wandb="disabled",
    )


class World:
    """Segmenters of a recipe, and their training."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.folder = folder
        self.dataset: data.SegmentationDataset = data.build(recipe.data, "train")

    def segmenter(self, *, crf: bool = True, **changes: Any) -> Segmenter:
        """The same weights every time; `changes` are those of the CRF's config."""
        config = CrfConfig(**{**asdict(self.recipe.crf), **changes}) if crf else None
        torch.manual_seed(0)
        classes = len(self.dataset.classes)
        return Segmenter(SegmenterConfig(classes, self.recipe.model.network, config))

    def stream(
        self, dataset: data.SegmentationDataset | None = None, batch_size: int = 2
    ) -> TrainStream:
        """The batches of a training."""
        augment = Augment(self.recipe.augment)
        return TrainStream(dataset or self.dataset, augment, batch_size, seed=0)

    def stage(
        self,
        arm: ArmName,
        config: FitConfig | None = None,
        folder: str = "run",
        device: torch.device = CPU,
        **how: Any,
    ) -> Stage:
        """One training of an arm, with the options of `Execution` in `how`."""
        about = data.config_to_dict(self.recipe.data)
        config = config or self.recipe.fit
        directory, execution = self.folder / folder, Execution(**how)
        return Stage(arm, 0, config, LEARNS[arm], directory, about, device, execution)

    def train(
        self,
        model: Segmenter,
        arm: ArmName = "joint",
        config: FitConfig | None = None,
        folder: str = "run",
        *,
        resume: bool = False,
        dataset: data.SegmentationDataset | None = None,
        tune: data.SegmentationDataset | None = None,
        **how: Any,
    ) -> Stage:
        """Fit, with the options of `stage` in `how`."""
        stage = self.stage(arm, config, folder, **how)
        stream = self.stream(dataset, stage.fit.batch_size)
        with RunTracker(stage.directory, "disabled", "test", arm, {}) as tracker:
            fit(model, stream, stage, tracker, resume=resume, tune=tune)
        return stage


def lines_of(folder: Path) -> list[dict[str, float]]:
    """What a run wrote, but for what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]


def weights(model: Segmenter) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: Segmenter, before: dict[str, torch.Tensor], prefix: str = "") -> list[str]:
    return [
        name
        for name, value in model.state_dict().items()
        if name.startswith(prefix) and not torch.equal(value, before[name])
    ]


class FragileCollage(Collage):
    """A collage of which one image ends the process that reads it, and some cannot be read."""

    def __init__(
        self, config: CollageConfig, deadly: int | None = None, corrupt: tuple[int, ...] = ()
    ) -> None:
        super().__init__(config, "train")
        self.deadly, self.corrupt = deadly, corrupt

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.corrupt:
            raise CorruptSample(f"{self.names[index]}.jpg is truncated")
        return super().__getitem__(index)
