"""How closely a permutohedral lattice follows the Gaussian: two choices, as numbers.

"standard" is the lattice of Adams et al. (2010) as every dense CRF uses it. It is off by about a
tenth of the message's variation on photographs, for three reasons, in this order:

- the blur (1/2, 1, 1/2) is a flat-topped Gaussian, and the image's pixels are near each other,
  where that shows: three sampled taps on each side, still one pass for each direction, cure it;
- a cell is wide beside the Gaussian: with a wider blur the same Gaussian is a finer lattice;
- what would flow through vertices that no pixel touches is lost, the more the finer the lattice:
  vertices are inserted (`insert_neighbours`).

"fine" does all three. Each alone helps little or harms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

from crfrnn.checks import check_choice

LatticeAccuracyName = Literal["standard", "fine"]


@dataclass(frozen=True)
class LatticeAccuracy:
    """The numbers behind a name.

    Attributes:
        taps: the weights of a blur 0, 1, 2, ... steps away, the same on both sides.
        insertion: add the vertices through which the blurs would carry values.
        unit: what is brought to 1. "peak": the blurs' own centre, as in every published
            implementation. "integral": that of K over that of the Gaussian, so that K of a
            constant is the exact sum's without normalisation, too.
    """

    taps: tuple[float, ...]
    insertion: bool
    unit: Literal["peak", "integral"]

    @property
    def reach(self) -> int:
        """Steps on each side of a vertex that a blur sees."""
        return len(self.taps) - 1

    @property
    def sum(self) -> float:
        """What a blur multiplies a constant by."""
        return self.taps[0] + 2 * math.fsum(self.taps[1:])

    @property
    def scale(self) -> float:
        """Lattice units of d + 1 for a standard deviation of the features.

        Along any line through the lattice, blurs of variance s (in steps) have the variance
        s (d + 1)^2; the barycentric weights of splat and slice add (d + 1)^2 / 6 on average over
        the simplex. The square root of the sum of the two makes the whole a unit Gaussian: for
        (1/2, 1, 1/2) it is the sqrt(2/3) of Adams et al. (2010), section 3.1.
        """
        variance = 2 * math.fsum(k * k * tap for k, tap in enumerate(self.taps)) / self.sum
        return math.sqrt(variance + 1 / 6)

    def gain(self, dim: int) -> float:
        """What K is multiplied by so that its unit is that of the Gaussian, in R^dim."""
        if self.unit == "peak":
            # As the directions sum to zero, k steps along every one of them lead back.
            peak, *sides = (math.pow(tap, dim + 1) for tap in self.taps)
            return 1 / (peak + 2 * math.fsum(sides))
        # One vertex for each (d + 1)^(d - 1/2) of volume, which the scale shrinks.
        vertex_volume = 1 / (math.sqrt(dim + 1) * math.pow(self.scale, dim))
        return math.pow(2 * math.pi, dim / 2) / (math.pow(self.sum, dim + 1) * vertex_volume)


ACCURACIES: dict[LatticeAccuracyName, LatticeAccuracy] = {
    "standard": LatticeAccuracy(taps=(1.0, 0.5), insertion=False, unit="peak"),
    # The Gaussian of variance 1.1. On photographs at the published widths, less leaves dense
    # features (theta 80/13) no better than three times the standard's error, and more makes
    # sparse ones (67/3, 4/5) worse.
    "fine": LatticeAccuracy(
        taps=tuple(math.exp(-k * k / 2.2) for k in range(4)), insertion=True, unit="integral"
    ),
}


def named(accuracy: str) -> LatticeAccuracy:
    """The numbers of that name, which the operators take as a plain string."""
    check_choice("accuracy", accuracy, ACCURACIES)
    return ACCURACIES[cast(LatticeAccuracyName, accuracy)]
