"""Differences class by class."""

from __future__ import annotations

from matplotlib.figure import Figure

from eval import wording
from eval.report.comparison import Comparison, Estimate
from eval.report.figures.canvas import (
    COLOURS,
    WITH_CRF,
    Undrawable,
    canvas,
    padded,
    with_tips,
)


def class_differences(comparison: Comparison) -> Figure:
    """IoU of every scored class minus that of unary, in points: a dot an arm, a bar its interval.

    On the right, joint minus post-hoc, with an arrow where its interval excludes zero.

    Raises:
        Undrawable: unary has no class scores.
    """
    rows = _rows(comparison)
    if not rows:
        raise Undrawable("The unary arm, or every arm with a CRF, lacks class scores to compare.")
    figure, axes = canvas(620, 70 + 27 * len(rows))
    values = [0.0]
    for row, (name, estimates) in enumerate(rows.items()):
        for place, (arm, estimate) in enumerate(estimates.items()):
            y = row + 0.2 * (place - (len(estimates) - 1) / 2)
            if estimate.interval is not None:
                ends = [100 * end for end in estimate.interval]
                values += ends
                axes.plot(ends, [y, y], color=COLOURS[arm], alpha=0.4, linewidth=2)
            values.append(100 * estimate.value)
            dot = axes.scatter(
                [100 * estimate.value], [y], s=38, color=COLOURS[arm],
                edgecolors=COLOURS["page"], linewidths=1, zorder=3,
            )  # fmt: skip
            text = wording.percent(estimate.spread, signed=True)
            with_tips(dot, [f"{name}, {arm}: {text} points"])
        gain = comparison.difference("joint", "post-hoc", "iou_per_class", name)
        text = wording.ABSENT
        if gain is not None:
            arrow = ("▲ " if gain.value > 0 else "▼ ") if gain.sure else ""
            text = arrow + wording.percent(gain.spread, signed=True).replace("-", "−")
        axes.annotate(
            text, (1, row), xycoords=("axes fraction", "data"), xytext=(110, 0),
            textcoords="offset points", va="center", ha="right", annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        "joint − post-hoc", (1, 1), xycoords="axes fraction", xytext=(110, 6),
        textcoords="offset points", ha="right", va="bottom", color=COLOURS["soft"],
        annotation_clip=False, fontsize=10.5,
    )  # fmt: skip
    axes.axvline(0, color=COLOURS["unary"], linewidth=1.5)
    axes.set_title("unary = 0", fontweight="normal", fontsize=10.5, color=COLOURS["unary"])
    axes.set_yticks(range(len(rows)), list(rows))
    for label in axes.get_yticklabels():
        label.set(color=COLOURS["text"], fontsize=11)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=padded(values), ylim=(len(rows) - 0.5, -0.5), xlabel="points of IoU")
    return figure


def _rows(comparison: Comparison) -> dict[str, dict[str, Estimate]]:
    """Class -> arm -> difference of IoU to unary; classes and arms without one are left out."""
    rows: dict[str, dict[str, Estimate]] = {}
    for name in (comparison.classes[index] for index in comparison.scored):
        for arm in WITH_CRF:
            found = comparison.difference(arm, "unary", "iou_per_class", name)
            if found is not None:
                rows.setdefault(name, {})[arm] = found
    return rows
