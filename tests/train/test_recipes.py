"""Recipes: that each can be built and written, and what its phases learn."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
import tyro

from models import CrfConfig, Segmenter, SegmenterConfig, without_pretrained
from train.arms import check_stages
from train.optim import build_optimizer
from train.recipe import Recipe
from train.recipes import RECIPES
from train.stage import BOTH

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
    check_stages(recipe, 21)
    network = without_pretrained(recipe.model.network)
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(21, network, CrfConfig()))
    optimizer = build_optimizer(segmenter, BOTH, recipe.start or recipe.fit)
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
