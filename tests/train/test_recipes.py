"""Recipes can be built and written, and a run folder keeps who worked in it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from models import CrfConfig, Segmenter, SegmenterConfig, without_pretrained
from runtime.run_folder import RunFolder, read_json, write_json
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
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == sum(p.requires_grad for p in segmenter.parameters())


CONFIG = {"fit": 1, "seeds": [0, 1]}


def folder_of(path: Path, *, resume: bool = True, **changes: Any) -> RunFolder:
    return RunFolder(path, {**CONFIG, **changes}, resume=resume)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """As if a run had finished, and its checkpoint were deleted since."""
    folder_of(tmp_path, resume=False)
    write_json(tmp_path / "arms" / "unary-seed0" / "result.json", {})
    return tmp_path


def test_invocations_at_the_same_time_keep_each_others_lines(tmp_path: Path) -> None:
    one, other = folder_of(tmp_path), folder_of(tmp_path)
    for folder in (one, other, one):
        folder.sign()
    signed = read_json(tmp_path / "origin.json")
    assert len(signed) == len({entry["id"] for entry in signed}) == 2
    assert one.provenance()["wall_seconds"] == sum(entry["seconds"] for entry in signed)


def test_a_run_that_left_nothing_leaves_no_line_and_claims_no_folder(tmp_path: Path) -> None:
    for _ in range(2):
        folder_of(tmp_path).sign()
    assert len(read_json(tmp_path / "origin.json")) == 1
    (tmp_path / "arms" / "start-seed0").mkdir(parents=True)
    (tmp_path / "arms" / "start-seed0" / "checkpoint.pt").touch()
    folder_of(tmp_path).sign()
    assert len(read_json(tmp_path / "origin.json")) == 2
    for fit in (1, 2):
        folder_of(tmp_path / "unused", resume=False, fit=fit)
    assert read_json(tmp_path / "unused" / "config.json")["fit"] == 2


def test_results_without_checkpoints_are_protected(finished: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        folder_of(finished, resume=False)
    with pytest.raises(ValueError, match="another configuration: fit was 1, now 2"):
        folder_of(finished, fit=2)
    folder_of(finished, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match=r"begin at the start of seed 0.*got \[1, 2\]"):
        folder_of(finished, seeds=[1, 2])
