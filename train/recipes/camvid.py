"""CamVid: street scenes with thin structures."""

from __future__ import annotations

from dataclasses import replace

from data import CamVidConfig
from eval.tuning.grid import SearchConfig
from train.recipe import Recipe
from train.recipes.voc12_animals_imagenet import voc12_animals_imagenet


def camvid() -> Recipe:
    """CamVid, 11 classes at 480 x 360, DeepLabv3 on MobileNetV2 with a head that starts at random.

    Command: python -m train compare camvid --data.root CamVid
             --model.backbone-weights mobilenetv2_100_imagenet.safetensors
    Cost: on one CPU core the start 9 minutes, its search 4; of a seed, scored on report alone,
        unary 3, post-hoc 6, crf-only 6 and joint 14.
    Expect: on report, from three seeds, start 39.5 mIoU and 24.4 within 3 px of borders, unary
        40.4 and 25.2, post-hoc 40.3 and 26.3, crf-only 42.3 and 27.7, joint 42.4 and 27.8. So
        short a start knows no poles, signs, pedestrians or bicyclists: give --start.steps 2000
        where there is a GPU. val is of a sequence that train has frames of; in test, the 171 frames
        whose names begin with Seq05VD are of one that it has none of.
    """
    base = voc12_animals_imagenet()
    return replace(
        base,
        data=CamVidConfig(),
        # Full resolution: poles are a few pixels wide.
        crf=replace(base.crf, resolution=1),
        search=SearchConfig(
            num_images=40,
            theta_gamma=(1.0,),
            spatial_weight=(1.0,),
            theta_alpha=(10.0, 30.0),
            theta_beta=(3.0, 8.0),
            bilateral_weight=(1.0, 3.0),
        ),
    )
