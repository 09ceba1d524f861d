"""One step of every phase of the recipes of the papers."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import data
from data import Augment, TrainStream
from models import (
    CrfConfig,
    DeepLabV1Config,
    DeepLabV2Config,
    NetworkConfig,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    with_backbone,
)
from tests.train.test_recipes import PAPERS
from tests.train.world import LEARNS, tiny_recipe
from train.loop import fit
from train.recipes import RECIPES
from train.stage import Stage
from train.tracking import NoTracker


def small(network: NetworkConfig) -> NetworkConfig:
    """The same kind of network, small enough for a step on a CPU."""
    if isinstance(network, DeepLabV1Config):
        vgg = replace(network.backbone, pretrained=False, fc_channels=16)
        return replace(network, backbone=vgg)
    if isinstance(network, DeepLabV2Config):
        vgg = VggConfig(fc_channels=16, rates=(2, 4))
        return replace(network, backbone=vgg, rates=())
    normalization = network.backbone.normalization
    return with_backbone(network, TimmConfig("test_efficientnet", normalization=normalization))


def parts_moved_by_a_step(name: str, phase: str, folder: Path) -> set[str]:
    """Which of network and CRF one step of a recipe's phase changes, on a few tiny images."""
    recipe, tiny = RECIPES[name](), tiny_recipe()
    dataset = data.build(tiny.data, "train")
    arm = {"start": "start", "fit": "joint", "crf_fit": "crf-only"}[phase]
    network = SegmenterConfig(
        len(dataset.classes),
        small(recipe.model.network),
        CrfConfig(**asdict(recipe.crf)) if phase != "start" else None,
        freeze_batch_norm=recipe.model.freeze_batch_norm and phase != "start",
    )
    segmenter = Segmenter(network)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    config = replace(getattr(recipe, phase), steps=1, batch_size=2, accumulate=1)
    about = data.config_to_dict(tiny.data)
    stage = Stage(arm, 0, config, LEARNS[arm], folder, about)  # type: ignore[arg-type]
    augment = replace(recipe.augment, crop_size=33)
    stream = TrainStream(dataset, Augment(augment), config.batch_size, 0)
    fit(segmenter, stream, stage, NoTracker(), resume=False)
    after = segmenter.state_dict()
    return {key.split(".")[0] for key in before if not torch.equal(after[key], before[key])}


MOVED = {"start": {"network"}, "fit": {"network", "crf"}, "crf_fit": {"crf"}}
PHASES = [
    (name, phase)
    for name in PAPERS
    for phase in MOVED
    if getattr(RECIPES[name](), phase) is not None
]


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_step_moves_what_the_phase_learns(name: str, phase: str, tmp_path: Path) -> None:
    assert parts_moved_by_a_step(name, phase, tmp_path) == MOVED[phase]
