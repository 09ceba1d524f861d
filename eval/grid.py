"""Propose settings of a post-hoc CRF, coarse to fine on a grid, as DeepLab did.

Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs", ICLR 2015, section 5.2: on a hundred validation images, the spatial
kernel fixed, a coarse grid over the bilateral weight and widths, then a finer search
around the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal

import numpy as np

from models import CrfConfig
from models.crf import SEARCHED

Direction = Literal["background", "prior"]
"""Of a bias of the labels, see `eval.search.direction_of`."""


@dataclass(frozen=True)
class SearchConfig:
    """Set the grid of the coarse stage, and how it is refined.

    Widths in pixels of the full-resolution image and grey levels of 0..255.

    Attributes:
        num_images: of the tune split, evenly spaced; all of them if there are fewer.
        theta_gamma, spatial_weight: of the spatial kernel; DeepLab fixes both.
        theta_alpha, theta_beta, bilateral_weight: of the bilateral kernel.
        rounds: of the fine stage. The first moves one value at a time by half a step of
            the grid both ways, each further one by half of the step before.
        calibrate: end with the temperature of the CRF's output, see `eval.search.calibrate`.
        bias: strengths of the bias of the labels that are tried on the best setting of the
            coarse stage, beside 0; the fine stage refines the best one. () searches without.
        bias_direction: "prior" lowers each label's logits by the bias times the logarithm of its
            share of the training pixels, "background" those of label 0 alone.
        label_floor: labels whose probability is below it at all pixels of an image are left out
            there; see `eval.search`. 0 keeps all.
    """

    num_images: int = 100
    theta_gamma: tuple[float, ...] = (3.0,)
    spatial_weight: tuple[float, ...] = (3.0,)
    theta_alpha: tuple[float, ...] = (30.0, 60.0, 100.0)
    theta_beta: tuple[float, ...] = (3.0, 6.0)
    bilateral_weight: tuple[float, ...] = (3.0, 6.0)
    rounds: int = 1
    calibrate: bool = True
    bias: tuple[float, ...] = ()
    bias_direction: Direction = "prior"
    label_floor: float = 0.0

    def __post_init__(self) -> None:
        for name in AXES:
            values = getattr(self, name)
            if not values or not all(value > 0 for value in values):
                raise ValueError(f"search.{name} must hold values above 0, got {values}.")
        if not 0 <= self.label_floor < 1:
            raise ValueError(f"search.label_floor must be in [0, 1), got {self.label_floor}.")
        if self.num_images < 1 or self.rounds < 0:
            raise ValueError(
                "search.num_images must be at least 1 and search.rounds at least 0, got "
                f"{self.num_images} and {self.rounds}."
            )


AXES = tuple(f.name for f in fields(SearchConfig) if f.name in SEARCHED)
"""The searched numbers of a CRF in the order of the grid: the last one varies fastest."""


@dataclass(frozen=True)
class Setting:
    """A post-hoc CRF, or the network alone, and the bias of the labels in front of it.

    Attributes:
        crf: its numbers; None for the network alone.
        bias: how many times the bias's direction is taken from the network's logits.
    """

    crf: CrfConfig | None
    bias: float = 0.0


def evenly_spaced(num_images: int, count: int) -> list[int]:
    """Choose positions of `num_images` of `count` images; all of them if there are fewer."""
    chosen = np.linspace(0, count - 1, min(num_images, count)).round()
    return [int(index) for index in chosen]


def coarse_to_fine(
    config: SearchConfig,
    base: CrfConfig,
    score: Callable[[str, Sequence[Setting]], Sequence[float]],
    first: Sequence[Setting] = (),
) -> Setting:
    """Have the settings of a grid scored, then closer and closer neighbours of the best.

    What is proposed depends on the scores alone, so an interrupted search goes on by running
    again with the scores it had.

    Args:
        config: the grid.
        base: what every setting has beside the searched values.
        score: takes a stage's name and its settings, none twice in a search, and returns their
            values in that order; higher is better.
        first: scored before the grid, in a stage of its own, and refined if it is best.

    Returns:
        The setting with the highest value, the first of equal ones.
    """
    values: dict[Setting, float] = {}

    def add(stage: str, candidates: Sequence[Setting]) -> Setting:
        new = [c for c in dict.fromkeys(candidates) if c not in values]
        if new:
            values.update(zip(new, score(stage, new), strict=True))
        return max(values, key=values.__getitem__)

    if first:
        add("start", first)
    grid = product(*(getattr(config, name) for name in AXES))
    crfs = [replace(base, **dict(zip(AXES, point, strict=True))) for point in grid]
    best = add("coarse", [Setting(crf) for crf in crfs])
    best = add("bias", [replace(best, bias=bias) for bias in config.bias])
    for round_ in range(1, config.rounds + 1):
        best = add(f"fine {round_}", neighbours(best, config, 0.5**round_))
    return best


def neighbours(setting: Setting, config: SearchConfig, fraction: float) -> list[Setting]:
    """Move one searched value up or down by a fraction of its grid's smallest step."""
    assert setting.crf is not None
    moved = []
    for name in AXES:
        for value in beside(getattr(setting.crf, name), getattr(config, name), fraction):
            change: dict[str, Any] = {name: value}
            if value > 0:
                moved.append(replace(setting, crf=replace(setting.crf, **change)))
    moved += [replace(setting, bias=b) for b in beside(setting.bias, config.bias, fraction)]
    return moved


def beside(value: float, grid: Sequence[float], fraction: float) -> Sequence[float]:
    """Return the values on either side; none where the grid holds its value fixed."""
    if len(grid) < 2:
        return ()
    step = fraction * float(np.diff(sorted(grid)).min())
    return value - step, value + step
