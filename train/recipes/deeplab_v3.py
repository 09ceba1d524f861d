"""DeepLab v3: ResNet-101 with image pooling in the pyramid, trained in two stages.

Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, section 4.
"""

from __future__ import annotations

from dataclasses import replace

from data import TransformConfig
from eval.tuning.grid import SearchConfig
from models import builder, pretrained_config
from train.recipe import FinishConfig, ModelConfig, Recipe
from train.recipes.voc12 import after_start, crf_form, published_training, voc12_trainaug


def deeplab_v3_resnet101() -> Recipe:
    """DeepLabv3 from ImageNet: stride 16 with BN trained, then stride 8 with BN frozen.

    Command: python -m train compare deeplab-v3-resnet101 --data.root VOCdevkit/VOC2012
             (or torchrun --nproc-per-node 4 -m train ... --start.batch-size 4 ..., BN over all)
    Cost: the start three GPU-hours for the first stage and ten for the second, 45 epochs each;
        each arm half an hour besides its CRF. An estimate: three times the forward operations of
        results/networks.json at 20 TFLOP/s. A batch of 16 at stride 8 wants 40 GB or
        --finish.fit.accumulate.
    Expect: val mIoU 77.21 after the first stage at stride 16; the same weights at stride 8 have
        78.51, with scales and mirrored 79.77 (the paper, recalled). The second stage is the
        paper's for the test server, where it has trained on trainval: 85.7 there. To beat: a
        reproduction with (1, 1, 1) at stride 16 has 76.49. The paper has no CRF.
    Source: the paper; the second stage here sees train_aug, so that val stays unseen.
    """
    first, second = builder("deeplab_v3_resnet101"), builder("deeplab_v3_resnet101_os8")
    fit = after_start(batch_size=8, steps=1000)
    return Recipe(
        data=voc12_trainaug(),
        # 513 is the crop: image pooling sees the same window in evaluation.
        model=ModelConfig(network=pretrained_config(first.config), min_size=first.recipe.crop),
        augment=TransformConfig(crop_size=first.recipe.crop, scale=(0.5, 2.0), flip=True),
        start=published_training(first.recipe),
        finish=FinishConfig(
            published_training(second.recipe), output_stride=8, freeze_batch_norm=True
        ),
        fit=fit,
        crf_fit=replace(fit, steps=300),
        crf=crf_form(),
        # Our choice: what was published for DeepLab v2 on ResNet-101.
        search=SearchConfig(
            num_images=100,
            theta_gamma=(1.0,),
            spatial_weight=(3.0,),
            theta_alpha=(34.0, 67.0, 100.0),
            theta_beta=(3.0, 6.0),
            bilateral_weight=(4.0, 6.0),
            rounds=2,
        ),
        workers=4,
    )
