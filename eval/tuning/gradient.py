"""The likelihood's gradient through the unrolled CRF, with the network frozen.

Learnt are the logarithms of both weights, all three widths and the output scale, by Adam on
mini-batches of images. What is minimised is

    NLL = -mean_i log softmax(s z_i)[y_i]

and not the mean IoU, which has no gradient. The two part ways: marginals of mean field are far
too sure, so where they are wrong they cost much, and the likelihood of a plain CRF always asks for
smaller weights, at last for none. The scale s takes that part; it leaves the argmax
alone. Even so a few confident errors weigh more than many gained pixels at the borders, and
the minimum of NLL is often a weaker CRF than the one with the best mean IoU: every point is scored
by the objective like any other setting, and the best one counts, not the last. See "What
joint training needs" in the README.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import torch

from eval.tuning.bench import LEARNT
from eval.tuning.method import DIGITS, SEARCHED, Method, Score
from models import CrfConfig

Slope = Callable[[Sequence[int], CrfConfig], tuple[float, list[float]]]
"""Of images and a setting: mean NLL, and its gradient by the logarithms of `LEARNT`."""

LOWEST = {"theta_gamma": 0.5, "theta_alpha": 2.0, "theta_beta": 1.0}
HIGHEST = 1000.0


@dataclass(frozen=True)
class GradientConfig:
    """The descent.

    Attributes:
        steps: of Adam; the rate falls linearly to a tenth.
        batch_size: images in a step.
        lr: of the logarithms: a first step changes every value by about this share.
        points: of the trajectory that are scored after the start, the last one included.
    """

    steps: int = 60
    batch_size: int = 5
    lr: float = 0.1
    points: int = 5

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"descent.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"descent.lr must be above 0, got {self.lr}.")


def scored_point(setting: CrfConfig) -> CrfConfig:
    """A setting as it is scored: the scale changes no mask, and every score finds its own."""
    values: dict[str, Any] = {
        name: float(f"{getattr(setting, name):.{DIGITS}g}") for name in SEARCHED
    }
    return replace(setting, **values, output_scale=1.0)


class Steps(Protocol):
    """A journal of the steps that were taken, see `eval.tuning.folder.Journal`."""

    lines: list[dict[str, Any]]

    def append(self, line: dict[str, Any], /) -> None:
        """Keep a step."""


@final
@dataclass(frozen=True)
class Gradient(Method):
    """Adam from a start, with points of its way scored.

    Attributes:
        config: of the descent.
        start: the first setting.
        indices: of the images.
        slope: the gradient.
        steps: where they are kept; those it holds are not computed again.
        seed: of the mini-batches.
        tick: called after every step.
    """

    config: GradientConfig
    start: CrfConfig
    indices: Sequence[int]
    slope: Slope
    steps: Steps
    seed: int = 0
    tick: Callable[[int], None] = lambda step: None

    def run(self, score: Score) -> None:
        """As `Method.run`.

        Raises:
            ValueError: the gradient is not finite, or the journal is that of other steps.
        """
        way = self.descend()
        marks = np.linspace(0, len(way) - 1, self.config.points + 1).round().astype(int)
        points = dict.fromkeys(scored_point(way[k]) for k in marks)
        first, *later = points
        score("start", [first])
        if later:
            score("gradient", later)

    def descend(self) -> list[CrfConfig]:
        """Every setting of the way, the start first."""
        config = self.config
        logs = torch.tensor([math.log(getattr(self.start, name)) for name in LEARNT]).double()
        low = torch.tensor([math.log(LOWEST.get(name, 1e-3)) for name in LEARNT]).double()
        logs.grad = torch.zeros_like(logs)
        optimizer = torch.optim.Adam([logs], lr=config.lr)
        rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=config.steps)
        way = [self.start]
        for step, batch in enumerate(self._batches()):
            grad = self._slope(step, batch, way[-1])
            logs.grad.copy_(torch.tensor(grad).double())
            optimizer.step()
            rate.step()
            logs.clamp_(low, torch.full_like(low, math.log(HIGHEST)))
            values: dict[str, Any] = dict(zip(LEARNT, logs.exp().tolist(), strict=True))
            way.append(replace(self.start, **values))
            self.tick(step + 1)
        return way

    def _slope(self, step: int, batch: list[int], setting: CrfConfig) -> list[float]:
        """The gradient of a step, from the journal where it is there."""
        at = {name: getattr(setting, name) for name in LEARNT}
        if step < len(self.steps.lines):
            kept = self.steps.lines[step]
            if kept["images"] != batch or kept["setting"] != at:
                raise ValueError(
                    f"gradient.jsonl, line {step + 1} is a step from another place: delete the "
                    "folder, or give another --out."
                )
            return kept["gradient"]  # type: ignore[no-any-return]
        nll, grad = self.slope(batch, setting)
        if not all(map(math.isfinite, (nll, *grad))):
            raise ValueError(
                f"the gradient of step {step + 1} is not finite at {at}: give a smaller "
                "--descent.lr, or another start by --preset."
            )
        self.steps.append({"images": batch, "setting": at, "nll": nll, "gradient": grad})
        return grad

    def _batches(self) -> list[list[int]]:
        """Images of every step: each once before any twice."""
        generator = np.random.default_rng(self.seed)
        wanted = self.config.steps * self.config.batch_size
        drawn: list[int] = []
        while len(drawn) < wanted:
            drawn += generator.permutation(np.asarray(self.indices)).tolist()
        size = self.config.batch_size
        return [drawn[k * size : (k + 1) * size] for k in range(self.config.steps)]
