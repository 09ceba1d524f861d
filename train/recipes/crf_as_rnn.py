"""CRF-as-RNN: network and CRF trained together from a trained network.

Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang and Torr, "Conditional Random Fields as
Recurrent Neural Networks", ICCV 2015, sections 6 and 7; its released solver and layer files.
"""

from __future__ import annotations

from crfrnn.presets import preset
from data import TransformConfig
from eval.tuning.grid import SearchConfig
from models import CrfForm
from train.fit_config import FitConfig
from train.objective import LossConfig
from train.recipe import ModelConfig, Recipe
from train.recipes.voc12 import NUM_TRAIN, voc12_trainaug

# The paper adds the losses of all pixels up and learns at 1e-13, its layer files 1e4 times as fast
# for both kernels' weights and 1e3 times for the compatibility. A mean over the 250,000 pixels of
# a 500 x 500 image has a gradient 250,000 times as short: the same steps take 250,000 times the
# rate.
PIXELS = 500 * 500
LR = 1e-13 * PIXELS  # 2.5e-8
KERNEL_LR = 1e4 * LR  # 2.5e-4
COMPATIBILITY_LR = 1e3 * LR  # 2.5e-5


def crf_as_rnn() -> Recipe:
    """The paper's joint training: one whole image a step, momentum 0.99, a constant rate.

    The CRF is the paper's: (L, L) kernel weights and compatibility, 5 iterations in training and
    10 in evaluation, and no loss before it. Nothing is searched: the grid is one point, scored on
    20 images.

    Command: python -m train compare crf-as-rnn --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
    Cost: 31,746 steps, 3 epochs, for each of unary, crf-only and joint: about twelve hours each on
        2 CPU cores. An estimate: 1.4 s an image, of which the CRF's updates and gradients at 500 x
        342 pixels and 21 labels are most (results/benchmark.json).
    Expect: from FCN-8s the paper has 69.6 against 63.7 of a CRF apart and 61.3 without, with COCO
        72.9, 69.5 and 68.3 (its reduced val, 346 images, recalled). From another network it is
        not known: the public MobileNetV2 model here has learnt from COCO and the SBD masks before.
    Source: the paper. Its network is FCN-8s; any trained one goes here (--model.builder NAME
        --model.weights FILE). Decay is FCN's. How many steps it took is not published: 3 epochs
        are our choice.
    """
    published = preset("crf_rnn")
    steps = 3 * NUM_TRAIN
    fit = FitConfig(
        steps=steps,
        batch_size=1,
        optimizer="sgd",
        momentum=0.99,
        lr=LR,
        crf_lr=KERNEL_LR,
        compatibility_lr=COMPATIBILITY_LR,
        weight_decay=5e-4,
        schedule="step",
        step_size=steps,  # never: the rate is constant
        loss=LossConfig(unary=0.0),
    )
    return Recipe(
        data=voc12_trainaug(),
        model=ModelConfig(min_size=513),
        augment=TransformConfig(),
        start=None,
        fit=fit,
        crf_fit=fit,
        crf=CrfForm(
            kernel_weights="matrix",
            compatibility="full",
            normalization=published.normalization,
            num_iterations=published.num_iterations,
            num_iterations_eval=published.num_iterations_eval,
        ),
        search=SearchConfig(
            num_images=20,
            theta_gamma=(published.theta_gamma,),
            spatial_weight=(published.spatial_weight,),
            theta_alpha=(published.theta_alpha,),
            theta_beta=(published.theta_beta,),
            bilateral_weight=(published.bilateral_weight,),
            rounds=0,
            calibrate=False,
        ),
        workers=2,
    )
