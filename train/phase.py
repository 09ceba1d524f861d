"""One training of an arm, and whether all of a recipe's fit its data and network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eval.arms import ArmName
from models import without_pretrained
from models.networks import build_network
from train.arms import Arm
from train.fit_config import FitConfig
from train.learning import check_names
from train.objective import check_class_weights
from train.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """One training of an arm; most arms have one.

    Attributes:
        name: of the arm.
        seed: of its batches.
        fit: the numbers.
        learns: what learns.
        folder: where the checkpoint lies within the arm's folder, if not directly in it.
        first_step: steps that the arm's earlier phases have taken.
    """

    name: ArmName
    seed: int
    fit: FitConfig
    learns: Arm
    folder: str = ""
    first_step: int = 0


def check_phases(recipe: Recipe, num_classes: int) -> None:
    """Raise ValueError, before anything is trained, where a phase does not fit data or network."""
    last = None if recipe.finish is None else recipe.finish.fit
    with torch.device("meta"):
        network = build_network(without_pretrained(recipe.model.network), num_classes)
    of_crf = (recipe.crf_first, recipe.crf_last, recipe.crf_fit)
    for phase in (recipe.start, last, recipe.fit, *of_crf):
        if phase is not None:
            check_names(network, phase.frozen)
            check_class_weights(phase.loss.class_weights, num_classes)
