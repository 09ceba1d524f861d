"""Every method finds the maximum of a surface that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from eval.tuning.bench import LEARNT
from eval.tuning.gradient import Gradient, GradientConfig
from eval.tuning.grid import Grid, SearchConfig, evenly_spaced
from eval.tuning.method import SEARCHED
from eval.tuning.options import GRIDS
from eval.tuning.sobol import Sobol, SobolConfig
from models import CrfConfig

BASE = CrfConfig(kernel_weights="scalar", compatibility="potts")
PEAK = {"theta_alpha": 48.0, "theta_beta": 4.2, "bilateral_weight": 5.0}


def height(setting: CrfConfig) -> float:
    """A hill in the logarithms of the bilateral values; narrow in theta_beta."""
    return -sum(
        steepness * math.log(getattr(setting, name) / peak) ** 2
        for (name, peak), steepness in zip(PEAK.items(), (1.0, 4.0, 1.0), strict=True)
    )


class Hill:
    """A score that remembers what it was asked."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.seen: dict[CrfConfig, float] = {}

    def __call__(self, stage: str, settings: Sequence[CrfConfig]) -> list[float]:
        assert not set(settings) & set(self.seen)  # nothing twice
        self.stages.append((stage, len(settings)))
        self.seen |= {s: height(s) for s in settings}
        return [self.seen[s] for s in settings]

    def best(self) -> CrfConfig:
        return max(self.seen, key=self.seen.__getitem__)


def test_the_grid_closes_in_on_the_maximum() -> None:
    config = SearchConfig(
        theta_alpha=(30.0, 60.0, 90.0),
        theta_beta=(3.0, 6.0),
        bilateral_weight=(3.0, 6.0),
        rounds=4,
    )
    hill = Hill()
    Grid(config, BASE).run(hill)
    # Steps of the grid are 30, 3 and 3, and a round moves one value: a quarter of each is left.
    assert hill.best().theta_alpha == pytest.approx(48, abs=30 / 4)
    assert hill.best().theta_beta == pytest.approx(4.2, abs=3 / 4)
    assert hill.best().bilateral_weight == pytest.approx(5.0, abs=3 / 4)
    assert hill.stages[0] == ("coarse", 12)
    assert [stage for stage, _ in hill.stages[1:]] == [f"fine {k}" for k in (1, 2, 3, 4)]


def test_a_setting_given_first_is_refined_where_it_is_best() -> None:
    first = replace(BASE, **PEAK)  # type: ignore[arg-type]
    config = SearchConfig(theta_alpha=(10.0, 20.0), theta_beta=(9.0, 10.0), rounds=1)
    hill = Hill()
    Grid(config, BASE, (first,)).run(hill)
    assert hill.stages[0] == ("start", 1)
    assert hill.best() == first
    assert any(s.theta_alpha == 53.0 for s in hill.seen)  # half a step from the first


def test_the_default_grid_tries_sixty_settings() -> None:
    hill = Hill()
    Grid(GRIDS["default"], BASE).run(hill)
    assert len(hill.seen) == 60


def test_the_grids_of_the_papers_have_their_ranges() -> None:
    counts = {name: math.prod(len(getattr(g, n)) for n in SEARCHED) for name, g in GRIDS.items()}
    assert counts == {"default": 48, "deeplab_v1": 6 * 8 * 6, "deeplab_v2": 8 * 4 * 4}
    for name in ("deeplab_v1", "deeplab_v2"):
        assert (GRIDS[name].theta_gamma, GRIDS[name].spatial_weight) == ((3.0,), (3.0,))


def test_images_are_spread_over_the_split() -> None:
    assert evenly_spaced(3, 11) == [0, 5, 10]
    assert evenly_spaced(20, 3) == [0, 1, 2]


def test_sobol_and_the_simplex_find_the_maximum() -> None:
    config = SobolConfig(points=32, local=60, spatial_weight=(3.0,))
    hill = Hill()
    Sobol(config, BASE).run(hill)
    for name, peak in PEAK.items():
        # The simplex stops at 2 per cent of each value, see TOLERANCE, and slides a little along
        # the flat top.
        assert getattr(hill.best(), name) == pytest.approx(peak, rel=0.06)
    assert hill.stages[0] == ("sobol", 32)
    assert len(hill.seen) <= 32 + 60


def test_sobol_stays_in_its_ranges_and_its_budget() -> None:
    config = SobolConfig(points=8, local=5, theta_alpha=(100.0, 160.0), theta_gamma=(2.0,))
    hill = Hill()
    Sobol(config, BASE, first=(BASE,)).run(hill)
    assert hill.stages[0] == ("start", 1)
    assert len(hill.seen) <= 1 + 8 + 5
    drawn = [s for s in hill.seen if s != BASE]
    assert all(100 <= s.theta_alpha <= 160 and s.theta_gamma == 2.0 for s in drawn)


def test_sobol_draws_by_its_seed() -> None:
    def points(seed: int) -> list[CrfConfig]:
        hill = Hill()
        Sobol(SobolConfig(points=4, local=0), BASE, seed).run(hill)
        return list(hill.seen)

    assert points(1) == points(1)
    assert points(1) != points(2)


class Steps:
    """A journal in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def append(self, line: dict[str, object]) -> None:
        self.lines.append(line)


def slope(batch: Sequence[int], setting: CrfConfig) -> tuple[float, list[float]]:
    """Of minus the hill, and of a scale that is best at 0.5."""
    targets = {**PEAK, "output_scale": 0.5}
    off = {n: math.log(getattr(setting, n) / t) for n, t in targets.items()}
    return sum(o**2 for o in off.values()), [2 * off.get(name, 0.0) for name in LEARNT]


def test_the_gradient_goes_down_to_the_minimum_and_scores_points_of_its_way() -> None:
    hill = Hill()
    config = GradientConfig(steps=150, points=4)
    Gradient(config, BASE, range(7), slope, Steps()).run(hill)
    for name, peak in PEAK.items():
        assert getattr(hill.best(), name) == pytest.approx(peak, rel=0.02)
    assert hill.stages == [("start", 1), ("gradient", 4)]
    assert {s.output_scale for s in hill.seen} == {1.0}


def test_steps_in_the_journal_are_not_taken_again() -> None:
    config = GradientConfig(steps=6, batch_size=2)
    whole, part = Steps(), Steps()
    way = Gradient(config, BASE, range(7), slope, whole).descend()
    part.lines = whole.lines[:4]
    asked = []

    def counting(batch: Sequence[int], setting: CrfConfig) -> tuple[float, list[float]]:
        asked.append(batch)
        return slope(batch, setting)

    assert Gradient(config, BASE, range(7), counting, part).descend() == way
    assert len(asked) == 2
    assert part.lines == whole.lines


def test_every_image_serves_once_before_any_twice() -> None:
    steps = Steps()
    Gradient(GradientConfig(steps=4, batch_size=2), BASE, [3, 5, 7, 9], slope, steps).descend()
    images = [line["images"] for line in steps.lines]
    assert sorted(images[0] + images[1]) == [3, 5, 7, 9]  # type: ignore[operator]
    assert sorted(images[2] + images[3]) == [3, 5, 7, 9]  # type: ignore[operator]


def test_a_journal_of_other_steps_is_refused() -> None:
    steps = Steps()
    config = GradientConfig(steps=3)
    Gradient(config, BASE, range(7), slope, steps, seed=0).descend()
    with pytest.raises(ValueError, match="line 1 is a step from another place"):
        Gradient(config, BASE, range(7), slope, steps, seed=1).descend()


def test_a_gradient_that_is_not_finite_stops_in_words() -> None:
    def broken(batch: Sequence[int], setting: CrfConfig) -> tuple[float, list[float]]:
        return math.nan, [0.0] * len(LEARNT)

    with pytest.raises(ValueError, match=r"step 1 is not finite at .*smaller --descent.lr"):
        Gradient(GradientConfig(), BASE, range(3), broken, Steps()).descend()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SobolConfig(points=12), "power of two .*got 12"),
        (lambda: SobolConfig(theta_alpha=(5.0, 2.0)), "sobol.theta_alpha must be LOW HIGH"),
        (lambda: SobolConfig(theta_beta=(0.0, 2.0)), "sobol.theta_beta must be LOW HIGH"),
        (
            lambda: SobolConfig(**dict.fromkeys(SEARCHED, (1.0,))),  # type: ignore[arg-type]
            "every value is held fixed",
        ),
        (lambda: GradientConfig(steps=0), "descent.steps must be at least 1"),
        (lambda: GradientConfig(lr=0.0), "descent.lr must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
