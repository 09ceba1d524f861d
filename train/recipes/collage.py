"""The embedded data set."""

from __future__ import annotations

from dataclasses import replace

from data import CollageConfig, TransformConfig
from eval.tuning.grid import SearchConfig
from models import CrfForm, DeepLabV3Config, TimmConfig
from train.fit_config import FitConfig
from train.objective import LossConfig
from train.recipe import ModelConfig, Recipe


def collage() -> Recipe:
    """The embedded data set, from random initialisation: nothing to download.

    Command: python -m train compare collage   (or: make demo)
    Cost: under 10 minutes on 2 CPU cores.
    Expect: the table in README.md. From one seed to the next mIoU moves by several points.
    """
    # From a start that has been trained long enough the CRF's loss may weigh as much as the
    # unary's; the cut keeps the few images whose gradient it multiplies from deciding a step.
    fit = FitConfig(steps=90, lr=1e-4, warmup=8, loss=LossConfig(unary=1.0), clip_norm=1.0)
    return Recipe(
        data=CollageConfig(num_tune=60, num_report=160),
        model=ModelConfig(
            # From random initialisation in few steps the paper's BN momentum would leave the
            # statistics at their start.
            network=DeepLabV3Config(
                backbone=TimmConfig("resnet10t", normalization="half"),
                atrous_rates=(2,),
                head_channels=96,
                dropout=0.0,
                batch_norm_momentum=0.1,
            ),
            freeze_batch_norm=False,
        ),
        augment=TransformConfig(crop_size=None, scale=None, flip=True),
        start=FitConfig(steps=450, lr=1e-3),
        fit=fit,
        crf_fit=replace(fit, steps=30),
        crf=CrfForm(kernel_weights="class", normalization="symmetric", learn_output_scale=True),
        search=SearchConfig(
            num_images=20,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(10.0, 25.0),
            theta_beta=(8.0, 20.0),
            bilateral_weight=(3.0, 6.0),
        ),
    )
