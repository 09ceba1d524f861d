"""What the times and peaks say: medians, ratios in one run, exponents."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eval.benchmark.paths import NATIVE

Row = Mapping[str, Any]


def rows_of(results: Mapping[str, Any], sweep: str, **fields: object) -> list[Row]:
    """The timed rows of a sweep whose fields have these values."""
    return [
        row
        for row in results["times"]
        if row["sweep"] == sweep and all(row[key] == value for key, value in fields.items())
    ]


def median(row: Row) -> float:
    """Seconds."""
    return float(statistics.median(row["seconds"]))


def ratio(row: Row, other: Row) -> float:
    """Median over the rounds of row's time over the other's in the same round."""
    pairs = zip(row["seconds"], other["seconds"], strict=True)
    return float(statistics.median(a / b for a, b in pairs))


def problems(results: Mapping[str, Any], sweep: str) -> Iterator[tuple[Row, list[Row]]]:
    """The native row of each problem of a sweep, with the rows timed in turn with it.

    A path that uses one thread is timed beside every number of threads.
    """
    rows = rows_of(results, sweep)
    starts = [k for k, row in enumerate(rows) if row["path"] == NATIVE.name]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows[start], rows[start:stop]


def pixels(row: Row) -> int:
    """H W."""
    height, width = row["shape"]
    return int(height * width)


def exponent(rows: Sequence[Row]) -> float:
    """p of the fit time = c pixels^p, over the medians."""
    logs = [(np.log(pixels(row)), np.log(median(row))) for row in rows]
    x, y = np.array(logs).T
    return float(np.polyfit(x, y, 1)[0])


def thread_scaling(results: Mapping[str, Any]) -> dict[str, float]:
    """Time with the fewest threads over that with the most, by task; the first setting."""
    scaling = {}
    for sweep in ("inference", "training"):
        rows = rows_of(results, sweep, path=NATIVE.name, learn_theta=False)
        first = [row for row in rows if row["thetas"] == rows[0]["thetas"]]
        scaling[sweep] = median(first[0]) / median(first[-1])
    return scaling


def batch_costs(results: Mapping[str, Any]) -> dict[int, float]:
    """Time of a batch over that of a single image times its size."""
    rows = rows_of(results, "batch", path=NATIVE.name)
    single = next(row for row in rows if row["batch"] == 1)
    return {row["batch"]: median(row) / median(single) / row["batch"] for row in rows}
