"""A recipe so small that a whole comparison takes seconds."""

from __future__ import annotations

from dataclasses import replace

from data import CollageConfig
from eval.grid import SearchConfig
from models import DeepLabV3Config, TimmConfig
from train.recipe import FitConfig, ModelConfig, Recipe
from train.recipes import RECIPES


def tiny_recipe() -> Recipe:
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
        wandb="disabled",
    )
