"""What the explorer offers to copy gives the CRF that it shows."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

import data
from data import CollageConfig
from eval.inference import coarse_unaries
from eval.predict import POST_HOC, parsed
from eval.search import search
from eval.setting_lines import (
    LINE_OPTIONS,
    code,
    is_scalar,
    predict_line,
    preset_setting,
    setting_of,
    train_line,
)
from models import CrfConfig, CrfForm, Segmenter, SegmenterConfig
from models.crf import build_crf
from models.layers import shrink, shrink_image
from tests.eval.plain_networks import TINY, noise
from train.__main__ import CompareOptions, choose_kinds
from train.recipe import Recipe
from train.recipes import RECIPES

SETTINGS = [
    preset_setting("krahenbuhl"),
    replace(POST_HOC, theta_alpha=12.5, theta_beta=8.25, resolution=2, output_scale=0.355),
    replace(POST_HOC, bilateral_filter="window", spatial_filter="lattice", num_iterations_eval=3),
    replace(POST_HOC, inference="frank_wolfe", regularizer="l2", temperature=0.5, step="decaying"),
]


def recipe_of(line: str, name: str) -> Recipe:
    """A recipe with the options of a line."""
    words = shlex.split(line.replace("RECIPE", name))
    assert words[:7] == ["python", "-m", "train", "run", name, "--arm", "post-hoc"]
    chosen, rest = choose_kinds(RECIPES[name](), words[7:])
    default, config = CompareOptions(chosen, Path("x")), (tyro.conf.AvoidSubcommands,)
    return tyro.cli(CompareOptions, default=default, args=rest, config=config).recipe


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_code_builds_the_same_layer(setting: CrfConfig) -> None:
    scope: dict[str, Any] = {}
    exec(code(setting, 3), scope)
    image, unary = noise(20, 24), torch.randn(1, 3, 20, 24)
    small = shrink(unary, setting.resolution), shrink_image(image, setting.resolution)
    with torch.no_grad():
        expected = build_crf(setting, 3).eval()(*small)
        assert torch.equal(scope["crf"](*small), expected)


@pytest.mark.parametrize("setting", [*SETTINGS, replace(POST_HOC, unary_scale=1.5)])
def test_the_line_of_predict_parses_to_the_setting(setting: CrfConfig) -> None:
    words = shlex.split(predict_line(setting, "a folder/net.pt", "cat.jpg"))
    options = parsed(words[4:])
    assert options.crf is not None
    for name in LINE_OPTIONS:
        assert getattr(options.crf, name) == getattr(setting, name)
    assert (options.crf.kernel_weights, options.crf.compatibility) == ("scalar", "potts")
    assert str(options.checkpoint) == "a folder/net.pt"


@pytest.mark.parametrize(
    ("setting", "recipe"),
    [*((setting, "collage") for setting in SETTINGS[1:]), (SETTINGS[0], "voc12-animals")],
)
def test_the_line_of_train_makes_it_the_post_hoc_crf(setting: CrfConfig, recipe: str) -> None:
    chosen = recipe_of(train_line(setting), recipe)
    split = data.build(CollageConfig(size=33, num_train=1, num_tune=1, num_report=1), "tune")
    segmenter = Segmenter(SegmenterConfig(len(split.classes), TINY)).eval()
    config, coarse = replace(chosen.search, num_images=1), coarse_unaries(segmenter, split)
    found, _, (_,) = search(segmenter, chosen.crf, split, coarse, config)
    learnt = {"output_scale", "num_iterations", "unary_scale"}
    learnt |= {f.name for f in fields(CrfForm) if f.name.startswith("learn_")}
    names = {field.name for field in fields(CrfConfig)}
    assert {n for n in names if getattr(found, n) != getattr(setting, n)} <= learnt


def test_a_bias_of_the_labels_stands_in_every_line() -> None:
    scope: dict[str, Any] = {"unary": torch.zeros(1, 3, 2, 2)}
    exec(code(POST_HOC, 3, (0.5, 0.0, -1.0)), scope)
    assert scope["unary"][0, :, 0, 0].tolist() == [-0.5, 0.0, 1.0]
    words = shlex.split(predict_line(POST_HOC, "net.pt", "cat.jpg", (0.5, 0.0, -1.0)))
    assert parsed(words[4:]).label_bias == (0.5, 0.0, -1.0)
    chosen = recipe_of(train_line(POST_HOC, 1.5, "background"), "collage").search
    assert (chosen.bias, chosen.bias_direction) == ((1.5,), "background")


def test_the_setting_of_a_checkpoint_has_the_mean_weight_of_learnt_matrices() -> None:
    assert is_scalar(POST_HOC)
    learnt = replace(POST_HOC, kernel_weights="matrix", compatibility="full")
    segmenter = Segmenter(SegmenterConfig(3, TINY, learnt))
    assert segmenter.crf is not None
    with torch.no_grad():
        segmenter.crf.potentials.weight("bilateral").diagonal().copy_(torch.tensor([1.0, 2.0, 6.0]))
    assert not is_scalar(segmenter.config.crf)
    assert setting_of(segmenter) == replace(POST_HOC, bilateral_weight=3.0)
    with pytest.raises(ValueError, match=r"leaves the unary as it is.*times 1\.5"):
        train_line(replace(POST_HOC, unary_scale=1.5))
