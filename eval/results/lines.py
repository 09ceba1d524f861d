"""The lines of a study's tables: the runs of one label and arm, and what was counted in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eval.metrics import SplitCounts
from eval.results.store import Record, Study

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
