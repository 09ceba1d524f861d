"""A training in a process of its own, for tests that end it or start several:

python -m tests.full.train.child OUT [--steps N] [--batch-size B] [--fixed]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from models import DeepLabV3Config
from runtime import distributed
from tests.train.world import tiny_recipe
from train.arms import Comparison
from train.recipe import Recipe
from train.state import Stopped, terminable


@dataclass(frozen=True)
class ChildOptions:
    """What to train: an arm and those that it builds on; a folder that is there is resumed.

    Attributes:
        batch_size: of one process.
        fixed: nothing depends on how the images are dealt to processes: no dropout, no BN
            statistics, and SGD.
    """

    out: tyro.conf.Positional[Path]
    steps: int = 20
    batch_size: int = 2
    fixed: bool = False


def recipe_of(options: ChildOptions) -> Recipe:
    recipe = tiny_recipe()
    fit = replace(recipe.fit, steps=options.steps, batch_size=options.batch_size)
    network = recipe.model.network
    if options.fixed and isinstance(network, DeepLabV3Config):
        fit = replace(fit, optimizer="sgd", lr=1e-2)
        network = replace(network, dropout=0.0, freeze_batch_norm=True)
    model, start = replace(recipe.model, network=network), replace(fit, steps=2)
    return replace(recipe, model=model, start=start, fit=fit, log_every=1, save_every=1)


def main(arguments: list[str]) -> None:
    options = tyro.cli(ChildOptions, args=arguments)
    torch.set_num_threads(1)
    try:
        with terminable(), distributed.joined(torch.device("cpu")):
            comparison = Comparison("tiny", recipe_of(options), options.out, resume=True)
            comparison.run("joint", 0)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal_number)


if __name__ == "__main__":
    main(sys.argv[1:])
