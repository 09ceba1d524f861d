"""The two stages of PAC-CRF: the CRF alone, then network and CRF together, slowly.

Su, Jampani, Sun, Gallo, Learned-Miller and Kautz, "Pixel-Adaptive Convolutional Neural
Networks", CVPR 2019, section 5.
"""

from __future__ import annotations

from dataclasses import replace

from train.fit_config import FitConfig
from train.objective import LossConfig
from train.recipe import Recipe
from train.recipes.crf_as_rnn import crf_as_rnn
from train.recipes.voc12 import NUM_TRAIN

BATCH = 8  # whole images, one after another


def pac_crf() -> Recipe:
    """The schedule of PAC-CRF on the dense CRF: 40 epochs of the CRF, 30 of both.

    Command: python -m train compare pac-crf --data.root VOCdevkit/VOC2012
             --model.weights deeplabv3_mobilenetv2_voc.safetensors
    Cost: 40 epochs of the CRF and 30 of both for the arm joint, 30 for unary and 40 for crf-only:
        seventeen days on 2 CPU cores for one seed. An estimate, made as that of crf-as-rnn;
        --crf.resolution 4 takes a sixteenth of the CRF's share, which is half.
    Expect: two to three points over the network, in the paper as for the dense CRF beside it
        (recalled, unchecked; its network is FCN). From another network it is not known.
    Source: the paper's schedule: Adam, 1e-3 for the CRF alone, 1e-7 for both. Its CRF is one of
        windows with learnt filters; this one is dense, with weights for every class. The batch of
        8 images is our choice.
    """
    base = crf_as_rnn()
    epoch = NUM_TRAIN // BATCH
    crf_first = FitConfig(
        steps=40 * epoch,
        batch_size=1,
        accumulate=BATCH,
        optimizer="adamw",  # without decay: Adam
        weight_decay=0.0,
        lr=1e-3,
        crf_lr=1e-3,
        compatibility_lr=1e-3,
        schedule="step",
        step_size=40 * epoch,  # never: the rate is constant
        loss=LossConfig(unary=0.0),
    )
    steps = 30 * epoch
    together = replace(
        crf_first, steps=steps, step_size=steps, lr=1e-7, crf_lr=1e-7, compatibility_lr=1e-7
    )
    return replace(
        base,
        fit=together,
        crf_first=crf_first,
        crf_fit=crf_first,
        crf=replace(base.crf, kernel_weights="class"),
    )
