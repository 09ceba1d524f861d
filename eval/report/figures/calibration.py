"""Whether confidence is accuracy, before and behind the CRF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.metrics import SplitCounts, score_named
from eval.metrics.confusion import ratio
from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, WITH_CRF, Undrawable, panels, with_tips


def reliability(comparison: Comparison) -> Figure:
    """Share of right pixels against confidence, before and behind the CRF of each arm.

    Pixels of all seeds together; a dot's area grows with the share of pixels in its bin. ECE and
    NLL are means over the seeds.

    Raises:
        Undrawable: no arm with a CRF has its calibration counted.
    """
    found = {arm: _pairs(comparison, arm) for arm in WITH_CRF}
    present = {arm: pair for arm, pair in found.items() if pair[0]}
    if not present:
        raise Undrawable(
            "No arm with a CRF has probabilities counted before and behind it "
            "(counts-report.npz, counts-report-before-crf.npz)."
        )
    figure, axes = panels(340 * len(present), 360, 1, len(present), share=True)
    for axis, (arm, (before, behind)) in zip(axes, present.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=COLOURS["soft"], linewidth=1.2, linestyle=(0, (3, 3)))
        _curve(axis, before, COLOURS["unary"], "before", 0.14)
        _curve(axis, behind, COLOURS[arm], "behind", 0.05)
        axis.set_title(arm, color=COLOURS[arm])
        axis.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", aspect="equal")
    axes[0].set_ylabel("share of right pixels")
    return figure


def _pairs(comparison: Comparison, arm: str) -> tuple[list[SplitCounts], list[SplitCounts]]:
    pairs = [
        (run.before, run.counts)
        for run in comparison.of(arm)
        if run.before is not None and run.counts is not None
        if run.before.bins.sum() and run.counts.bins.sum()
    ]
    return [before for before, _ in pairs], [behind for _, behind in pairs]


def _curve(axis: Axes, runs: Sequence[SplitCounts], colour: str, when: str, y: float) -> None:
    bins = np.sum([run.bins.sum(0) for run in runs], axis=0)
    pixels, right, confidence = bins.T
    filled = pixels > 0
    x, share = ratio(confidence, pixels)[filled], ratio(right, pixels)[filled]
    part = pixels[filled] / pixels.sum()
    axis.plot(x, share, color=colour, linewidth=1.8)
    dots = axis.scatter(x, share, s=8 + 170 * part, color=colour, linewidths=0, zorder=3)
    texts = [
        f"{when} the CRF: confidence {a:.3f}, right {b:.3f}, {100 * c:.1f} % of the pixels"
        for a, b, c in zip(x, share, part, strict=True)
    ]
    with_tips(dots, texts)
    ece, nll = (
        np.mean([score_named(name)(run, run.all_once())[0] for run in runs])
        for name in ("ece", "nll")
    )
    text = f"{when}: ECE {100 * ece:.2f} %, NLL {nll:.3f}"
    axis.text(0.98, y, text, color=colour, ha="right", va="bottom", fontsize=10)
