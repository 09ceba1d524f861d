"""The benchmark as Markdown, for the README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval import tables
from eval.benchmark.paths import NATIVE
from eval.benchmark.summary import (
    Row,
    batch_costs,
    exponent,
    median,
    pixels,
    problems,
    ratio,
    rows_of,
    thread_scaling,
)
from eval.tables import factor


def markdown_block(results: Mapping[str, Any]) -> str:
    """All tables, with what it takes to repeat them.

    Args:
        results: the content of a results file of the kind "benchmark".
    """
    config, versions = results["config"], results["versions"]
    height, width = config["shape"]
    head = [
        "```",
        results["command"],
        "```",
        "",
        f"- a photograph of scikit-image, {width} x {height} unless told, {config['labels']} "
        f"labels; everything from image and unary to q; median of {config['repeats']} rounds over "
        f"all paths; torch {versions['torch']}, native path with {results['instructions']}",
        f"- machine: {tables.machine_line(results)}; "
        f"wall time {tables.duration(results['wall_seconds'])}",
        f"- commit {tables.commit_line(results)}",
    ]
    head += [f"- {name} was not timed: {reason}" for name, reason in results["missing"].items()]
    sections = [
        (f"Inference, T = {config['iterations']}, theta_alpha / theta_beta", _times("inference")),
        (f"Forward and backward, T = {config['train_iterations']}", _times("training")),
        ("Labels", _times("labels")),
        ("Pixels", _times("pixels")),
    ]
    lines = head
    for title, table in sections:
        lines += ["", f"{title}:", "", *table(results)]
    return "\n".join([*lines, "", *_scaling(results), "", *_memory(results), "", LEGEND])


LEGEND = (
    "Times in milliseconds, in brackets over that of the native path in the same rounds. One "
    "thread where the path has no more. Peaks are bytes beyond the inputs over those of q."
)


def _times(sweep: str) -> Any:
    """A table of a sweep: one row for each problem, one column for each path."""

    def table(results: Mapping[str, Any]) -> Iterator[str]:
        groups = list(problems(results, sweep))
        names = list(dict.fromkeys(row["path"] for _, rows in groups for row in rows))
        yield _line(["problem", "threads", *names])
        yield _line(["---", *["---:"] * (1 + len(names))])
        for native, rows in groups:
            cells = {row["path"]: _cell(row, native) for row in rows}
            times = [cells.get(name, tables.ABSENT) for name in names]
            yield _line([_title(sweep, native), str(native["threads"]), *times])

    return table


def _title(sweep: str, row: Row) -> str:
    height, width = row["shape"]
    alpha, beta = row["thetas"]
    return {
        "inference": f"{alpha:g} / {beta:g}",
        "training": "theta learns" if row["learn_theta"] else "weights and compatibility learn",
        "labels": f"{row['labels']} labels",
        "pixels": f"{width} x {height}, {pixels(row) / 1e6:.2g} MP",
    }[sweep]


def _cell(row: Row, native: Row) -> str:
    milliseconds = 1e3 * median(row)
    time = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
    return time if row is native else f"{time} ({factor(ratio(row, native))})"


def _scaling(results: Mapping[str, Any]) -> Iterator[str]:
    threads = results["config"]["threads"]
    for task, value in thread_scaling(results).items():
        yield f"- {threads[-1]} threads instead of {threads[0]}, {task}: {value:.2f} times as fast"
    sizes = rows_of(results, "pixels", path=NATIVE.name)
    yield f"- time grows with pixels^{exponent(sizes):.2f}"
    costs = ", ".join(f"{batch}: {cost:.2f}" for batch, cost in batch_costs(results).items())
    yield f"- cost of an image in a batch over that of one alone, by batch: {costs}"
    first, *later = results["first_call"]["seconds"]
    yield f"- first call in a process: {1e3 * (first - min(later)):.1f} ms more than a later one"
    for gate in results["gate"]:
        yield (
            f"- {gate['path']} against plain PyTorch: largest difference of q "
            f"{gate['largest_difference']:.1g}, same label at {100 * gate['same_labels']:.2f} %"
        )


def _memory(results: Mapping[str, Any]) -> Iterator[str]:
    yield _line(["peak memory", "path", "beyond inputs", "of it the lattice", "q"])
    yield _line(["---", "---", "---:", "---:", "---:"])
    for row in results["memory"]:
        height, width = row["shape"]
        task = "inference"
        if row["training"]:
            task = "training" + (", theta learns" if row["learn_theta"] else "")
        q = row["q_bytes"]
        own = row["path"].startswith("crfrnn,")
        yield _line(
            [
                f"{task}, {width} x {height}",
                row["path"],
                f"{row['peak_bytes'] / q:.1f} q",
                f"{row['lattice_bytes'] / q:.1f} q" if own else tables.ABSENT,
                f"{q / 1e6:.0f} MB",
            ]
        )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
