"""DeepLab v2: VGG-16 and ResNet-101 with the atrous pyramid, trained by the poly schedule.

Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with
Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", TPAMI 2018, section 4.1.
"""

from __future__ import annotations

from dataclasses import replace

from data import TransformConfig
from data.transforms import DEEPLAB_V2_SCALES
from eval.tuning.grid import SearchConfig
from models import builder, pretrained_config
from train.recipe import ModelConfig, Recipe
from train.recipes.voc12 import after_start, crf_form, published_training, voc12_trainaug


def deeplab_v2_vgg16() -> Recipe:
    """DeepLab-ASPP-L from ImageNet's VGG-16.

    Command: python -m train compare deeplab-v2-vgg16 --data.root VOCdevkit/VOC2012
    Cost: the start one and a half GPU-hours, 19 epochs; each arm a twentieth of it besides its
        CRF. An estimate: three times the forward operations of results/networks.json at
        20 TFLOP/s.
    Expect: val mIoU 68.96, with the post-hoc CRF 71.57 (the paper, recalled).
    Source: the paper and the authors' published prototxt: mirrored crops, no other scale. A
        reproduction of LargeFOV gains 0.6 with scales: --augment.scale 0.5 1.5.
    """
    paper = builder("deeplab_v2_vgg16_aspp_l")
    fit = after_start(batch_size=paper.recipe.batch, steps=1000)
    return Recipe(
        data=voc12_trainaug(),
        model=ModelConfig(network=pretrained_config(paper.config)),
        augment=TransformConfig(crop_size=paper.recipe.crop, scale=None, flip=True),
        start=published_training(paper.recipe),
        fit=fit,
        crf_fit=replace(fit, steps=300),
        crf=crf_form(),
        # The paper's ranges are 3..6, 30..100 and 3..6; the spatial kernel and 65/3/4 are those
        # of one reproduction.
        search=SearchConfig(
            num_images=100,
            theta_gamma=(2.0,),
            spatial_weight=(2.0,),
            theta_alpha=(30.0, 65.0, 100.0),
            theta_beta=(3.0, 6.0),
            bilateral_weight=(4.0, 6.0),
            rounds=2,
        ),
        workers=4,
    )


def deeplab_v2_resnet101() -> Recipe:
    """DeepLab-ASPP-L on ResNet-101, three scales in and four losses, from ImageNet.

    The losses are those of scale 1, of 0.75 enlarged, of 0.5 and of their maximum, each at the
    stride of its logits; BN keeps ImageNet's statistics and affine parameters.

    Command: python -m train compare deeplab-v2-resnet101 --data.root VOCdevkit/VOC2012
    Cost: the start two and a half GPU-hours, 19 epochs; each arm a twentieth of it besides its
        CRF. An estimate, made as that of deeplab-v2-vgg16.
    Expect: val mIoU 76.35, with the post-hoc CRF 77.69 (the paper, recalled), from COCO, which
        nobody publishes in torchvision's format. From ImageNet reproductions have 73.37 and,
        with CRF, 76.77; from COCO 76.65 and 77.93: to beat.
    Source: the paper and the authors' published prototxt. torchvision's weights have the stride
        in the 3x3 convolution, the authors' in the 1x1.
    """
    paper = builder("deeplab_v2_resnet101_aspp_l_msc")
    vgg = deeplab_v2_vgg16()
    return replace(
        vgg,
        model=ModelConfig(network=pretrained_config(paper.config)),
        augment=TransformConfig(crop_size=paper.recipe.crop, scale_steps=DEEPLAB_V2_SCALES),
        start=published_training(paper.recipe),
        # Of two reproductions: spatial 1/3, bilateral 67/3/4.
        search=replace(
            vgg.search,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(34.0, 67.0, 100.0),
        ),
    )
