"""Coarse to fine on a grid, as DeepLab did.

Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs", ICLR 2015, section 5.2: on a hundred validation images, the spatial
kernel fixed, a coarse grid over the bilateral weight and widths, then a finer search
around the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import final

import numpy as np

from eval.tuning.method import SEARCHED, Method, Score
from models import CrfConfig


@dataclass(frozen=True)
class SearchConfig:
    """The grid of the coarse stage, and how it is refined.

    Widths in pixels of the full-resolution image and grey levels of 0..255.

    Attributes:
        num_images: of the tune split, evenly spaced; all of them if there are fewer.
        theta_gamma, spatial_weight: of the spatial kernel; DeepLab fixes both.
        theta_alpha, theta_beta, bilateral_weight: of the bilateral kernel.
        calibrate: end with the temperature of the CRF's output, see `calibrate`.
        rounds: of the fine stage. The first moves one value at a time by half a step of
            the grid both ways, each further one by half of the step before.
    """

    num_images: int = 100
    theta_gamma: tuple[float, ...] = (3.0,)
    spatial_weight: tuple[float, ...] = (3.0,)
    theta_alpha: tuple[float, ...] = (30.0, 60.0, 100.0)
    theta_beta: tuple[float, ...] = (3.0, 6.0)
    bilateral_weight: tuple[float, ...] = (3.0, 6.0)
    rounds: int = 1
    calibrate: bool = True

    def __post_init__(self) -> None:
        for name in SEARCHED:
            values = getattr(self, name)
            if not values or not all(value > 0 for value in values):
                raise ValueError(f"search.{name} must hold values above 0, got {values}.")
        if self.num_images < 1 or self.rounds < 0:
            raise ValueError(
                "search.num_images must be at least 1 and search.rounds at least 0, got "
                f"{self.num_images} and {self.rounds}."
            )


def evenly_spaced(num_images: int, count: int) -> list[int]:
    """Positions of `num_images` of `count` images; all of them if there are fewer."""
    chosen = np.linspace(0, count - 1, min(num_images, count)).round()
    return [int(index) for index in chosen]


@final
@dataclass(frozen=True)
class Grid(Method):
    """Every setting of a grid, then the neighbours of the best, closer in each round.

    Attributes:
        config: the grid.
        base: what every setting has beside the searched values.
        first: scored before the grid, in a stage of its own, and refined if it is best.
    """

    config: SearchConfig
    base: CrfConfig
    first: tuple[CrfConfig, ...] = ()

    def run(self, score: Score) -> None:
        """As `Method.run`."""
        scored: dict[CrfConfig, float] = {}

        def add(stage: str, candidates: Sequence[CrfConfig]) -> None:
            new = [c for c in dict.fromkeys(candidates) if c not in scored]
            if new:
                scored.update(zip(new, score(stage, new), strict=True))

        grids = {name: getattr(self.config, name) for name in SEARCHED}
        add("start", self.first)
        add(
            "coarse",
            [
                replace(self.base, **dict(zip(grids, values, strict=True)))
                for values in product(*grids.values())
            ],
        )
        for round_ in range(self.config.rounds):
            best = max(scored, key=scored.__getitem__)
            add(f"fine {round_ + 1}", neighbours(best, grids, 0.5 ** (round_ + 1)))


def neighbours(
    setting: CrfConfig, grids: dict[str, tuple[float, ...]], fraction: float
) -> list[CrfConfig]:
    """The settings one move away: a searched value up or down by a fraction of its grid's step."""
    moved = []
    for name, grid in grids.items():
        if len(grid) < 2:
            continue  # held fixed
        value = getattr(setting, name)
        step = fraction * float(np.diff(sorted(grid)).min())
        candidates = (value - step, value + step)
        moved += [replace(setting, **{name: v}) for v in candidates if v > 0]
    return moved
