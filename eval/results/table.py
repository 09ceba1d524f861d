"""The tables of a study: every number is computed here from what was counted on the images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eval import wording
from eval.metrics import Bootstrap, Interval, SplitCounts, harm_rate, score_named
from eval.metrics.bootstrap import interval_of
from eval.metrics.confusion import Floats
from eval.results.store import Record, Study, place
from eval.score_table import Row
from eval.summary import Spread

SCORES = (
    Row("mIoU", "miou"),
    *(Row(f"{width} px", "trimap_miou", width) for width in ("1", "3", "5", "10", "20", "40")),
    Row("Boundary IoU", "boundary_iou"),
    Row("NLL", "nll", scale=1.0, digits=4),
)
"""The columns; "px": trimap mIoU within that width."""

DIFFERENCES = (
    Row("mIoU", "miou"),
    Row("1 px", "trimap_miou", "1"),
    Row("3 px", "trimap_miou", "3"),
    Row("10 px", "trimap_miou", "10"),
    Row("Boundary IoU", "boundary_iou"),
    Row("NLL", "nll", scale=1.0, digits=4),
)
"""The columns of the second table."""

BY_SEED = tuple(score for score in DIFFERENCES if score.title in ("mIoU", "3 px"))
"""Of these the second table has each seed's difference, too."""

Load = Callable[[str], SplitCounts]
"""Counts by their digest."""


@dataclass(frozen=True)
class Line:
    """The runs of one label and arm, which make one line of each table.

    Attributes:
        label, arm: of all of them.
        records: finished runs, one of each seed.
        failed: runs that failed.
    """

    label: str
    arm: str
    records: tuple[Record, ...]
    failed: tuple[Record, ...]

    def runs(self, load: Load, beginning: str, key: str = "counts") -> list[SplitCounts]:
        """What was counted in every run on the images whose names begin so.

        Args:
            load: counts by their digest.
            beginning: of the names.
            key: "counts_before" of a CRF.
        """
        return [part(load(record[key]), beginning) for record in self.records]


def lines_of(study: Study) -> list[Line]:
    """The lines of a study, in the order of its labels and arms."""
    keys = dict.fromkeys((r["label"], r["arm"]) for r in study.records)
    found = []
    for label, arm in keys:
        of_line = [r for r in study.records if (r["label"], r["arm"]) == (label, arm)]
        finished = tuple(r for r in of_line if "failed" not in r)
        failed = tuple(r for r in of_line if "failed" in r)
        found.append(Line(label, arm, finished, failed))
    return found


def part(counts: SplitCounts, beginning: str) -> SplitCounts:
    """The counts of the images whose names begin so; all of them for "".

    Raises:
        ValueError: there is none.
    """
    names = [name for name in counts.names if name.startswith(beginning)]
    if not names:
        raise ValueError(f"no image's name begins with {beginning!r}.")
    return counts if len(names) == len(counts) else counts.of(names)


def score_rows(study: Study, load: Load, beginning: str) -> list[list[str]]:
    """Title and a row for each line: the scores, mean and deviation over the seeds."""
    rows = [["", "arm", "n", *(score.title for score in SCORES), "harm"]]
    for line in lines_of(study):
        if line.records:
            runs = line.runs(load, beginning)
            cells = [scored(score, runs) for score in SCORES]
            cells.append(harmed(line, load, beginning, runs))
            rows.append([line.label, line.arm, str(len(runs)), *cells])
        if line.arm == "joint" and line.records:
            # Of the other arms with a CRF it is unary.
            runs = line.runs(load, beginning, "counts_before")
            cells = [*(scored(score, runs) for score in SCORES), wording.ABSENT]
            rows.append([line.label, "joint, before its CRF", str(len(runs)), *cells])
        rows += [[line.label, line.arm, "failed", run["failed"]] for run in line.failed]
    width = len(rows[0])
    return [[*row, *[""] * (width - len(row))] for row in rows]


def class_rows(study: Study, load: Load, beginning: str) -> list[list[str]]:
    """Title and a row for each line: the IoU of each scored class, mean and deviation."""
    finished = [line for line in lines_of(study) if line.records]
    counts = load(finished[0].records[0]["counts"])
    names = [counts.classes[k] for k in counts.scored]
    rows = [["", "arm", "n", *names]]
    for line in finished:
        runs = line.runs(load, beginning)
        cells = [scored(Row(name, "iou_per_class", name), runs) for name in names]
        rows.append([line.label, line.arm, str(len(runs)), *cells])
    return rows


def value(score: Row, run: SplitCounts) -> float:
    """A score of one run."""
    return float(score_named(score.name, score.within)(run, run.all_once())[0])


def scored(score: Row, runs: Sequence[SplitCounts]) -> str:
    """Mean and sample deviation of a score over the seeds."""
    values = [value(score, run) for run in runs]
    text = score.written(statistics.fmean(values))
    deviation = Spread(tuple(values)).deviation
    return text if deviation is None else f"{text} ± {score.written(deviation)}"


def harmed(line: Line, load: Load, beginning: str, runs: Sequence[SplitCounts]) -> str:
    """The share of the images whose mIoU the CRF lowers, in per cent, mean over the seeds."""
    shares = [
        harm_rate(part(load(record["counts_before"]), beginning), run)
        for record, run in zip(line.records, runs, strict=True)
        if "counts_before" in record
    ]
    found = [100 * share for share in shares if share is not None]
    return f"{statistics.fmean(found):.0f}" if found else wording.ABSENT


def difference_rows(study: Study, load: Load, beginning: str) -> list[list[str]]:
    """Title and a row for each line with its paired differences to that of `study.against`."""
    rows = [["", "arm", "n", *(score.title for score in DIFFERENCES)]]
    rows[0] += [f"{score.title} by seed" for score in BY_SEED]
    if study.published:
        rows[0].append("published")
    for line, found in differences(study, load, beginning):
        pairs = len(found.seeds)
        cells = found.cells(DIFFERENCES)
        if study.published:
            cells.append(study.published.get(line.label, wording.ABSENT))
        rows.append([line.label, line.arm, str(pairs), *cells])
    return rows


def changed(score: Row, interval: Interval | None) -> str:
    """A difference of a score, with its interval."""
    return wording.ABSENT if interval is None else score.change(interval).replace("  ", " ")


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
            *(", ".join(f"{100 * v:+.2f}" for v in of_score) for of_score in self.by_seed),
        ]


def differences(study: Study, load: Load, beginning: str) -> Iterator[tuple[Line, Found]]:
    """Every line that has another to be compared with, as `study.against` says, and how it differs.

    Runs are paired by seed. The one run of start stands against every seed.
    """
    lines = lines_of(study)
    finished = {(line.label, line.arm): line for line in lines if line.records}
    label, arm = study.against
    bootstrap: Bootstrap | None = None
    for line in lines:
        base = finished.get((label, arm or line.arm))
        if base is None or line is base:
            continue
        of_base = {record["seed"]: record for record in base.records}
        of_line = {record["seed"]: record for record in line.records}
        if line.arm == "start" and line.records:
            of_line = dict.fromkeys(of_base, line.records[0])
        seeds = tuple(sorted(of_line.keys() & of_base.keys()))
        if not seeds:
            continue
        runs, others = (
            [part(load(records[seed]["counts"]), beginning) for seed in seeds]
            for records in (of_line, of_base)
        )
        bootstrap = bootstrap or Bootstrap(len(runs[0]))
        keys = [
            (beginning, *(records[k]["counts"] for k in seeds)) for records in (of_line, of_base)
        ]
        yield (
            line,
            Found(
                seeds,
                tuple(
                    interval_of(
                        resampled(bootstrap, keys[0], runs, score)
                        - resampled(bootstrap, keys[1], others, score)
                    )
                    for score in DIFFERENCES
                ),
                tuple(
                    tuple(
                        value(score, a) - value(score, b) for a, b in zip(runs, others, strict=True)
                    )
                    for score in BY_SEED
                ),
            ),
        )


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


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; the first row is the title."""
    titles, *others = rows
    rules = ["---", "---", *["---:"] * (len(titles) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, rules, *others))


def run_rows(study: Study) -> list[list[str]]:
    """Title and a row for each run: what made it."""
    rows = [["", "arm", "seed", "configuration", "steps", "time", "commit", "machine"]]
    for record in sorted(study.records, key=lambda r: (r["label"], *place(r))):
        finished = "failed" not in record
        rows.append(
            [
                record["label"],
                record["arm"],
                str(record["seed"]),
                record["digest"],
                str(record["network_steps"]) if finished else wording.ABSENT,
                wording.duration(record["wall_seconds"]) if finished else "failed",
                wording.commit_line(record),
                wording.machine_line(record),
            ]
        )
    return rows
