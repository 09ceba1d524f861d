"""Points spread evenly over ranges, then a local search from the best of them.

Sobol points (scipy.stats.qmc, scrambled) are even in the logarithm of every value; the simplex of
Nelder and Mead (scipy.optimize) goes on from the best, within the ranges and on the same axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import qmc

from eval.tuning.method import DIGITS, SEARCHED, Method, Score
from models import CrfConfig

TOLERANCE = 0.02  # of the logarithms: 2 per cent of a width or weight decide nothing
FIRST_STEP = 0.25  # of the simplex, a factor of exp(0.25)


@dataclass(frozen=True)
class SobolConfig:
    """The ranges, and how many settings are tried. One number alone holds a value fixed.

    Attributes:
        points: of Sobol, a power of two.
        local: settings that the local search may try.
        theta_gamma, spatial_weight: range of the spatial kernel, pixels and a weight.
        theta_alpha, theta_beta: range of the bilateral kernel, pixels and grey levels.
        bilateral_weight: its range.
    """

    points: int = 32
    local: int = 28
    theta_gamma: tuple[float, ...] = (1.0,)
    spatial_weight: tuple[float, ...] = (1.0, 10.0)
    theta_alpha: tuple[float, ...] = (20.0, 160.0)
    theta_beta: tuple[float, ...] = (2.0, 12.0)
    bilateral_weight: tuple[float, ...] = (1.0, 15.0)

    def __post_init__(self) -> None:
        if self.points < 1 or self.points & (self.points - 1) or self.local < 0:
            raise ValueError(
                "sobol.points must be a power of two (the points are even only then) and "
                f"sobol.local at least 0, got {self.points} and {self.local}."
            )
        for name in SEARCHED:
            values = getattr(self, name)
            if not 1 <= len(values) <= 2 or values[0] <= 0 or values[0] > values[-1]:
                raise ValueError(
                    f"sobol.{name} must be LOW HIGH, or one value to hold it, all above 0, got "
                    f"{values}."
                )
        if not self.free():
            raise ValueError("sobol: every value is held fixed; give one of them LOW HIGH.")

    def free(self) -> list[str]:
        """The values that are searched."""
        return [n for n in SEARCHED if getattr(self, n)[0] < getattr(self, n)[-1]]


@final
@dataclass(frozen=True)
class Sobol(Method):
    """Sobol points, then Nelder and Mead from the best.

    Attributes:
        config: ranges and counts.
        base: what every setting has beside the searched values.
        seed: of the scrambling.
        first: scored before the points, in a stage of its own.
    """

    config: SobolConfig
    base: CrfConfig
    seed: int = 0
    first: tuple[CrfConfig, ...] = ()

    def run(self, score: Score) -> None:
        """As `Method.run`."""
        names = self.config.free()
        ranges = np.log([getattr(self.config, name) for name in names])
        scored: dict[CrfConfig, float] = {}

        def setting(logs: npt.NDArray[np.float64]) -> CrfConfig:
            inside = np.exp(logs.clip(ranges[:, 0], ranges[:, 1]))
            values: dict[str, Any] = {
                n: float(f"{v:.{DIGITS}g}") for n, v in zip(names, inside, strict=True)
            }
            return replace(self.base, **{**self._fixed(), **values})

        def add(stage: str, candidates: list[CrfConfig]) -> None:
            new = [c for c in dict.fromkeys(candidates) if c not in scored]
            if new:
                scored.update(zip(new, score(stage, new), strict=True))

        add("start", list(self.first))
        unit = qmc.Sobol(len(names), seed=np.random.default_rng(self.seed)).random(
            self.config.points
        )
        add("sobol", [setting(row) for row in qmc.scale(unit, ranges[:, 0], ranges[:, 1])])
        if self.config.local == 0:
            return
        best = max(scored, key=scored.__getitem__)
        start = np.log([getattr(best, name) for name in names]).clip(*ranges.T)
        budget = self.config.local

        def cost(logs: npt.NDArray[np.float64]) -> float:
            nonlocal budget
            found = setting(logs)
            if found not in scored:
                if budget == 0:
                    raise _Spent
                budget -= 1
                add("local", [found])
            return -scored[found]

        try:
            minimize(
                cost,
                start,
                method="Nelder-Mead",
                bounds=ranges,
                options={
                    "initial_simplex": _simplex(start, ranges),
                    "xatol": TOLERANCE,
                    "fatol": 0.0,
                    "maxiter": 1000,
                },
            )
        except _Spent:
            return

    def _fixed(self) -> dict[str, float]:
        """The values that are held."""
        free = self.config.free()
        return {n: getattr(self.config, n)[0] for n in SEARCHED if n not in free}


class _Spent(Exception):
    """The settings that may be tried are used up."""


def _simplex(
    start: npt.NDArray[np.float64], ranges: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The start and a step along every axis, away from the nearer end of its range."""
    away = np.where(start < ranges.mean(1), FIRST_STEP, -FIRST_STEP)
    return np.vstack([start, start + np.diag(away)]).clip(ranges[:, 0], ranges[:, 1])
