"""One training of an arm, and whether all of a recipe's fit its data and network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch

from eval.arms import ArmName
from models import CrfConfig, Segmenter, SegmenterConfig, without_pretrained
from models.registry import at_output_stride, build_network
from train.arms import TRAINED, Arm
from train.fit_config import FitConfig
from train.learning import check_names, only_learning
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
    """Raise ValueError, before anything is trained, where a phase does not fit data or network."""
    trained = recipe.model.weights is None
    finish = recipe.finish if trained else None
    if finish is not None and finish.output_stride is not None:
        at_output_stride(recipe.model.network, finish.output_stride)
    with torch.device("meta"):
        network = build_network(without_pretrained(recipe.model.network), num_classes)
    start = (recipe.start, None if finish is None else finish.fit)
    for phase in (*start, recipe.fit, recipe.crf_first, recipe.crf_last, recipe.crf_fit):
        if phase is not None:
            check_names(network, phase.frozen)
            check_class_weights(phase.loss.class_weights, num_classes)


def check_learning(recipe: Recipe, arm: ArmName, num_classes: int) -> None:
    """Raise ValueError, before anything is trained, where a phase of the arm has nothing to learn.

    Phases of other arms that it builds on included.
    """
    crf = CrfConfig(**asdict(recipe.crf))
    with torch.device("meta"):
        network = without_pretrained(recipe.model.network)
        segmenter = Segmenter(SegmenterConfig(num_classes, network, crf))
    behind = replace(TRAINED["joint"], network=False)
    alone = [("fit", recipe.fit, TRAINED["unary"])]
    phases: dict[ArmName, list[tuple[str, FitConfig | None, Arm]]] = {
        "start": [],
        "unary": [*alone],
        "post-hoc": [*alone],
        "crf-only": [*alone, ("crf_fit", recipe.crf_fit, TRAINED["crf-only"])],
        "joint": [
            ("crf_first", recipe.crf_first, behind),
            ("fit", recipe.fit, TRAINED["joint"]),
            ("crf_last", recipe.crf_last, behind),
        ],
    }
    for name, config, learns in phases[arm]:
        if config is not None:
            with only_learning(segmenter, learns, config.frozen):
                try:
                    build_optimizer(segmenter, learns, config)
                except ValueError as error:
                    raise ValueError(f"--{name.replace('_', '-')}: {error}") from error
