"""What the recipes of the papers share: VOC 2012 with SBD's masks, and what follows the start.

A recipe's `start` is the training of its paper. What follows it, S steps for the arms unary and
joint, is this project's: no paper has it.
"""

from __future__ import annotations

from data import VocConfig
from models import CrfForm
from models.registry import PublishedRecipe
from train.fit_config import FitConfig
from train.objective import LossConfig

NUM_TRAIN = 10_582  # images of train_aug


def voc12_trainaug() -> VocConfig:
    """train_aug to train on; val, 1449 images, both to choose the CRF on and to score.

    The papers choose the CRF on a hundred images of val and score on all of val. To be strict,
    split a list off train_aug and pass it with --data.tune-list. The list train_aug and the masks
    that SBD adds are made by `python -m data prepare voc-trainaug --masks`.
    """
    return VocConfig(
        train_list="train_aug",
        tune_list="val",
        report_list="val",
        extra_masks="SegmentationClassAug",
    )


def published_training(paper: PublishedRecipe) -> FitConfig:
    """The paper's training as a phase of ours."""
    return FitConfig(
        steps=paper.steps,
        batch_size=paper.batch,
        optimizer="sgd",
        momentum=0.9,
        lr=paper.lr,
        head_multiplier=paper.head_multiplier,
        bias_multiplier=paper.bias_multiplier,
        weight_decay=paper.weight_decay,
        schedule=paper.schedule,
        power=0.9,
        step_size=2000,
        loss=LossConfig(label_stride=paper.label_stride),
    )


def after_start(batch_size: int, steps: int) -> FitConfig:
    """The steps of the arms after the start: our choice, the rates those of voc12-animals.

    A network that is trained takes little; a CRF that starts from searched values takes more, and
    rises longer. The losses on both sides of the CRF are at every pixel: it is there for them.
    """
    return FitConfig(
        steps=steps,
        batch_size=batch_size,
        lr=1e-5,
        warmup=steps // 20,
        crf_warmup=steps // 10,
        clip_norm=1.0,
    )


def crf_form() -> CrfForm:
    """The CRF of the authors' code, normalised per pixel, with weights for every class."""
    return CrfForm(
        kernel_weights="class",
        normalization="after",
        num_iterations=5,
        num_iterations_eval=10,
        learn_output_scale=True,
    )
