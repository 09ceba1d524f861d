"""Recipes: that each can be built and written, what its phases learn, and one step of some."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import tyro

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
    without_pretrained,
)
from tests.train.tiny import tiny_recipe
from train.arms import check_phases
from train.loop import fit
from train.losses import LossConfig
from train.optim import build_optimizer
from train.recipe import Recipe
from train.recipes import RECIPES
from train.stage import TRAINED, Run
from train.tracking import NoTracker

PAPERS = [name for name in RECIPES if name.startswith(("deeplab", "crf", "pac"))]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_written_and_parsed(name: str) -> None:
    recipe = RECIPES[name]()
    json.dumps(asdict(recipe), default=str)
    arguments = ["--fit.steps", "3", "--fit.loss.lovasz", "0.5"]
    config = (tyro.conf.AvoidSubcommands,)
    changed = tyro.cli(Recipe, default=recipe, args=arguments, config=config)
    loss = replace(recipe.fit.loss, lovasz=0.5)
    assert changed == replace(recipe, fit=replace(recipe.fit, steps=3, loss=loss))


@pytest.mark.parametrize("name", PAPERS)
def test_every_parameter_of_a_recipes_network_has_a_rate(name: str) -> None:
    """On the meta device: names and rates of what would be learnt."""
    recipe = RECIPES[name]()
    check_phases(recipe, 21)
    network = without_pretrained(recipe.model.network)
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(21, network, CrfConfig()))
    optimizer = build_optimizer(segmenter, TRAINED["joint"], recipe.start or recipe.fit)
    names = {group["name"] for group in optimizer.param_groups}
    assert ("head_depthwise" in names) == ("xception" in name)
    assert ("backbone_norms" in names) == ("-v1" not in name and "-v2" not in name)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == sum(p.requires_grad for p in segmenter.parameters())


def test_msc_trains_the_network_first_and_then_the_branches_alone() -> None:
    recipe = RECIPES["deeplab-v1-msc"]()
    assert recipe.start is not None
    assert recipe.finish is not None
    stages = (recipe.start.frozen, recipe.finish.fit.frozen)
    with torch.device("meta"):
        network = Segmenter(SegmenterConfig(21, without_pretrained(recipe.model.network))).network
    for name, _ in network.named_parameters():  # each learns in one stage and not in the other
        assert [name.startswith(stage) for stage in stages].count(True) == 1, name


def test_balanced_is_another_loss_alone() -> None:
    recipe = RECIPES["voc12-animals-balanced"]()
    balanced = LossConfig(class_weights=(0.25, *[1.0] * 20))
    for name in ("start", "fit", "crf_fit", "crf_last"):
        phase = getattr(recipe, name)
        assert phase.loss == balanced
        recipe = replace(recipe, **{name: replace(phase, loss=LossConfig())})  # type: ignore[arg-type]
    assert recipe == RECIPES["voc12-animals-imagenet"]()


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
    run = Run(TRAINED[arm], 0, folder, data.config_to_dict(tiny.data))  # type: ignore[index]
    augment = replace(recipe.augment, crop_size=33)
    stream = TrainStream(dataset, Augment(augment), config.batch_size, 0)
    fit(segmenter, stream, config, run, NoTracker(), resume=False)
    after = segmenter.state_dict()
    return {key.split(".")[0] for key in before if not torch.equal(after[key], before[key])}


MOVED = {"start": {"network"}, "fit": {"network", "crf"}, "crf_fit": {"crf"}}


@pytest.mark.parametrize(
    ("name", "phase"),
    [("deeplab-v3-resnet101", "start"), ("crf-as-rnn", "fit"), ("pac-crf", "crf_fit")],
)
def test_a_step_of_a_phase_moves_what_it_learns(name: str, phase: str, tmp_path: Path) -> None:
    assert parts_moved_by_a_step(name, phase, tmp_path) == MOVED[phase]
