"""The benchmark on a GPU as Markdown, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from eval import tables
from eval.benchmark.gpu.goals import LARGEST_EXACT_ERROR, LARGEST_SHARE_OF_STEP
from eval.benchmark.summary import Row, median, pixels, ratio
from eval.tables import factor

# Of a sweep: its title, and what its rows differ in.
SWEEPS = {
    "inference": "Inference, T = {iterations}, theta_alpha / theta_beta",
    "training": "Forward and backward, T = {train_iterations}",
    "labels": "Labels",
    "batch": "Images in a batch",
    "pixels": "Pixels",
}

LEGEND = (
    "Times in milliseconds between two events on the GPU, in brackets over that of the first path "
    "in the same rounds; for the CPU on the wall. GB/s and TFLOP/s are bytes and operations as "
    "`eval/benchmark/gpu/work.py` counts them, over the first path's time, with their share of the "
    "card's own copy and of its float32 product; above 100 % of the copy, stages were fused or "
    "stayed in a cache. Peaks are all that PyTorch had allocated, inputs included."
)


def markdown_block(results: Mapping[str, Any]) -> str:
    """All tables, with what it takes to repeat them.

    Args:
        results: the content of a results file of the kind "benchmark-gpu".
    """
    config, ceilings = results["config"], results["ceilings"]
    height, width = config["shape"]
    products = ", ".join(
        f"{name} {ceilings[name] / 1e12:.3g}" for name in ("float32", "tf32", "bfloat16")
    )
    lines = [
        "```",
        results["command"],
        "```",
        "",
        f"- a photograph of scikit-image, {width} x {height} unless told, {config['labels']} "
        f"labels; everything from image and unary to q; median of {config['repeats']} rounds over "
        f"all paths; torch {results['versions']['torch']}, CUDA {results['cuda']}",
        f"- ceilings of this card: copying {ceilings['copy'] / 1e9:,.0f} GB/s, read and written; "
        f"products in TFLOP/s: {products}",
        f"- machine: {tables.machine_line(results)}; "
        f"wall time {tables.duration(results['wall_seconds'])}",
        f"- commit {tables.commit_line(results)}",
        *(f"- {name} was not timed: {reason}" for name, reason in results["missing"].items()),
        *(f"- found no memory: {what}" for what in results["late"]),
        *(
            f"- {gate['path']} against plain PyTorch: largest difference of q "
            f"{gate['largest_difference']:.1g}, same label at {100 * gate['same_labels']:.2f} %"
            for gate in results["gate"]
        ),
    ]
    lines += ["", "What was asked of it:", "", *_goals(results)]
    for sweep, title in SWEEPS.items():
        lines += ["", f"{title.format(**config)}:", "", *_times(results, sweep)]
    lines += ["", "The spatial kernel alone:", "", *_spatial(results)]
    return "\n".join([*lines, "", LEGEND])


def _goals(results: Mapping[str, Any]) -> Iterator[str]:
    yield _line(["figure", "asked", "measured", "met"])
    yield _line(["---", "---:", "---:", "---"])
    for row in results["goals"]:
        height, width = row["shape"]
        name = (
            f"{row['name']}: {width} x {height}, {row['labels']} labels, T = {row['iterations']}, "
            f"batch {row['batch']}"
        )
        limits, seconds = row["limits"], median(row)
        rates = _rates(row, results["ceilings"])
        yield _goal(f"{name} ({rates})", seconds, limits["seconds"], _ms)
        if limits["bytes"] is not None:
            yield _goal(f"{row['name']}: peak memory", row["peak_bytes"], limits["bytes"], _gb)
        if limits["ratio"] is not None:
            yield _sparse(row, limits["ratio"])
        same = row["same_bits"]
        yield _line([f"{row['name']}: same bits again", "yes", "yes" if same else "no", _met(same)])
    error = results["exact_error"]
    yield _goal(
        "exact, largest error of K v against float64 on a crop", error, LARGEST_EXACT_ERROR,
        "{:.1e}".format,
    )  # fmt: skip
    without, behind = results["joint"]
    share = median(behind) / median(without) - 1
    what = (
        f"joint step of {behind['name']}, {behind['size']} x {behind['size']}, batch "
        f"{behind['batch']}, bfloat16, {_ms(median(without))} and {_ms(median(behind))}: what the "
        "CRF adds"
    )
    yield _goal(what, share, LARGEST_SHARE_OF_STEP, "{:.0%}".format)


def _goal(name: str, found: float | None, limit: float, show: Any) -> str:
    if found is None:
        return _line([name, f"≤ {show(limit)}", tables.ABSENT, "not measured"])
    return _line([name, f"≤ {show(limit)}", show(found), _met(found <= limit)])


def _sparse(row: Row, least: float) -> str:
    name, asked = f"{row['name']}: torch sparse CSR over it", f"≥ {factor(least)}"
    if row["sparse_seconds"] is None:
        return _line([name, asked, "found no memory", tables.ABSENT])
    times = ratio({"seconds": row["sparse_seconds"]}, row)
    return _line([
        name, asked,
        f"{factor(times)} ({_ms(statistics.median(row['sparse_seconds']))})",
        _met(times >= least),
    ])  # fmt: skip


def _times(results: Mapping[str, Any], sweep: str) -> Iterator[str]:
    """One row for each problem, one column for each path, and what the first path reached."""
    rows = [row for row in results["times"] if row["sweep"] == sweep]
    names = list(dict.fromkeys(row["path"] for row in rows))
    yield _line(["problem", *names, "GB/s, TFLOP/s", "peaks, GB"])
    yield _line(["---"] + ["---:"] * (2 + len(names)))
    for title, group in groupby(rows, key=lambda row: _title(sweep, row)):
        own = {row["path"]: row for row in group}
        first = own.get(names[0])
        cells = [_cell(own.get(name), first) for name in names]
        rates = tables.ABSENT if first is None else _rates(first, results["ceilings"])
        peaks = " / ".join(_gigabytes(own.get(name)) for name in names)
        yield _line([title, *cells, rates, peaks])


def _title(sweep: str, row: Row) -> str:
    height, width = row["shape"]
    alpha, beta = row["thetas"]
    return {
        "inference": f"{alpha:g} / {beta:g}",
        "training": "theta learns" if row["learn_theta"] else "weights and compatibility learn",
        "labels": f"{row['labels']} labels",
        "batch": f"{row['batch']}",
        "pixels": f"{width} x {height}, {pixels(row) / 1e6:.2g} MP",
    }[sweep]


def _cell(row: Row | None, first: Row | None) -> str:
    if row is None:
        return tables.ABSENT
    time = _ms(median(row)).removesuffix(" ms")
    return time if row is first or first is None else f"{time} ({factor(ratio(row, first))})"


def _spatial(results: Mapping[str, Any]) -> Iterator[str]:
    yield _line(["theta_gamma", "way", "ms", "GB/s, TFLOP/s", "largest difference"])
    yield _line(["---:", "---", "---:", "---:", "---:"])
    for row in results["spatial"]:
        rates = _rates(row, results["ceilings"])
        time = _ms(median(row)).removesuffix(" ms")
        yield _line([f"{row['theta']:g}", row["way"], time, rates, f"{row['difference']:.0e}"])


def _rates(row: Row, ceilings: Mapping[str, float]) -> str:
    moved, done = row["bytes"] / median(row), row["flops"] / median(row)
    return (
        f"{moved / 1e9:,.0f} ({moved / ceilings['copy']:.0%}), "
        f"{done / 1e12:.2g} ({done / ceilings['float32']:.0%})"
    )


def _ms(seconds: float) -> str:
    milliseconds = 1e3 * seconds
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def _gigabytes(row: Row | None) -> str:
    if row is None or row["peak_bytes"] is None:
        return tables.ABSENT
    return f"{row['peak_bytes'] / 1e9:.2g}"


def _met(met: bool) -> str:
    return "yes" if met else "no"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
