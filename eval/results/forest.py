"""How the labels of a study differ from one of them: a dot and its interval for each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.metrics import Interval
from eval.report.figures import COLOURS, WITH_CRF, panels
from eval.results.lines import Load
from eval.results.paired import DIFFERENCES, differences
from eval.results.store import Study

SHOWN = ("mIoU", "3 px")
"""Of `DIFFERENCES`, a panel each."""

APART = 0.22  # of a row: two arms of one label

Dots = dict[tuple[str, str], tuple[Interval | None, ...]]
"""(label, arm) -> the intervals of `DIFFERENCES`, as shares of one."""


def forest(study: Study, load: Load) -> Figure | None:
    """Differences to `study.against`, in points, with their 95 % intervals over the images.

    Of the arms with a CRF. None where fewer than two labels have something to be compared with.
    """
    dots: Dots = {
        (line.label, line.arm): found.intervals
        for line, found in differences(study, load, "")
        if line.arm in WITH_CRF
    }
    labels = list(dict.fromkeys(label for label, _ in dots))
    if len({*labels, study.against[0]}) < 3:
        return None
    width = 7.5 * max(map(len, labels))
    figure, axes = panels(width + 560, 84 + 34 * len(labels), 1, len(SHOWN))
    titles = [score.title for score in DIFFERENCES]
    for axis, title in zip(axes, SHOWN, strict=True):
        draw_panel(axis, dots, labels, titles.index(title))
        axis.set_title(title)
        axis.set_xlabel("difference, points")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].tick_params(axis="y", labelcolor=COLOURS["text"])
    for axis in axes[1:]:
        axis.set_yticks(range(len(labels)), [""] * len(labels))
    if len({arm for _, arm in dots}) > 1:
        axes[-1].legend(labelcolor="linecolor", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_panel(axis: Axes, dots: Dots, labels: Sequence[str], score: int) -> None:
    """One score: a row for each label from above, in it the arms."""
    axis.axvline(0, color=COLOURS["soft"], linewidth=1.2)
    for arm in WITH_CRF:
        rows, found = [], []
        for row, label in enumerate(labels):
            arms = [other for other in WITH_CRF if (label, other) in dots]
            interval = dots[label, arm][score] if arm in arms else None
            if interval is not None:
                rows.append(row + APART * (arms.index(arm) - (len(arms) - 1) / 2))
                found.append([100 * value for value in interval])
        for y, (_, low, high) in zip(rows, found, strict=True):
            axis.plot([low, high], [y, y], color=COLOURS[arm])
        if rows:
            values = [value for value, _, _ in found]
            axis.scatter(values, rows, s=34, color=COLOURS[arm], label=arm, zorder=3)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
