"""One step of every phase of the recipes of the papers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models import (
    DeepLabV1Config,
    DeepLabV2Config,
    NetworkConfig,
    Segmenter,
    TimmConfig,
    VggConfig,
    with_backbone,
)
from runtime.run_folder import ArmName
from tests.train.test_recipes import PAPERS
from tests.train.world import World, changed, tiny_recipe, weights
from train.recipes import RECIPES


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


MOVED = {"start": {"network"}, "fit": {"network", "crf"}, "crf_fit": {"crf"}}
ARMS: dict[str, ArmName] = {"start": "start", "fit": "joint", "crf_fit": "crf-only"}
PHASES = [(n, phase) for n in PAPERS for phase in MOVED if getattr(RECIPES[n](), phase) is not None]


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_step_moves_what_the_phase_learns(name: str, phase: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]()
    model = replace(recipe.model, network=small(recipe.model.network))
    augment = replace(recipe.augment, crop_size=33)
    tiny = replace(recipe, data=tiny_recipe().data, model=model, augment=augment)
    world = World(tiny, tmp_path)
    config = world.segmenter(crf=phase != "start").config
    freeze = model.freeze_batch_norm and phase != "start"
    segmenter = Segmenter(replace(config, freeze_batch_norm=freeze))
    before = weights(segmenter)
    step = replace(getattr(recipe, phase), steps=1, batch_size=2, accumulate=1)
    world.train(segmenter, ARMS[phase], step)
    assert {key.split(".")[0] for key in changed(segmenter, before)} == MOVED[phase]
