"""DeepLab v3+: the decoder behind ResNet-101 and behind the aligned Xception.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", ECCV 2018, section 4.
"""

from __future__ import annotations

from dataclasses import replace

from data import TransformConfig
from data.transforms import DEEPLAB_V3PLUS_SCALES
from models import builder, pretrained_config
from models.registry import Builder
from train.recipe import ModelConfig, Recipe
from train.recipes.deeplab_v3 import deeplab_v3_resnet101
from train.recipes.voc12 import published_training


def deeplab_v3plus_resnet101() -> Recipe:
    """DeepLabv3+ on ResNet-101 at stride 16 from ImageNet.

    Command: python -m train compare deeplab-v3plus-resnet101 --data.root VOCdevkit/VOC2012
    Cost: the start four GPU-hours, 45 epochs; each arm a quarter of an hour besides its CRF. An
        estimate: three times the forward operations of results/networks.json at 20 TFLOP/s.
    Expect: val mIoU 78.85, with scales and mirrored 80.22 (the paper, recalled); reproductions
        have 79.16 and 79.92: to beat. The paper has no CRF.
    Source: the paper and the authors' release, whose weights of ImageNet these are not:
        torchvision's are.
    """
    return one_stage(builder("deeplab_v3plus_resnet101"))


def deeplab_v3plus_xception65() -> Recipe:
    """DeepLabv3+ on Xception-65, its pyramid and decoder separable, at stride 16 from ImageNet.

    Command: python -m train compare deeplab-v3plus-xception65 --data.root VOCdevkit/VOC2012
    Cost: the start two to six GPU-hours, 45 epochs: the operations say two, and depthwise
        convolutions are bound by memory; each arm a quarter of an hour besides its CRF. An
        estimate, made as that of deeplab-v3plus-resnet101.
    Expect: val mIoU 79.93, with scales and mirrored 81.44 (the paper, recalled), 79.79 with
        separable convolutions throughout; reproductions have 79.95 and 81.09: to beat. The paper
        has no CRF.
    Source: the paper and the authors' release: depthwise weights do not decay.
    """
    recipe = one_stage(builder("deeplab_v3plus_xception65"))
    assert recipe.start is not None
    return replace(
        recipe,
        augment=replace(recipe.augment, fill=(128, 128, 128)),  # what its input maps to zero
        start=replace(recipe.start, decay_depthwise=False),
    )


def one_stage(paper: Builder) -> Recipe:
    """Data, arms and search of DeepLab v3, the start in one stage."""
    return replace(
        deeplab_v3_resnet101(),
        model=ModelConfig(network=pretrained_config(paper.config), min_size=paper.recipe.crop),
        augment=TransformConfig(crop_size=paper.recipe.crop, scale_steps=DEEPLAB_V3PLUS_SCALES),
        start=published_training(paper.recipe),
        finish=None,
    )
