"""Recipes: everything that a comparison depends on.

Each opens with its command, its cost and what to expect. Any value can be changed from
the command line by its dotted name: `--fit.steps 200 --crf.resolution 4`.
"""

from __future__ import annotations

from collections.abc import Callable

from train.recipe import Recipe
from train.recipes.collage import collage
from train.recipes.voc12_animals import voc12_animals

RECIPES: dict[str, Callable[[], Recipe]] = {
    "collage": collage,
    "voc12-animals": voc12_animals,
}
