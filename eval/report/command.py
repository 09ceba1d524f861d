"""`python -m eval report`: the page of one or several runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eval.report.page import Report, write_report


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page about one or several runs, and its figures as PNG and SVG.

    Attributes:
        runs: folders that `python -m train compare` or `run` wrote, also unfinished ones. Those of
            the same recipe and data become one comparison with more seeds.
        out: the page; by default report.html in the run folder, or beside several.
        figures: folder of the figures; by default figures/ beside the page.
        data_root: where the data set lies now, if not where it was trained.
        gallery: images of each gallery at most: the best, the worst, and evenly between.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    figures: Path | None = None
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    gallery: int = 60

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run folder given: python -m eval report runs/demo")
        if self.gallery < 0:
            raise ValueError(f"--gallery is at least 0, got {self.gallery}.")


def report(options: ReportOptions) -> Report:
    """Write the page and say what it lacks."""
    first = options.runs[0]
    folder = first if len(options.runs) == 1 else first.resolve().parent
    written = write_report(
        options.runs,
        options.out or folder / "report.html",
        figures=options.figures,
        num_images=options.gallery,
        data_root=options.data_root,
    )
    say(written, Console())
    return written


def say(written: Report, console: Console) -> None:
    """What was written, and what is missing from it."""
    for sentence in written.missing:
        console.print(f"missing: {sentence}", style="yellow", markup=False, highlight=False)
    # One path a line, never folded: it is there to be copied.
    console.print(f"report:  {written.page}", soft_wrap=True, markup=False, highlight=False)
    if written.figures:
        folders = dict.fromkeys(str(path.parent) for path in written.figures)
        console.print(
            f"figures: {', '.join(folders)}", soft_wrap=True, markup=False, highlight=False
        )


def report_command(arguments: list[str]) -> None:
    """Parse and write."""
    report(tyro.cli(ReportOptions, prog="python -m eval report", args=arguments))
