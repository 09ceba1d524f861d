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
    Cost: the start 16 minutes on one CPU core, an arm and seed 4 to 8 besides its scores. An
        estimate, from voc12-animals-imagenet.
    Expect: not trained yet. val is of a sequence that train has frames of; in test, the 171 frames
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
