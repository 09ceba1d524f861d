"""The scores of a split as a table: before the CRF, behind it, and the difference between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.table import Table

from eval.metrics import SHOWN_WIDTHS, Bootstrap, Interval, SplitCounts, harm_rate, score_named

ABSENT = "–"


class Row(NamedTuple):
    """One score.

    Attributes:
        title: what it is called.
        name, within: of `eval.metrics.score_named`.
        scale, digits: how it is written.
    """

    title: str
    name: str
    within: str | None = None
    scale: float = 100.0
    digits: int = 2

    def written(self, value: float | None) -> str:
        """A value with its digits."""
        return ABSENT if value is None else f"{self.scale * value:.{self.digits}f}"

    def change(self, found: Interval | None) -> str:
        """A difference with its interval: "+1.72  [+1.10, +2.31]"."""
        if found is None:
            return ABSENT
        value, low, high = (f"{self.scale * v:+.{self.digits}f}" for v in found)
        return f"{value}  [{low}, {high}]"


SECTIONS: tuple[tuple[Row, ...], ...] = (
    (
        Row("mIoU", "miou"),
        Row("frequency-weighted IoU", "fwiou"),
        Row("pixel accuracy", "pixel_accuracy"),
        Row("class accuracy", "class_accuracy"),
    ),
    (
        Row("Boundary IoU", "boundary_iou"),
        Row("boundary F-score", "boundary_f"),
        *(Row(f"trimap mIoU {width} px", "trimap_miou", width) for width in SHOWN_WIDTHS),
    ),
    (
        Row("NLL, nats", "nll", scale=1.0, digits=4),
        Row("Brier score", "brier", scale=1.0, digits=4),
        Row("calibration error", "ece"),
    ),
)


def as_json(changes: Mapping[Row, Interval | None]) -> dict[str, dict[str, Any]]:
    """Value, low and high by the name of a score, or "NAME WITHIN" in a trimap or of a class."""
    return {
        row.name if row.within is None else f"{row.name} {row.within}": found._asdict()
        for row, found in changes.items()
        if found is not None
    }


def differences(counts: Mapping[str, SplitCounts]) -> dict[Row, Interval | None]:
    """Every score behind the CRF minus that before it, with 95 % intervals over the images.

    Args:
        counts: "unary" and, with a CRF, "crf", of the same images.

    Returns:
        Nothing without a CRF.
    """
    if "crf" not in counts:
        return {}
    bootstrap = Bootstrap(len(counts["unary"]))
    before, after = [counts["unary"]], [counts["crf"]]
    return {
        row: bootstrap.difference(after, before, score_named(row.name, row.within))
        for section in (*SECTIONS, _classes(counts["unary"]))
        for row in section
    }


def score_table(
    title: str, counts: Mapping[str, SplitCounts], changes: Mapping[Row, Interval | None]
) -> Table:
    """One column for each kind of logits, and one for what the CRF changed.

    Args:
        title: of the table.
        counts: "unary" and, with a CRF, "crf".
        changes: their `differences`.
    """
    table = Table(title=title)
    table.add_column("per cent, if not said otherwise")
    for kind in counts:
        table.add_column(kind, justify="right")
    if changes:
        table.add_column("difference  [95 %]", justify="right")
        table.caption = "intervals: paired bootstrap over the images"
    for section in (*SECTIONS, _classes(counts["unary"])):
        for row in section:
            score = score_named(row.name, row.within)
            values = [float(score(of_kind, of_kind.all_once())[0]) for of_kind in counts.values()]
            written = [row.written(None if value != value else value) for value in values]
            table.add_row(row.title, *written, *([row.change(changes[row])] if changes else []))
        table.add_section()
    if changes:
        harmed = harm_rate(counts["unary"], counts["crf"])
        said = ABSENT if harmed is None else f"{100 * harmed:.2f}"
        table.add_row("images with a lower mIoU", "", "", said)
    return table


def _classes(counts: SplitCounts) -> tuple[Row, ...]:
    return tuple(Row(f"IoU {name}", "iou_per_class", name) for name in counts.classes)
