"""What the CRF gains on an image, against how good the network was there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.metrics import gains
from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, WITH_CRF, Undrawable, panels, with_tips

WINDOW = 6  # the running mean is over a sixth of the images


def gain_against_strength(comparison: Comparison) -> Figure:
    """A point an image and seed: mIoU of the arm's network alone, and what its CRF adds.

    The line is a running mean over the images by strength.

    Raises:
        Undrawable: no arm with a CRF has the counts of its network alone.
    """
    points = {arm: _points(comparison, arm) for arm in WITH_CRF}
    present = {arm: found for arm, found in points.items() if len(found[0])}
    if not present:
        raise Undrawable(
            "No arm with a CRF has counts of its images before and behind it "
            "(counts-report.npz, counts-report-before-crf.npz)."
        )
    figure, axes = panels(340 * len(present), 340, 1, len(present), share=True)
    for axis, (arm, (strength, gained, names)) in zip(axes, present.items(), strict=True):
        harm = comparison.harm(arm)
        rate = "" if harm is None else f", worse on {100 * harm.value:.1f} % of the images"
        _scatter(axis, arm, strength, gained, names)
        axis.set_title(f"{arm}{rate}", color=COLOURS[arm])
        axis.set_xlabel("mIoU of the network alone, %")
    axes[0].set_ylabel("gain of the CRF, points")
    return figure


def _points(comparison: Comparison, arm: str) -> tuple[list[float], list[float], list[str]]:
    """Strength and gain of every image and seed, per cent, and what to call them."""
    strength: list[float] = []
    gained: list[float] = []
    names: list[str] = []
    for run in comparison.of(arm):
        if run.before is None or run.counts is None:
            continue
        for x, y, name in zip(*gains(run.before, run.counts), run.counts.names, strict=True):
            if not np.isnan(y):
                strength.append(100 * float(x))
                gained.append(100 * float(y))
                names.append(f"{name}, seed {run.seed}")
    return strength, gained, names


def _scatter(
    axis: Axes, arm: str, strength: list[float], gained: list[float], names: list[str]
) -> None:
    axis.axhline(0, color=COLOURS["soft"], linewidth=1.2)
    few = len(strength) <= 2000  # beyond, a text for each would weigh megabytes
    dots = axis.scatter(
        strength, gained, s=13, color=COLOURS[arm], alpha=0.45, linewidths=0, rasterized=not few
    )
    if few:
        texts = [
            f"{name}: {x:.1f} → {x + y:.1f} %"
            for name, x, y in zip(names, strength, gained, strict=True)
        ]
        with_tips(dots, texts)
    order = np.argsort(strength, kind="stable")
    width = max(1, len(order) // WINDOW)
    box = np.ones(width) / width
    means = [np.convolve(np.asarray(v)[order], box, mode="valid") for v in (strength, gained)]
    if len(order) >= 2 * WINDOW:
        axis.plot(*means, color=COLOURS["page"], linewidth=4.5)
        axis.plot(*means, color=COLOURS[arm], linewidth=2.2)
