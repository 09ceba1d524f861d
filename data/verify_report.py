"""What `python -m data verify` found, for the eye and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from data.kinds import DataConfig, config_to_dict
from data.verify import SplitReport


def to_json(config: DataConfig, reports: list[SplitReport]) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    return {"data": config_to_dict(config), "splits": [_split(report) for report in reports]}


def _split(report: SplitReport) -> dict[str, Any]:
    return {
        "split": report.split,
        "listed": report.listed,
        "published": report.published,
        "read": report.read,
        "sides": report.sides,
        "void": report.void,
        "classes": [
            {"name": name, "share": report.share(label), "images": int(report.images[label])}
            for label, name in enumerate(report.classes)
        ],
        "problems": [{"file": p.file, "what": p.what} for p in report.problems],
    }


def print_report(console: Console, reports: list[SplitReport], *, limit: int) -> None:
    """A table of all splits, then what is wrong with each.

    Args:
        console: where to.
        reports: of one data set.
        limit: problems of a split that are printed; the others are counted.
    """
    classes = next(report.classes for report in reports if report.classes)
    table = Table("id", "class")
    for report in reports:
        table.add_column(f"{report.split}: pixels", justify="right")
        table.add_column("images", justify="right")
    for label, name in enumerate(classes):
        cells = [
            cell
            for report in reports
            for cell in (f"{100 * report.share(label):.2f} %", str(int(report.images[label])))
        ]
        table.add_row(str(label), name, *cells)
    console.print(table)
    for report in reports:
        console.print(_line(report), markup=False, soft_wrap=True)
        for problem in report.problems[:limit]:
            console.print(f"  {problem.what}", style="red", markup=False, soft_wrap=True)
        if len(report.problems) > limit:
            rest = len(report.problems) - limit
            console.print(f"  and {rest} more; --out FILE.json lists all", style="red")


def _line(report: SplitReport) -> str:
    if report.listed is None:
        return f"{report.split}: could not be listed"
    editions = [name for name, count in report.published.items() if count == report.listed]
    known = f" (as {' or '.join(editions)})" if editions else ""
    low, high = report.sides or (0, 0)
    found = f"{len(report.problems)} problems" if report.problems else "every file is well formed"
    return (
        f"{report.split}: {report.listed} images{known}, {report.read} read, sides {low}..{high} "
        f"px, {100 * report.void:.2f} % void; {found}"
    )
