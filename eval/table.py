"""The comparison as a table: one row per arm, for the terminal, the README and the page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from eval import wording
from eval.summary import over_seeds, paired_difference, runs_of, score
from runtime.run_folder import ARMS

TABLE_WIDTHS = (1, 3, 5, 10)
"""Trimap widths that the table shows, in pixels."""

LEGEND = (
    "mIoU and accuracy in per cent on the report split, mean ± sample standard deviation over the "
    "seeds; vs post-hoc: difference of mIoU in points, paired by seed; 1 px to 10 px: mIoU within "
    "the trimap band of that width; steps: network updates."
)
"""How to read the table, in one sentence."""

Cell = Callable[[Mapping[str, Any], str], str]


def columns() -> dict[str, Cell]:
    """The columns in order: title -> function from results and arm to the cell's text."""
    miou = score("miou")
    cells: dict[str, Cell] = {
        "arm": lambda _, arm: arm,
        "mIoU": lambda results, arm: wording.percent(over_seeds(results, arm, miou)),
        "vs post-hoc": lambda results, arm: wording.percent(
            paired_difference(results, arm, "post-hoc", miou), signed=True
        ),
    }
    for width in TABLE_WIDTHS:
        cells[f"{width} px"] = _percent_of("trimap_miou", within=str(width))
    cells["pixel acc."] = _percent_of("pixel_accuracy")
    cells["tune mIoU"] = lambda results, arm: wording.percent(
        over_seeds(results, arm, score("miou", split="tune"))
    )
    cells["steps"] = _steps
    cells["time"] = _time
    return cells


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The cells of every arm, in the order of the arms; an arm without runs has dashes."""
    cells = columns().values()
    return [[cell(results, arm) for cell in cells] for arm in ARMS]


def comparison_table(results: Mapping[str, Any]) -> Table:
    """The table for the terminal.

    Args:
        results: the content of results.json.

    Returns:
        A rich table with one row per arm.
    """
    table = Table(
        title=Text(f"{results['name']}: report split"),
        caption=Text(LEGEND),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for index, title in enumerate(columns()):
        table.add_column(_stacked(title), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows(results):
        table.add_row(*(_stacked(cell) for cell in row))
    return table


def markdown_table(results: Mapping[str, Any]) -> str:
    """The table in GitHub's Markdown, without a trailing newline.

    Args:
        results: the content of results.json.
    """
    titles = list(columns())
    lines = [
        titles,
        ["---"] + ["---:"] * (len(titles) - 1),
        *rows(results),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_block(results: Mapping[str, Any]) -> str:
    """The table with what it takes to repeat it: command, seeds, machine, commit.

    Args:
        results: the content of results.json.
    """
    splits = results["data"]["splits"]
    return "\n".join(
        [
            "```",
            results["command"],
            "```",
            "",
            f"- seeds {wording.seeds_line(results)}; {results['network_steps']} network steps; "
            f"images: {', '.join(f'{count} {split}' for split, count in splits.items())}",
            f"- machine: {wording.machine_line(results)}; "
            f"wall time {wording.duration(results['wall_seconds'])}",
            f"- commit {wording.commit_line(results)}",
            "",
            markdown_table(results),
            "",
            LEGEND,
        ]
    )


def _stacked(cell: str) -> Text:
    """A cell over several lines: numbers stay whole on a terminal, or in a log, of 80 columns."""
    if len(cell) <= 5:
        return Text(cell)
    return Text(cell.replace(" ± ", "\n±").replace(" ", "\n"))


def _percent_of(key: str, within: str | None = None) -> Cell:
    pick = score(key, within)
    return lambda results, arm: wording.percent(over_seeds(results, arm, pick))


def _steps(results: Mapping[str, Any], arm: str) -> str:
    steps = sorted({int(run["network_steps"]) for run in runs_of(results, arm)})
    return "/".join(map(str, steps)) or wording.ABSENT


def _time(results: Mapping[str, Any], arm: str) -> str:
    seconds = [float(run["wall_seconds"]) for run in runs_of(results, arm)]
    return wording.duration(statistics.fmean(seconds)) if seconds else wording.ABSENT
