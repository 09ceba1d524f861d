"""The table of an ablation: for the terminal, and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from eval import wording
from eval.summary import Split
from train.ablate.results import WIDTHS, difference, interval, spread

LEGEND = (
    "mIoU in per cent, mean ± sample standard deviation over n seeds; px: within that trimap band "
    "on the report split; difference of {split} mIoU in points, paired by seed, with its 95 % "
    "interval (Student t); with one seed neither deviation nor interval exists."
)

TITLES = (
    "label",
    "arm",
    "n",
    "report",
    "tune",
    *(f"{width} px" for width in WIDTHS),
    "difference",
    "95 %",
)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The cells of every label and arm, in order; dashes where there is no run."""
    return [cells(results, label, arm) for label in results["labels"] for arm in results["arms"]]


def cells(results: dict[str, Any], label: str, arm: str) -> list[str]:
    """One row."""
    names = ("report", "tune", *(f"trimap_{width}" for width in WIDTHS))
    scores = [wording.percent(spread(results, label, arm, name)) for name in names]
    split = compared_on(results)
    compared = spread(results, label, arm, split)
    to_base = difference(results, label, arm, split)
    shown = "base" if is_base(results, label, arm) else wording.percent(to_base, signed=True)
    limits = None if to_base is None else interval(to_base)
    within = (
        wording.ABSENT if limits is None else " to ".join(f"{100 * v + 0.0:+.2f}" for v in limits)
    )
    count = "0" if compared is None else str(len(compared.values))
    return [label, arm, count, *scores, shown, within]


def compared_on(results: dict[str, Any]) -> Split:
    """The split of the differences: report, or tune where that alone was scored."""
    only_tune = any(run["tune"] is not None for run in results["runs"]) and not any(
        run["report"] is not None for run in results["runs"]
    )
    return "tune" if only_tune else "report"


def is_base(results: dict[str, Any], label: str, arm: str) -> bool:
    """Whether the others are compared with this row."""
    if results["against"] is None:
        return bool(label == next(iter(results["labels"])))
    return bool(arm == results["against"])


def absent(results: dict[str, Any]) -> list[str]:
    """A line for every run without a result."""
    return [
        f"failed: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']}): {run['error']}"
        for run in results["failed"]
    ] + [
        f"missing: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']})"
        for run in results["missing"]
    ]


def terminal_table(results: dict[str, Any]) -> Table:
    """The table for the terminal."""
    table = Table(
        title=Text(f"{results['ablation']} on {results['recipe']}"),
        caption=Text(LEGEND.format(split=compared_on(results))),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for index, title in enumerate(TITLES):
        table.add_column(title, justify="left" if index < 2 else "right", no_wrap=index > 0)
    for label, *row in rows(results):
        # Over two lines, a number stays whole on a terminal of 80 columns.
        stacked = (cell.replace(" ± ", "\n±").replace(" to ", "\nto ") for cell in row)
        table.add_row(Text(label), *map(Text, stacked))
    return table


def markdown(results: dict[str, Any]) -> str:
    """The table with what it takes to repeat it."""
    lines = [list(TITLES), ["---", "---", *["---:"] * (len(TITLES) - 2)], *rows(results)]
    return "\n".join(
        [
            f"# {results['ablation']} on {results['recipe']}",
            "",
            results["question"],
            "",
            "```",
            results["command"],
            "```",
            "",
            f"- seeds {wording.seeds_line(results)}; machine: {wording.machine_line(results)}; "
            f"wall time {wording.duration(results['wall_seconds'])}",
            f"- commit {wording.commit_line(results)}",
            *(f"- {line}" for line in absent(results)),
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            LEGEND.format(split=compared_on(results)),
            "",
        ]
    )
