"""Load finished runs into one model, which every table, page and figure is a view of.

A `Run` is one arm of one seed. A `Line` is the runs of one label and arm over the seeds: a row of
a table. A `Comparison` is the runs of one recipe, of one or more run folders.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.metrics import Bootstrap, SplitCounts, gains, harm_rate, score_named
from eval.metrics.bootstrap import interval_of
from eval.metrics.confusion import ratio
from eval.metrics.counts import Weights
from runtime.provenance import merged
from runtime.run_folder import ARMS, what_matters

Values = Mapping[str, Any]
Floats = npt.NDArray[np.float64]

AGAIN = "Delete result.json there and repeat the command with --resume to score again."

bootstrap_of = lru_cache(maxsize=8)(Bootstrap)
"""The same resamples for every run of N images, so that all differences are paired by image."""


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


@dataclass(frozen=True, eq=False)
class Estimate:
    """A score of a line, or the difference of two, as a share of one.

    Attributes:
        spread: its values, one for each seed.
        draw: gives (S, 1 + B), of each seed, of all images and of B resamples of them; None where
            the images' counts are missing.
    """

    spread: Spread
    draw: Callable[[], Floats | None]

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return self.spread.mean

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The ends between which 95 % of the resampled image sets lie; None without counts."""
        return None if self._drawn is None else _ends(self._drawn.mean(axis=0))

    @cached_property
    def wide_interval(self) -> tuple[float, float] | None:
        """The same where every resample draws seeds, too, with replacement; None for one seed.

        A bootstrap of two levels: what another training and other images would change. Of few
        seeds it is too narrow rather than too wide.
        """
        if self._drawn is None or len(self._drawn) < 2:
            return None
        seeds, resamples = len(self._drawn), self._drawn.shape[1]
        chosen = np.random.default_rng(0).integers(seeds, size=(seeds, resamples))
        chosen[:, 0] = np.arange(seeds)  # the seeds themselves
        return _ends(np.take_along_axis(self._drawn, chosen, axis=0).mean(axis=0))

    @cached_property
    def _drawn(self) -> Floats | None:
        return self.draw()

    @property
    def sure(self) -> bool:
        """Whether a difference can be claimed.

        The interval, over seeds and images where there are several seeds, must exclude zero, and
        all seeds but one at most must have the sign of the mean.
        """
        interval = self.wide_interval or self.interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return False
        agreeing = sum(value * self.value > 0 for value in self.spread.values)
        return agreeing >= max(1, len(self.spread.values) - 1)


def _ends(drawn: Floats) -> tuple[float, float] | None:
    found = interval_of(drawn)
    return None if found is None else (found.low, found.high)


@dataclass(frozen=True, eq=False)
class Run:
    """One arm of one seed.

    Attributes:
        arm: one of `ARMS`.
        seed: its seed.
        result: what its result.json holds: network_steps, wall_seconds, metrics, crf, search, ...
        label: of the table's row it belongs to; empty in a run folder, which holds one recipe.
        counts: of the scored images, None where they cannot be read.
        before: the same of its network without its CRF, None also for an arm without one.
        history: the lines of its metrics.jsonl.
        predictions: the folder of its masks of the report split.
    """

    arm: str
    seed: int
    result: Values
    label: str = ""
    counts: SplitCounts | None = None
    before: SplitCounts | None = None
    history: tuple[Values, ...] = ()
    predictions: Path = Path()
    _drawn: dict[Any, Floats] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def where(self) -> str:
        """Run folder and arm, for a `Lack`."""
        return f"{self.predictions.parents[1].name}/{self.name}"

    def score(self, name: str, within: str | None = None, split: str = "report") -> float | None:
        """Return one score, from the stored metrics or else from the counts; None without it.

        Args:
            name: see `eval.metrics.score_named`.
            within: the trimap's width in pixels, or a class.
            split: tune or report; counts are of one split.
        """
        if "metrics" in self.result:
            value = self.result["metrics"].get(split, {}).get(name)
            if within is not None and value is not None:
                value = value.get(within)
            return None if value is None else float(value)
        if self.counts is None:
            return None
        value = float(score_named(name, within)(self.counts, self.counts.all_once())[0])
        return None if math.isnan(value) else value

    def drawn(self, name: str, within: str | None) -> Floats:
        """Return (1 + B,): a score of all images and of every resample, computed once."""
        assert self.counts is not None
        if (name, within) not in self._drawn:
            values = bootstrap_of(len(self.counts)).values([self.counts], score_named(name, within))
            self._drawn[name, within] = values
        return self._drawn[name, within]


@dataclass(frozen=True, eq=False)
class Line:
    """The runs of one label and arm, one of each seed: a row of a table."""

    label: str
    arm: str
    runs: tuple[Run, ...]

    def at(self, seed: int) -> Run | None:
        """Return the run of a seed; a single run of `start` stands for every seed."""
        if self.arm == "start" and len(self.runs) == 1:
            return self.runs[0]
        return next((run for run in self.runs if run.seed == seed), None)

    def before(self) -> Line:
        """Return the networks of the runs without their CRFs, scored by their counts alone."""
        runs = (Run(r.arm, r.seed, {}, label=self.label, counts=r.before) for r in self.runs)
        return Line(self.label, f"{self.arm}, before its CRF", tuple(runs))

    def spread(self, name: str, within: str | None = None, split: str = "report") -> Spread | None:
        """Return a score over the seeds, None when no run has it."""
        return _spread(run.score(name, within, split) for run in self.runs)

    def estimate(
        self, name: str, within: str | None = None, split: str = "report"
    ) -> Estimate | None:
        """Return a score with its interval over the images, None when no run has it."""
        spread = self.spread(name, within, split)
        if spread is None:
            return None
        return Estimate(spread, lambda: _drawn_by_seed([self.runs], name, within)[0])

    def minus(
        self, base: Line, name: str, within: str | None = None, split: str = "report"
    ) -> Estimate | None:
        """Return a score minus that of another line, paired by seed and by image.

        Pairing removes what the seed does to both alike: they share the data order and, where one
        starts from the other, the network. None without a seed that has both scores, and for a
        line minus itself.
        """
        if base is self or (base.label, base.arm) == (self.label, self.arm):
            return None
        seeds = {run.seed for line in (self, base) for run in line.runs if line.arm != "start"}
        pairs = [
            (run, other)
            for seed in sorted(seeds or {run.seed for run in self.runs})
            if (run := self.at(seed)) is not None and (other := base.at(seed)) is not None
        ]
        scores = [(a.score(name, within, split), b.score(name, within, split)) for a, b in pairs]
        spread = _spread(None if a is None or b is None else a - b for a, b in scores)
        if spread is None:
            return None

        def draw() -> Floats | None:
            runs, others = _drawn_by_seed(list(zip(*pairs, strict=True)), name, within)
            return None if runs is None or others is None else runs - others

        return Estimate(spread, draw)

    def harm(self) -> Estimate | None:
        """Return the share of the images that the CRF makes worse than its own network."""
        counted = [
            (run.before, run.counts) for run in self.runs if run.before and run.counts is not None
        ]
        spread = _spread(harm_rate(before, after) for before, after in counted)
        if spread is None:
            return None

        def draw() -> Floats | None:
            if any(after.names != counted[0][1].names for _, after in counted):
                return None
            bootstrap = bootstrap_of(len(counted[0][1]))
            return np.stack([bootstrap.values([after], _harm_of(b)) for b, after in counted])

        return Estimate(spread, draw)


def lines(runs: Iterable[Run]) -> list[Line]:
    """Group runs by label and arm, in the order in which they come."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.label, run.arm), []).append(run)
    return [Line(label, arm, tuple(group)) for (label, arm), group in groups.items()]


def _spread(values: Iterable[float | None]) -> Spread | None:
    present = tuple(value for value in values if value is not None)
    return Spread(present) if present else None


def _drawn_by_seed(
    groups: Sequence[Sequence[Run]], name: str, within: str | None
) -> list[Floats | None]:
    """Stack the resamples of each group's runs, (S, 1 + B); None if not all share their images."""
    counts = [run.counts for group in groups for run in group]
    first = counts[0] if counts else None
    if first is None or any(one is None or one.names != first.names for one in counts):
        return [None] * len(groups)
    return [np.stack([run.drawn(name, within) for run in group]) for group in groups]


def _harm_of(before: SplitCounts) -> Callable[[SplitCounts, Weights], Floats]:
    """Return the harm rate as a score of the counts behind the CRF."""

    def harm(after: SplitCounts, weights: Weights) -> Floats:
        gained = gains(before, after)[1]
        return ratio(weights @ (gained < 0), weights @ ~np.isnan(gained))

    return harm


# A run folder, read tolerantly: what is missing or damaged is listed, the rest is used. Arms come
# from arms/*/result.json, so that a run that was stopped, or still goes on, can be read too.


@dataclass(frozen=True)
class Lack:
    """Something that a run folder does not have, in words.

    Attributes:
        where: the folder, or folder/arm.
        what: what is missing there, the beginning of a sentence.
        remedy: what to do about it, a sentence; may be empty.
    """

    where: str
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    Attributes:
        path: of the folder.
        recipe: name of the recipe.
        config: the content of config.json; empty where it cannot be read.
        invocations: that did work in the folder; see `runtime.provenance.merged`.
        classes: names, the position is the id.
        scored: ids whose scores are averaged.
        splits: how many images each split has, as far as that is known.
        runs: the finished arms.
        lacks: what the folder does not have.
    """

    path: Path
    recipe: str
    config: Values
    invocations: tuple[Values, ...]
    classes: tuple[str, ...]
    scored: tuple[int, ...]
    splits: Mapping[str, int]
    runs: tuple[Run, ...]
    lacks: tuple[Lack, ...] = ()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the config and of the arms, ascending."""
        return tuple(sorted({*self.config.get("seeds", ()), *(run.seed for run in self.runs)}))


def read_run(path: Path) -> RunRecord:
    """Read one run folder.

    Args:
        path: of the folder that `python -m train` wrote.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no run folder: neither a config.json nor arms.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder at {path}: expected one that `train` wrote.")
    if not (path / "config.json").is_file() and not (path / "arms").is_dir():
        raise ValueError(
            f"{path} is no run folder: expected a config.json or arms/ that `train` wrote. Give "
            "the folder of --out, such as runs/demo."
        )
    path = path.resolve()  # so that `.` has a name
    reader = _Reader(path)
    config = reader.values(
        path / "config.json", "It is shown alone: which recipe it is of is unknown."
    )
    invocations = reader.invocations()
    results = reader.values(
        path / "results.json", "The run is not finished: repeat its command with --resume to go on."
    )
    runs = tuple(
        run
        for arm in ARMS
        for folder in sorted((path / "arms").glob(f"{arm}-seed*"), key=_seed_of)
        if (run := reader.run(folder)) is not None
    )
    data = (results or {}).get("data") or _data_of(runs)
    return RunRecord(
        path,
        str((config or {}).get("recipe") or path.name),
        config or {},
        invocations,
        tuple(data["classes"]),
        tuple(data["scored"]),
        data["splits"],
        runs,
        tuple(reader.lacks),
    )


def of_results(results: Values) -> RunRecord:
    """Take a run from the content of its results.json alone."""
    return RunRecord(
        Path(results["name"]),
        results["recipe"],
        results["config"],
        ({**results, "seconds": results["wall_seconds"]},),
        tuple(results["data"]["classes"]),
        tuple(results["data"]["scored"]),
        results["data"]["splits"],
        tuple(Run(run["arm"], run["seed"], run) for run in results["runs"]),
    )


class _Reader:
    """Read the files of one folder, and collect what it lacks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lacks: list[Lack] = []

    def lack(self, folder: Path, what: str, remedy: str = "") -> None:
        arm = "" if folder == self.path else f"/{folder.name}"
        self.lacks.append(Lack(f"{self.path.name}{arm}", what, remedy))

    def json(self, path: Path, remedy: str) -> Any:
        """Return the content of a file; None, and a lack, where it cannot be read."""
        if not path.is_file():
            self.lack(path.parent, f"no {path.name}", remedy)
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            self.lack(path.parent, f"{path.name} is damaged: cut off, or no JSON", remedy)
            return None

    def values(self, path: Path, remedy: str) -> dict[str, Any] | None:
        value = self.json(path, remedy)
        if value is None or isinstance(value, dict):
            return value
        self.lack(path.parent, f"{path.name} holds no names and values", remedy)
        return None

    def invocations(self) -> tuple[Values, ...]:
        remedy = "Command, commit and machine are unknown."
        entries = self.json(self.path / "origin.json", remedy) or ()
        try:
            merged(entries)
        except (KeyError, TypeError):
            self.lack(self.path, "origin.json lacks what made the run", remedy)
            return ()
        return tuple(entries)

    def run(self, folder: Path) -> Run | None:
        """Return one arm; None where it is not finished."""
        remedy = "Repeat the command with --resume to finish this arm."
        result = self.values(folder / "result.json", remedy)
        if result is None:
            return None
        keys = ("arm", "seed", "network_steps", "wall_seconds", "metrics", "crf", "search")
        absent = [key for key in keys if key not in result]
        if absent or result["arm"] not in ARMS or "report" not in result["metrics"]:
            words = ", ".join(absent) or "the scores of the report split"
            self.lack(folder, f"result.json lacks {words}", AGAIN)
            return None
        counts = self.counts(folder / "counts-report.npz", "no intervals and no calibration")
        before = None
        if result["crf"] is not None:
            without = "no harm rate, no gain by image"
            before = self.counts(folder / "counts-report-before-crf.npz", without)
        if counts is not None and before is not None and counts.names != before.names:
            words = "counts-report-before-crf.npz is of other images than counts-report.npz"
            self.lack(folder, words, AGAIN)
            before = None
        return Run(
            result["arm"],
            int(result["seed"]),
            result,
            counts=counts,
            before=before,
            history=self.history(folder / "metrics.jsonl"),
            predictions=self.path / "predictions" / folder.name,
        )

    def counts(self, path: Path, without: str) -> SplitCounts | None:
        if not path.is_file():
            self.lack(path.parent, f"no {path.name}: {without}", AGAIN)
            return None
        try:
            return SplitCounts.load(path)
        except (ValueError, OSError):
            self.lack(path.parent, f"{path.name} is damaged: {without}", AGAIN)
            return None

    def history(self, path: Path) -> tuple[Values, ...]:
        """Return the lines of metrics.jsonl that are whole."""
        if not path.is_file():
            self.lack(path.parent, "no metrics.jsonl: no energies, no curves of training")
            return ()
        whole, cut = [], []
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                whole.append(value)
            else:
                cut.append(str(number))
        if cut:
            words = f"metrics.jsonl is damaged in line {', '.join(cut)}, which is left out"
            self.lack(path.parent, words)
        return tuple(whole)


def _seed_of(folder: Path) -> tuple[int, str]:
    digits = folder.name.rpartition("-seed")[2]
    return (int(digits) if digits.isdigit() else -1, folder.name)


def _data_of(runs: Sequence[Run]) -> Values:
    """Return classes and images of a run without results.json, from what was counted."""
    for run in runs:
        counts = run.counts or run.before
        if counts is not None:
            splits = {"report": len(counts)}
            return {"classes": counts.classes, "scored": counts.scored, "splits": splits}
    for run in runs:
        report = run.result["metrics"]["report"]
        names = tuple(report.get("iou_per_class", ()))
        splits = {"report": len(report.get("images", ()))}
        return {"classes": names, "scored": range(len(names)), "splits": splits}
    return {"classes": (), "scored": (), "splits": {}}


# Run folders of one recipe as one comparison. Folders that differ in nothing but what changes no
# arm (`what_matters`) are more seeds of one comparison; others are comparisons of their own.


class Comparison:
    """The arms of one recipe over all seeds of one or more run folders.

    Args:
        records: at least one, all of the same recipe and data.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        first = records[0]
        self.records = tuple(records)
        self.name = ", ".join(dict.fromkeys(record.name for record in records))
        self.recipe = first.recipe
        self.config = first.config
        self.classes = next((r.classes for r in records if r.classes), ())
        self.scored = next((r.scored for r in records if r.classes), ())
        self.splits: Mapping[str, int] = max((r.splits for r in records), key=len)
        self.seeds = tuple(sorted({seed for record in records for seed in record.seeds}))
        self.lacks: list[Lack] = [lack for record in records for lack in record.lacks]
        self.provenance = merged([entry for r in records for entry in r.invocations])
        self.runs = self._distinct()
        self._lines = {line.arm: line for line in lines(self.runs)}

    def __repr__(self) -> str:
        return f"Comparison({self.name!r}, runs={len(self.runs)})"

    @property
    def network_steps(self) -> int:
        """The most that an arm has taken from start."""
        steps = (int(run.result["network_steps"]) for run in self.runs if run.arm != "start")
        return max(steps, default=0)

    @property
    def trimap_widths(self) -> list[int]:
        """The band widths that were scored on the report split, in pixels, ascending."""
        scored = [run.result["metrics"].get("report", {}) for run in self.runs]
        return sorted({int(w) for report in scored for w in report.get("trimap_miou", {})})

    def line(self, arm: str) -> Line:
        """Return the runs of an arm by seed, perhaps none."""
        return self._lines.get(arm, Line("", arm, ()))

    def of(self, arm: str) -> tuple[Run, ...]:
        """Return the runs of an arm, by seed."""
        return self.line(arm).runs

    def find(self, arm: str, seed: int) -> Run | None:
        """Return the run of an arm and seed; `start` has one for every seed."""
        return self.line(arm).at(seed)

    def missing(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return the arms that lack runs, each with the seeds it lacks."""
        lacking = [
            (arm, tuple(seed for seed in self.seeds if self.find(arm, seed) is None))
            for arm in ARMS
        ]
        return [(arm, seeds) for arm, seeds in lacking if seeds]

    def estimate(self, arm: str, name: str, within: str | None = None) -> Estimate | None:
        """Return a score of an arm, see `Line.estimate`."""
        return self.line(arm).estimate(name, within)

    def difference(
        self, arm: str, baseline: str, name: str, within: str | None = None
    ) -> Estimate | None:
        """Return a score of an arm minus that of another, see `Line.minus`."""
        return self.line(arm).minus(self.line(baseline), name, within)

    def harm(self, arm: str) -> Estimate | None:
        """Return the share of the images that the arm's CRF makes worse than its own network."""
        return self.line(arm).harm()

    def _distinct(self) -> tuple[Run, ...]:
        """Take every arm of every seed once; of two, the one of the first folder."""
        taken: dict[tuple[str, int], tuple[RunRecord, Run]] = {}
        for record in self.records:
            for run in record.runs:
                first, known = taken.setdefault((run.arm, run.seed), (record, run))
                if known.result["metrics"] != run.result["metrics"]:
                    words = f"also in {first.name}, with other scores: those of {first.name}"
                    self.lacks.append(Lack(f"{record.name}/{run.name}", f"{words} are shown"))
        return tuple(sorted((run for _, run in taken.values()), key=lambda run: run.seed))


def comparisons(records: Sequence[RunRecord]) -> list[Comparison]:
    """Group run folders by recipe and data, in the order in which they come."""
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
