"""How the lines of a study differ, paired by seed and image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval import tables
from eval.metrics import Bootstrap, Interval, SplitCounts, score_named
from eval.metrics.bootstrap import interval_of
from eval.metrics.confusion import Floats
from eval.results.lines import Line, Load, lines_of, part
from eval.results.store import Record, Study
from eval.score import Row

DIFFERENCES = (
    Row("mIoU", "miou"),
    Row("1 px", "trimap_miou", "1"),
    Row("3 px", "trimap_miou", "3"),
    Row("10 px", "trimap_miou", "10"),
    Row("Boundary IoU", "boundary_iou"),
    Row("NLL", "nll", scale=1.0, digits=4),
)
"""The columns of a table of differences."""

BY_SEED = tuple(score for score in DIFFERENCES if score.title in ("mIoU", "3 px"))
"""Of these it has each seed's difference, too."""


@dataclass(frozen=True)
class Found:
    """How a line differs from that of `study.against`.

    Attributes:
        seeds: that both have.
        intervals: of `DIFFERENCES`.
        by_seed: the difference of each seed, of `BY_SEED`.
    """

    seeds: tuple[int, ...]
    intervals: tuple[Interval | None, ...]
    by_seed: tuple[tuple[float, ...], ...]

    def cells(self, shown: Sequence[Row]) -> list[str]:
        """The differences of these scores with their intervals, then those of each seed."""
        intervals = dict(zip(DIFFERENCES, self.intervals, strict=True))
        return [
            *(changed(score, intervals[score]) for score in shown),
            *(", ".join(map(in_points, of_score)) for of_score in self.by_seed),
        ]


def differences(study: Study, load: Load, beginning: str) -> Iterator[tuple[Line, Found]]:
    """Every line that has another to be compared with, as `study.against` says, and how it differs.

    Runs are paired by seed. The one run of start stands against every seed.

    Raises:
        ValueError: the two were not scored on the same images.
    """
    lines = lines_of(study)
    finished = {(line.label, line.arm): line for line in lines if line.records}
    label, arm = study.against
    for line in lines:
        base = finished.get((label, arm or line.arm))
        if base is None or line is base:
            continue
        of_line, of_base = by_seed(line, base), by_seed(base, line)
        seeds = tuple(sorted(of_line.keys() & of_base.keys()))
        if seeds:
            pair = [[records[seed]["counts"] for seed in seeds] for records in (of_line, of_base)]
            try:
                yield line, difference(pair, seeds, load, beginning)
            except ValueError as error:
                raise ValueError(
                    f"{study.name}: {line.label}, {line.arm} and {base.label}, {base.arm}: {error}"
                ) from error


def by_seed(line: Line, other: Line) -> dict[int, Record]:
    """The runs of a line; that of start for every seed of the other."""
    if line.arm == "start" and line.records:
        return dict.fromkeys((record["seed"] for record in other.records), line.records[0])
    return {record["seed"]: record for record in line.records}


def difference(
    pair: Sequence[Sequence[str]], seeds: tuple[int, ...], load: Load, beginning: str
) -> Found:
    """How two lists of runs differ, paired by seed and image.

    Args:
        pair: of both lists the digests of their counts, one for each seed.
        seeds: of the runs.
        load: counts by their digest.
        beginning: of the names of the images.

    Raises:
        ValueError: they are not of the same images.
    """
    runs, others = ([part(load(digest), beginning) for digest in digests] for digests in pair)
    for run in (*runs, *others):
        if run.names != runs[0].names:
            alone = sorted(set(run.names) ^ set(runs[0].names)) or ["none, in another order"]
            raise ValueError(
                f"cannot be paired by image: they have {len(runs[0])} and {len(run)} images; not "
                f"in both: {alone[0]}."
            )
    bootstrap = Bootstrap(len(runs[0]))
    values = [
        [resampled(bootstrap, (beginning, *digests), counts, score) for score in DIFFERENCES]
        for digests, counts in zip(pair, (runs, others), strict=True)
    ]
    return Found(
        seeds,
        tuple(interval_of(a - b) for a, b in zip(*values, strict=True)),
        tuple(
            tuple(value(score, a) - value(score, b) for a, b in zip(runs, others, strict=True))
            for score in BY_SEED
        ),
    )


def value(score: Row, run: SplitCounts) -> float:
    """A score of one run, as a share of one; NaN where nothing was counted that it needs."""
    return float(score_named(score.name, score.within)(run, run.all_once())[0])


def changed(score: Row, interval: Interval | None) -> str:
    """A difference of a score, with its interval."""
    return tables.ABSENT if interval is None else score.change(interval).replace("  ", " ")


def in_points(share: float) -> str:
    """A difference of one seed."""
    return tables.ABSENT if math.isnan(share) else f"{100 * share:+.2f}"


Resampled = dict[tuple[tuple[str, ...], Row], Floats]

RESAMPLED: Resampled = {}
"""By part, digests of the counts, and score: most lines stand in several tables and figures."""


def resampled(
    bootstrap: Bootstrap, key: tuple[str, ...], runs: Sequence[SplitCounts], score: Row
) -> Floats:
    """`Bootstrap.values`, computed once; `key` names the runs by their content."""
    if (key, score) not in RESAMPLED:
        values = bootstrap.values(runs, score_named(score.name, score.within))
        RESAMPLED[key, score] = values
    return RESAMPLED[key, score]
