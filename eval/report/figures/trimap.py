"""Scores within bands of growing width around the boundaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from eval.report.comparison import Comparison, Estimate
from eval.report.figures.canvas import COLOURS, WITH_CRF, Undrawable, canvas, label_ends
from eval.summary import trimap_widths
from runtime.run_folder import ARMS

Curve = dict[int, Estimate]

SHOWN = (1, 2, 3, 5, 10, 20, 40)  # ticks, pixels


def trimap_curves(comparison: Comparison) -> Figure:
    """MIoU in per cent against the width of the band, a curve for each arm.

    Raises:
        Undrawable: no arm has trimap scores.
    """
    curves = _curves(comparison, lambda arm, w: comparison.estimate(arm, "trimap_miou", str(w)))
    if not curves:
        raise Undrawable("No arm has trimap scores.")
    return _against_width(curves, "mIoU within the band, %", None)


def trimap_differences(comparison: Comparison) -> Figure:
    """What the other arms with a CRF add to post-hoc, in points; without post-hoc, all to unary.

    Raises:
        Undrawable: neither has trimap scores.
    """
    for baseline, arms in (("post-hoc", WITH_CRF), ("unary", ARMS)):

        def pick(arm: str, width: int, baseline: str = baseline) -> Estimate | None:
            return comparison.difference(arm, baseline, "trimap_miou", str(width))

        curves = _curves(comparison, pick, arms)
        if curves:
            label = f"difference to {baseline}, points of mIoU"
            return _against_width(curves, label, baseline)
    raise Undrawable("Neither post-hoc nor unary has trimap scores to subtract.")


def _curves(
    comparison: Comparison,
    pick: Callable[[str, int], Estimate | None],
    arms: Sequence[str] = ARMS,
) -> dict[str, Curve]:
    widths = trimap_widths(comparison.results)
    curves = {
        arm: {width: found for width in widths if (found := pick(arm, width)) is not None}
        for arm in arms
    }
    return {arm: curve for arm, curve in curves.items() if curve}


def _against_width(curves: dict[str, Curve], label: str, baseline: str | None) -> Figure:
    """Means over the seeds as lines, intervals as bands, the widths on a log scale."""
    figure, axes = canvas(540, 380)
    widths = sorted({width for curve in curves.values() for width in curve})
    ends = {}
    for arm, curve in curves.items():
        at = list(curve)
        means = [100 * estimate.value for estimate in curve.values()]
        axes.plot(at, means, color=COLOURS[arm], marker="o" if len(at) < 12 else None, markersize=4)
        ends[arm] = means[-1]
        banded = {w: e.interval for w, e in curve.items() if e.interval is not None}
        if banded:
            low, high = ([100 * ends[k] for ends in banded.values()] for k in (0, 1))
            axes.fill_between(list(banded), low, high, color=COLOURS[arm], alpha=0.14, linewidth=0)
    if baseline is not None:
        axes.axhline(0, color=COLOURS[baseline], linewidth=1.5)
        ends[baseline] = 0.0
    axes.set_xscale("log")
    ticks = [width for width in SHOWN if width in widths] or widths
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    if len(widths) > 1:
        axes.set_xlim(widths[0] * 0.94, widths[-1])
    axes.set_title(label, fontweight="normal", fontsize=10.5, color=COLOURS["soft"])
    axes.set_xlabel("width of the band, pixels")
    axes.grid(visible=False, axis="x")
    label_ends(axes, widths[-1], ends)
    return figure
