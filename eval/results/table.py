"""The tables of a study: every number is computed here from what was counted on the images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from eval import tables
from eval.metrics import SplitCounts, harm_rate
from eval.results.lines import Line, Load, lines_of, part
from eval.results.paired import BY_SEED, DIFFERENCES, differences, value
from eval.results.store import Study, place
from eval.runs import Spread
from eval.score import Row

SCORES = (
    Row("mIoU", "miou"),
    *(Row(f"{width} px", "trimap_miou", width) for width in ("1", "3", "5", "10", "20", "40")),
    Row("Boundary IoU", "boundary_iou"),
    Row("NLL", "nll", scale=1.0, digits=4),
)
"""The columns; "px": trimap mIoU within that width."""


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
            cells = [*(scored(score, runs) for score in SCORES), tables.ABSENT]
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


def scored(score: Row, runs: Sequence[SplitCounts]) -> str:
    """Mean and sample deviation of a score over the seeds."""
    spread = Spread(tuple(value(score, run) for run in runs))
    if math.isnan(spread.mean):
        return tables.ABSENT  # a class that a run has not on these images, or no probabilities
    text = score.written(spread.mean)
    return text if spread.deviation is None else f"{text} ± {score.written(spread.deviation)}"


def harmed(line: Line, load: Load, beginning: str, runs: Sequence[SplitCounts]) -> str:
    """The share of the images whose mIoU the CRF lowers, in per cent, mean over the seeds."""
    shares = [
        harm_rate(part(load(record["counts_before"]), beginning), run)
        for record, run in zip(line.records, runs, strict=True)
        if "counts_before" in record
    ]
    found = [100 * share for share in shares if share is not None]
    return f"{statistics.fmean(found):.0f}" if found else tables.ABSENT


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
            cells.append(study.published.get(line.label, tables.ABSENT))
        rows.append([line.label, line.arm, str(pairs), *cells])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; the first row is the title."""
    titles, *others = rows
    rules = ["---", "---", *["---:"] * (len(titles) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, rules, *others))


def run_rows(study: Study) -> list[list[str]]:
    """Title and a row for each run: what made it."""
    bias = any("bias" in record for record in study.records)
    titles = ["configuration", "steps", "time", "commit", "machine"]
    rows = [["", "arm", "seed", *(["bias"] if bias else []), *titles]]
    for record in sorted(study.records, key=lambda r: (r["label"], *place(r))):
        finished = "failed" not in record
        rows.append(
            [
                record["label"],
                record["arm"],
                str(record["seed"]),
                *([f"{record['bias']:g}" if "bias" in record else tables.ABSENT] if bias else []),
                record["digest"],
                str(record["network_steps"]) if finished else tables.ABSENT,
                tables.duration(record["wall_seconds"]) if finished else "failed",
                tables.commit_line(record),
                tables.machine_line(record),
            ]
        )
    return rows
