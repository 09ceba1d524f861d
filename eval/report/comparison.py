"""Run folders of one recipe as one comparison, and its numbers with their intervals.

Folders that differ in nothing but what changes no arm (`what_matters`) are more seeds of one
comparison; others are comparisons of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.metrics import Bootstrap, SplitCounts, gains, harm_rate, score_named
from eval.metrics.bootstrap import interval_of
from eval.metrics.confusion import ratio
from eval.metrics.counts import Weights
from eval.metrics.scores import Score
from eval.report.reading import ArmRun, Lack, RunRecord
from eval.summary import Spread, over_seeds, paired_difference, score
from runtime.provenance import merged
from runtime.run_folder import what_matters

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number of an arm, or a difference of two.

    Attributes:
        spread: its values, one for each seed.
        interval: between which 95 % of the resampled image sets lie; None without counts.
    """

    spread: Spread
    interval: tuple[float, float] | None

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return self.spread.mean

    @property
    def sure(self) -> bool:
        """Whether, for a difference, the interval excludes zero."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


class Comparison:
    """The arms of one recipe over all seeds of one or more run folders.

    Args:
        records: at least one, all of the same recipe and data.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        first = records[0]
        self.records = tuple(records)
        self.name = ", ".join(dict.fromkeys(record.name for record in records))
        self.classes = next((r.classes for r in records if r.classes), ())
        self.scored = next((r.scored for r in records if r.classes), ())
        self.splits: Mapping[str, int] = max((r.splits for r in records), key=len)
        self.recipe = first.recipe
        self.seeds = tuple(sorted({seed for record in records for seed in record.seeds}))
        self.lacks: list[Lack] = [lack for record in records for lack in record.lacks]
        self.runs = self._distinct()
        self._drawn: dict[tuple[str, ...], Floats] = {}

    def __repr__(self) -> str:
        return f"Comparison({self.name!r}, runs={len(self.runs)})"

    @cached_property
    def results(self) -> dict[str, Any]:
        """In the form of a results.json, for `eval.summary`, `eval.table` and `eval.wording`."""
        steps = {int(run.result["network_steps"]) for run in self.runs if run.arm != "start"}
        return {
            "name": self.name,
            "recipe": self.recipe,
            **merged([entry for record in self.records for entry in record.invocations]),
            "config": self.records[0].config,
            "data": {
                "classes": list(self.classes),
                "scored": list(self.scored),
                "splits": dict(self.splits),
            },
            "seeds": list(self.seeds),
            "network_steps": max(steps, default=0),
            "runs": [run.result for run in self.runs],
        }

    def of(self, arm: str) -> list[ArmRun]:
        """The runs of an arm, by seed."""
        return [run for run in self.runs if run.arm == arm]

    def find(self, arm: str, seed: int) -> ArmRun | None:
        """The run of an arm and seed; `start` has one for every seed."""
        runs = [run for run in self.of(arm) if arm == "start" or run.seed == seed]
        return runs[0] if runs else None

    def estimate(self, arm: str, name: str, within: str | None = None) -> Estimate | None:
        """A score of an arm, None where no run has it.

        Args:
            arm: its name.
            name: of the score, see `eval.metrics.score_named`.
            within: the trimap's width, or a class.
        """
        spread = over_seeds(self.results, arm, score(name, within))
        if spread is None:
            return None
        values = self._values(self.of(arm), name, within)
        return Estimate(spread, None if values is None else _ends(values))

    def difference(
        self, arm: str, baseline: str, name: str, within: str | None = None
    ) -> Estimate | None:
        """A score of an arm minus that of another, paired by seed and by image."""
        spread = paired_difference(self.results, arm, baseline, score(name, within))
        if spread is None:
            return None
        pairs = [(self.find(arm, seed), self.find(baseline, seed)) for seed in self.seeds]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        values = self._values([a for a, _ in both], name, within)
        others = self._values([b for _, b in both], name, within)
        if values is None or others is None:
            return Estimate(spread, None)
        return Estimate(spread, _ends(values - others))

    def harm(self, arm: str) -> Estimate | None:
        """Share of the images that the arm's CRF makes worse than its own network."""
        behind = [(run.before, run.counts) for run in self.of(arm)]
        counted = [(b, c) for b, c in behind if b is not None and c is not None]
        rates = [rate for b, c in counted if (rate := harm_rate(b, c)) is not None]
        if not rates:
            return None
        spread = Spread(tuple(rates))
        if self.bootstrap is None or any(c.names != self.images for _, c in counted):
            return Estimate(spread, None)
        drawn = [self.bootstrap.values([c], _harm_of(b)) for b, c in counted]
        return Estimate(spread, _ends(np.asarray(np.mean(drawn, axis=0))))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The images that the first counts are of."""
        return next((run.counts.names for run in self.runs if run.counts is not None), ())

    @cached_property
    def bootstrap(self) -> Bootstrap | None:
        """One set of resamples for every number; None without counts."""
        return Bootstrap(len(self.images)) if self.images else None

    def _values(self, runs: Sequence[ArmRun], name: str, within: str | None) -> Floats | None:
        """The mean over runs of a score of all images and every resample; None without counts."""
        counts = [run.counts for run in runs]
        if not runs or self.bootstrap is None:
            return None
        total: list[Floats] = []
        for run, of_run in zip(runs, counts, strict=True):
            if of_run is None or of_run.names != self.images:
                return None
            key = (run.name, name, within or "")
            if key not in self._drawn:
                values = self.bootstrap.values([of_run], score_named(name, within))
                self._drawn[key] = values
            total.append(self._drawn[key])
        return np.asarray(np.mean(total, axis=0))

    def _distinct(self) -> tuple[ArmRun, ...]:
        """Every arm of every seed once; of two, the one of the first folder."""
        found: dict[tuple[str, int], tuple[RunRecord, ArmRun]] = {}
        for record in self.records:
            for run in record.runs:
                key = (run.arm, run.seed)
                if key not in found:
                    found[key] = (record, run)
                    continue
                first, kept = found[key]
                if kept.result["metrics"] != run.result["metrics"]:
                    self.lacks.append(
                        Lack(
                            f"{record.name}/{run.name}",
                            f"also in {first.name}, with other scores: those of {first.name} "
                            "are shown",
                        )
                    )
        ordered = sorted(found.values(), key=lambda entry: entry[1].seed)
        return tuple(run for _, run in ordered)


def comparisons(records: Sequence[RunRecord]) -> list[Comparison]:
    """The records by recipe and data, in the order in which they come."""
    groups: list[list[RunRecord]] = []
    for record in records:
        for group in groups:
            known = bool(record.config) and bool(group[0].config)
            if known and what_matters(group[0].config) == what_matters(record.config):
                group.append(record)
                break
        else:
            groups.append([record])
    return [Comparison(group) for group in groups]


def _harm_of(before: SplitCounts) -> Score:
    """The harm rate as a score of the counts behind the CRF."""

    def harm(after: SplitCounts, weights: Weights) -> Floats:
        gained = gains(before, after)[1]
        return ratio(weights @ (gained < 0), weights @ ~np.isnan(gained))

    return harm


def _ends(values: Floats) -> tuple[float, float] | None:
    interval = interval_of(values)
    return None if interval is None else (interval.low, interval.high)
