"""All arms on one axis of mIoU."""

from __future__ import annotations

from matplotlib.figure import Figure

from eval import wording
from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, Undrawable, canvas, padded, with_tips
from runtime.run_folder import ARMS


def ladder(comparison: Comparison) -> Figure:
    """A large dot for the mean of an arm, small ones for its seeds, a bar for the interval.

    Raises:
        Undrawable: no arm has a score.
    """
    found = {arm: comparison.estimate(arm, "miou") for arm in ARMS}
    present = {arm: estimate for arm, estimate in found.items() if estimate is not None}
    if not present:
        raise Undrawable("No arm has a score.")
    figure, axes = canvas(540, 46 + 42 * len(present))
    values = []
    for row, (arm, estimate) in enumerate(present.items()):
        colour = COLOURS[arm]
        if estimate.interval is not None:
            low, high = (100 * end for end in estimate.interval)
            values += [low, high]
            axes.plot([low, high], [row, row], color=colour, alpha=0.3, linewidth=7)
        seeds = [100 * value for value in estimate.spread.values]
        values += seeds
        axes.scatter(
            seeds, [row] * len(seeds), s=26, color=COLOURS["page"], edgecolors=colour,
            linewidths=1.5, zorder=3,
        )  # fmt: skip
        dot = axes.scatter(
            [100 * estimate.value], [row], s=120, color=colour, edgecolors=COLOURS["page"],
            linewidths=1.5, zorder=4,
        )  # fmt: skip
        with_tips(dot, [f"{arm}: {wording.percent(estimate.spread)} % mIoU"])
        axes.annotate(
            wording.percent(estimate.spread), (1, row), xycoords=("axes fraction", "data"),
            xytext=(12, 0), textcoords="offset points", va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(present)), list(present))
    for label, arm in zip(axes.get_yticklabels(), present, strict=True):
        label.set(color=COLOURS[arm], fontweight="bold", fontsize=11)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=padded(values), ylim=(len(present) - 0.5, -0.5), xlabel="mIoU, %")
    return figure
