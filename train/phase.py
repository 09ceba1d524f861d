"""One training of an arm, and whether all of a recipe's fit its data and network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch

from eval.arms import ArmName
from models import CrfConfig, Segmenter, SegmenterConfig, without_pretrained
from models.networks import at_output_stride
from train.arms import TRAINED, Arm
from train.fit_config import FitConfig
from train.learning import only_learning
from train.objective import check_class_weights
from train.optim import build_optimizer
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
    """Raise ValueError, before anything is trained, where a phase does not fit data or network.

    Its parts and class weights are named rightly, its output stride exists, and it has something to
    learn.
    """
    finish = recipe.finish
    if finish is not None and finish.output_stride is not None:
        at_output_stride(recipe.model.network, finish.output_stride)
    behind = replace(TRAINED["joint"], network=False)
    phases = (
        (recipe.start, TRAINED["start"]),
        (None if finish is None else finish.fit, TRAINED["start"]),
        (recipe.fit, TRAINED["unary"]),
        (recipe.crf_first, behind),
        (recipe.crf_last, behind),
        (recipe.crf_fit, TRAINED["crf-only"]),
    )
    network = without_pretrained(recipe.model.network)
    with torch.device("meta"):
        crf = CrfConfig(**asdict(recipe.crf))
        segmenter = Segmenter(SegmenterConfig(num_classes, network, crf))
    for phase, arm in phases:
        if phase is not None:
            check_class_weights(phase.loss.class_weights, num_classes)
            with only_learning(segmenter, arm, phase.frozen):
                build_optimizer(segmenter, arm, phase)
