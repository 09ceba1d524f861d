"""What every way to look for settings has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from models import CrfConfig

SEARCHED = ("theta_gamma", "spatial_weight", "theta_alpha", "theta_beta", "bilateral_weight")
"""Of a CrfConfig: widths in pixels of the full-resolution image and grey levels of 0..255."""

DIGITS = 4  # of a value that no grid holds: what a person would copy

Score = Callable[[str, Sequence[CrfConfig]], Sequence[float]]
"""Of a stage's name and its settings: their values, higher = better, in the same order."""


class Method(ABC):
    """A way to propose settings, told the score of each."""

    @abstractmethod
    def run(self, score: Score) -> None:
        """Have settings scored until there are enough.

        What is proposed depends on the scores alone: a search that was interrupted goes on by
        running again, with the scores it had.
        """
