"""Show how far long work has come."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from runtime import distributed


def progress_bar(console: Console | None = None, *, detail: bool = False) -> Progress:
    """Return bars with steps done, elapsed and remaining time, silent but for the first process.

    Args:
        console: where they are shown; the terminal if not given.
        detail: show the field `detail` of every task, too.
    """
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn("{task.fields[detail]}")] if detail else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not distributed.is_first(),
    )
