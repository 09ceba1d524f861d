"""The numbers of a comparison: one score per arm and seed, their spread, and paired differences.

`results` is the content of a comparison's results.json everywhere in this room. The tables and the
page take every number from here, so that they cannot disagree.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runtime.run_folder import ARMS

Split = Literal["tune", "report"]
Score = Callable[[Mapping[str, Any]], "float | None"]
"""Picks one number out of a run of results.json; None when the run has no such number."""


@dataclass(frozen=True)
class Spread:
    """A number's values over the seeds, at least one."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1), None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def low(self) -> float:
        """Smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest value."""
        return max(self.values)


def score(key: str, within: str | None = None, split: Split = "report") -> Score:
    """Names a number of the metrics: `score("miou")`, `score("trimap_miou", within="3")`."""

    def pick(run: Mapping[str, Any]) -> float | None:
        value = run["metrics"].get(split, {}).get(key)
        if within is not None and value is not None:
            value = value.get(within)
        return None if value is None else float(value)

    return pick


def find_run(results: Mapping[str, Any], arm: str, seed: int) -> Mapping[str, Any] | None:
    """The run of an arm and seed, None when there is none. `start` has one run for every seed."""
    for run in results["runs"]:
        if run["arm"] == arm and (arm == "start" or run["seed"] == seed):
            found: Mapping[str, Any] = run
            return found
    return None


def runs_of(results: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    """The runs of an arm, in the order of results.json."""
    return [run for run in results["runs"] if run["arm"] == arm]


def missing_runs(results: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Arms that lack runs, each with the seeds it lacks."""
    lacking = [
        (arm, tuple(seed for seed in results["seeds"] if find_run(results, arm, seed) is None))
        for arm in ARMS
    ]
    return [(arm, seeds) for arm, seeds in lacking if seeds]


def over_seeds(results: Mapping[str, Any], arm: str, pick: Score) -> Spread | None:
    """A score of an arm over its seeds, None when no run has it."""
    return _spread([pick(run) for run in runs_of(results, arm)])


def paired_difference(
    results: Mapping[str, Any], arm: str, baseline: str, pick: Score
) -> Spread | None:
    """The score of an arm minus that of another arm of the same seed, over the seeds.

    Pairing removes what the seed does to both arms alike: they share the data order and, where one
    starts from the other, the network. The one run of `start` stands against every seed.

    Returns:
        The differences of the seeds where both arms have the score, None when there is no such
        seed or when an arm is compared with itself.
    """
    if arm == baseline:
        return None
    differences: list[float | None] = []
    for seed in results["seeds"]:
        run, other = find_run(results, arm, seed), find_run(results, baseline, seed)
        if run is not None and other is not None:
            value, reference = pick(run), pick(other)
            if value is not None and reference is not None:
                differences.append(value - reference)
    return _spread(differences)


def trimap_widths(results: Mapping[str, Any]) -> list[int]:
    """The band widths that were scored on the report split, in pixels, ascending."""
    widths = {
        int(width)
        for run in results["runs"]
        for width in run["metrics"].get("report", {}).get("trimap_miou", {})
    }
    return sorted(widths)


def _spread(values: Sequence[float | None]) -> Spread | None:
    present = tuple(value for value in values if value is not None)
    return Spread(present) if present else None
