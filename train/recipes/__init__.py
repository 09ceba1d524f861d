"""Recipes: everything that a comparison depends on.

Each opens with its command, its cost, what to expect and, where it is a paper's, its source. Any
value can be changed from the command line by its dotted name: `--fit.steps 200 --crf.resolution 4`.
Numbers that are called recalled were written down from memory of the paper.
"""

from __future__ import annotations

from collections.abc import Callable

from train.recipe import Recipe
from train.recipes.ours import (
    camvid,
    collage,
    voc12_animals,
    voc12_animals_balanced,
    voc12_animals_clicks,
    voc12_animals_coarse,
    voc12_animals_imagenet,
)
from train.recipes.papers import (
    crf_as_rnn,
    deeplab_v1_largefov,
    deeplab_v1_msc,
    deeplab_v2_resnet101,
    deeplab_v2_vgg16,
    deeplab_v3_resnet101,
    deeplab_v3plus_resnet101,
    deeplab_v3plus_xception65,
    pac_crf,
)

RECIPES: dict[str, Callable[[], Recipe]] = {
    "collage": collage,
    "voc12-animals": voc12_animals,
    "voc12-animals-imagenet": voc12_animals_imagenet,
    "voc12-animals-balanced": voc12_animals_balanced,
    "voc12-animals-clicks": voc12_animals_clicks,
    "voc12-animals-coarse": voc12_animals_coarse,
    "camvid": camvid,
    "deeplab-v1-largefov": deeplab_v1_largefov,
    "deeplab-v1-msc": deeplab_v1_msc,
    "deeplab-v2-vgg16": deeplab_v2_vgg16,
    "deeplab-v2-resnet101": deeplab_v2_resnet101,
    "deeplab-v3-resnet101": deeplab_v3_resnet101,
    "deeplab-v3plus-resnet101": deeplab_v3plus_resnet101,
    "deeplab-v3plus-xception65": deeplab_v3plus_xception65,
    "crf-as-rnn": crf_as_rnn,
    "pac-crf": pac_crf,
}
