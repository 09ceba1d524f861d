"""Draw the figures of a comparison with matplotlib, as SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from eval import tables
from eval.metrics import SplitCounts, gains, score_named
from eval.metrics.confusion import ratio
from eval.runs import Comparison, Estimate, Run, Values
from runtime.run_folder import ARMS

COLOURS = {
    "page": "#ffffff",
    "text": "#1d1f23",
    "soft": "#5f646c",
    "rule": "#e4e2dd",
    "fall": "#2166ac",
    "rise": "#b2402b",
    "start": "#74797f",
    "unary": "#0072b2",
    "post-hoc": "#b96a00",
    "crf-only": "#b0558a",
    "joint": "#00805f",
}

WITH_CRF = ("post-hoc", "crf-only", "joint")

Matrix = npt.NDArray[Any]

_STYLE: dict[Any, Any] = {
    # DejaVu Sans comes with matplotlib; a browser without it takes Verdana, which is as wide.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 11.5,
    "text.parse_math": False,  # names may hold a $
    "text.color": COLOURS["text"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.titlecolor": COLOURS["text"],
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    **{f"axes.spines.{side}": False for side in ("top", "right", "left", "bottom")},
    "axes.formatter.useoffset": False,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 1.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.labelcolor": "linecolor",
    "figure.facecolor": COLOURS["page"],
    "figure.dpi": 72.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "crfrnn",  # the same bytes for the same figure
    **{
        f"{axis}tick.{key}": value
        for axis in "xy"
        for key, value in {
            "color": COLOURS["soft"],
            "labelsize": 10.5,
            "major.size": 0.0,
            "minor.size": 0.0,
        }.items()
    },
}


class Undrawable(ValueError):
    """A figure lacks its data; the message says which."""


@contextmanager
def style() -> Iterator[None]:
    """Draw and save figures in the look of the report, without touching global settings."""
    with mpl.rc_context(_STYLE):
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; sizes in points, which a page shows as CSS pixels."""
    figure, axes = panels(width, height, 1, 1)
    return figure, axes[0]


def panels(
    width: float, height: float, rows: int, columns: int, *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of axes, and return the axes row by row.

    Args:
        width: points.
        height: points.
        rows: of axes.
        columns: of axes.
        share: use one range for all axes, in x and in y.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.05, hspace=0.06)
    figure = Figure(figsize=(width / 72, height / 72), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, list(axes.flat)


def svg_of(figure: Figure) -> str:
    """Render a figure as SVG text."""
    buffer = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", dpi=144, metadata=metadata)  # dpi of what is rasterized
    return buffer.getvalue().decode()


def ladder(comparison: Comparison) -> Figure:
    """Draw mIoU by arm: a large dot for the mean, small ones for seeds, a bar for the interval."""
    present = _present(
        {arm: comparison.estimate(arm, "miou") for arm in ARMS}, "No arm has a score."
    )
    figure, axes = canvas(480, 46 + 42 * len(present))
    values = []
    for row, (arm, estimate) in enumerate(present.items()):
        colour, ends = COLOURS[arm], [100 * end for end in estimate.interval or ()]
        seeds = [100 * value for value in estimate.spread.values]
        values += [*ends, *seeds]
        axes.plot(ends, [row] * len(ends), color=colour, alpha=0.3, linewidth=7)
        axes.scatter(seeds, [row] * len(seeds), s=26, color=COLOURS["page"], edgecolors=colour,
                     linewidths=1.5, zorder=3)  # fmt: skip
        axes.scatter(100 * estimate.value, row, s=120, color=colour, edgecolors=COLOURS["page"],
                     linewidths=1.5, zorder=4)  # fmt: skip
        _beside(axes, row, tables.percent(estimate.spread), 12, "left")
    axes.set_yticks(range(len(present)), list(present))
    for label, arm in zip(axes.get_yticklabels(), present, strict=True):
        label.set(color=COLOURS[arm], fontweight="bold", fontsize=11)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=_padded(values), ylim=(len(present) - 0.5, -0.5), xlabel="mIoU, %")
    return figure


def trimap_curves(comparison: Comparison) -> Figure:
    """Draw mIoU against the width of the trimap band, a curve for each arm."""

    def estimate(arm: str, width: int) -> Estimate | None:
        return comparison.estimate(arm, "trimap_miou", str(width))

    curves = _curves(comparison, estimate, ARMS)
    if not curves:
        raise Undrawable("No arm has trimap scores.")
    return _against_width(curves, "mIoU within the band, %", None)


def trimap_differences(comparison: Comparison) -> Figure:
    """Draw what the other arms with a CRF add to post-hoc; without post-hoc, all arms to unary."""
    for baseline, arms in (("post-hoc", WITH_CRF), ("unary", ARMS)):

        def difference(arm: str, width: int, baseline: str = baseline) -> Estimate | None:
            return comparison.difference(arm, baseline, "trimap_miou", str(width))

        curves = _curves(comparison, difference, arms)
        if curves:
            return _against_width(curves, f"difference to {baseline}, points of mIoU", baseline)
    raise Undrawable("Neither post-hoc nor unary has trimap scores to subtract.")


def _curves(
    comparison: Comparison, score: Callable[[str, int], Estimate | None], arms: Sequence[str]
) -> dict[str, dict[int, Estimate]]:
    """Collect arm -> width of the band in pixels -> estimate."""
    widths = comparison.trimap_widths
    curves = {arm: {w: value for w in widths if (value := score(arm, w))} for arm in arms}
    return {arm: curve for arm, curve in curves.items() if curve}


def _against_width(
    curves: Mapping[str, Mapping[int, Estimate]], label: str, baseline: str | None
) -> Figure:
    """Draw means over the seeds as lines and intervals as bands, the widths on a log scale."""
    figure, axes = canvas(500, 370)
    widths = sorted({width for curve in curves.values() for width in curve})
    ends = {}
    for arm, curve in curves.items():
        means = [100 * estimate.value for estimate in curve.values()]
        marker = "o" if len(curve) < 12 else None
        axes.plot(list(curve), means, color=COLOURS[arm], marker=marker, markersize=4)
        ends[arm] = means[-1]
        bands = {w: e.interval for w, e in curve.items() if e.interval is not None}
        low, high = ([100 * band[end] for band in bands.values()] for end in (0, 1))
        axes.fill_between(list(bands), low, high, color=COLOURS[arm], alpha=0.14, linewidth=0)
    if baseline is not None:
        axes.axhline(0, color=COLOURS[baseline], linewidth=1.5)
        ends[baseline] = 0.0
    axes.set_xscale("log")
    ticks = [width for width in (1, 2, 3, 5, 10, 20, 40) if width in widths] or widths
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    if len(widths) > 1:
        axes.set_xlim(widths[0] * 0.94, widths[-1])
    axes.set_title(label, fontweight="normal", fontsize=10.5, color=COLOURS["soft"])
    axes.set_xlabel("width of the band, pixels")
    axes.grid(visible=False, axis="x")
    bottom, top = axes.get_ylim()
    gap = 15 * (top - bottom) / 300  # 15 points of some 300
    places = _spread_apart(list(ends.values()), gap)
    for arm, y in zip(ends, places, strict=True):
        axes.annotate(
            arm, (widths[-1], y), xytext=(7, 0), textcoords="offset points", va="center",
            color=COLOURS[arm], fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    return figure


def class_differences(comparison: Comparison) -> Figure:
    """Draw IoU of every scored class minus that of unary: a dot an arm, a bar its interval.

    On the right, joint minus post-hoc, with an arrow where its interval excludes zero.
    """
    names = [comparison.classes[index] for index in comparison.scored]
    all_rows = {
        name: {
            arm: estimate
            for arm in WITH_CRF
            if (estimate := comparison.difference(arm, "unary", "iou_per_class", name))
        }
        for name in names
    }
    rows = {name: estimates for name, estimates in all_rows.items() if estimates}
    if not rows:
        raise Undrawable("The unary arm, or every arm with a CRF, lacks class scores to compare.")
    figure, axes = canvas(560, 70 + 27 * len(rows))
    values = [0.0]
    for row, (name, estimates) in enumerate(rows.items()):
        for place, (arm, estimate) in enumerate(estimates.items()):
            y = row + 0.2 * (place - (len(estimates) - 1) / 2)
            ends = [100 * end for end in estimate.interval or ()]
            values += [*ends, 100 * estimate.value]
            axes.plot(ends, [y] * len(ends), color=COLOURS[arm], alpha=0.4)
            axes.scatter(100 * estimate.value, y, s=38, color=COLOURS[arm],
                         edgecolors=COLOURS["page"], linewidths=1, zorder=3)  # fmt: skip
        gain = comparison.difference("joint", "post-hoc", "iou_per_class", name)
        text = tables.ABSENT
        if gain is not None:
            arrow = ("▲ " if gain.value > 0 else "▼ ") if gain.sure else ""
            text = arrow + tables.percent(gain.spread, signed=True).replace("-", "−")
        _beside(axes, row, text, 110, "right")
    _beside(axes, -0.75, "joint − post-hoc", 110, "right", color=COLOURS["soft"], fontsize=10.5)
    axes.axvline(0, color=COLOURS["unary"], linewidth=1.5)
    axes.set_title("unary = 0", fontweight="normal", fontsize=10.5, color=COLOURS["unary"])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", labelcolor=COLOURS["text"], labelsize=11)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=_padded(values), ylim=(len(rows) - 0.5, -0.5), xlabel="points of IoU")
    return figure


def gain_against_strength(comparison: Comparison) -> Figure:
    """Draw a point an image and seed: mIoU of the arm's network alone, and what its CRF adds.

    The line is a running mean over a sixth of the images by strength.
    """
    present = _present(
        {arm: [gains(*pair) for pair in _pairs(comparison, arm)] for arm in WITH_CRF},
        "No arm with a CRF has counts of its images before and behind it "
        "(counts-report.npz, counts-report-before-crf.npz).",
    )
    figure, axes = panels(340 * len(present), 340, 1, len(present), share=True)
    for axis, (arm, pairs) in zip(axes, present.items(), strict=True):
        strength, gained = 100 * np.concatenate(pairs, axis=1)
        order = np.argsort(strength, kind="stable")
        order = order[~np.isnan(gained[order])]
        strength, gained = strength[order], gained[order]
        axis.axhline(0, color=COLOURS["soft"], linewidth=1.2)
        axis.scatter(strength, gained, s=13, color=COLOURS[arm], alpha=0.45, linewidths=0,
                     rasterized=len(order) > 2000)  # fmt: skip
        if len(order) >= 12:
            box = np.full(len(order) // 6, 1 / (len(order) // 6))
            mean = [np.convolve(values, box, mode="valid") for values in (strength, gained)]
            axis.plot(*mean, color=COLOURS["page"], linewidth=4.5)
            axis.plot(*mean, color=COLOURS[arm], linewidth=2.2)
        harm = comparison.harm(arm)
        rate = "" if harm is None else f", worse on {100 * harm.value:.1f} % of the images"
        axis.set_title(f"{arm}{rate}", color=COLOURS[arm])
        axis.set_xlabel("mIoU of the network alone, %")
    axes[0].set_ylabel("gain of the CRF, points")
    return figure


def reliability(comparison: Comparison) -> Figure:
    """Draw the share of right pixels against confidence, before and behind the CRF of each arm.

    Pixels of all seeds together; a dot's area grows with the share of pixels in its bin. ECE and
    NLL are means over the seeds.
    """
    present = _present(
        {
            arm: [p for p in _pairs(comparison, arm) if all(counts.bins.sum() for counts in p)]
            for arm in WITH_CRF
        },
        "No arm with a CRF has probabilities counted before and behind it "
        "(counts-report.npz, counts-report-before-crf.npz).",
    )
    figure, axes = panels(340 * len(present), 360, 1, len(present), share=True)
    for axis, (arm, pairs) in zip(axes, present.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=COLOURS["soft"], linewidth=1.2, linestyle=(0, (3, 3)))
        before, behind = zip(*pairs, strict=True)
        _calibration_curve(axis, before, COLOURS["unary"], "before", 0.14)
        _calibration_curve(axis, behind, COLOURS[arm], "behind", 0.05)
        axis.set_title(arm, color=COLOURS[arm])
        axis.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", aspect="equal")
    axes[0].set_ylabel("share of right pixels")
    return figure


def _calibration_curve(
    axis: Axes, runs: Sequence[SplitCounts], colour: str, when: str, y: float
) -> None:
    bins = np.sum([run.bins.sum(0) for run in runs], axis=0)
    pixels, right, confidence = bins[bins[:, 0] > 0].T
    x, share = ratio(confidence, pixels), ratio(right, pixels)
    axis.plot(x, share, color=colour, linewidth=1.8)
    axis.scatter(x, share, s=8 + 170 * pixels / pixels.sum(), color=colour, linewidths=0, zorder=3)
    ece, nll = (
        np.mean([score_named(name)(run, run.all_once())[0] for run in runs])
        for name in ("ece", "nll")
    )
    text = f"{when}: ECE {100 * ece:.2f} %, NLL {nll:.3f}"
    axis.text(0.98, y, text, color=colour, ha="right", va="bottom", fontsize=10)


TRACED = {
    "relaxed_energy": "energy per pixel",
    "kl": "KL to the posterior + constant",
    "largest_change": "largest change of q",
}


def iterations(comparison: Comparison) -> Figure:
    """Draw the energy (of q, and of its labelling: dashed), KL(q || p) up to log Z, change of q.

    Of the report split's first image, a line for each arm and seed.
    """
    present = _present(
        {arm: _traces(comparison, arm) for arm in WITH_CRF},
        "No metrics.jsonl holds the iterations of a CRF.",
    )
    figure, axes = panels(1020, 300, 1, len(TRACED))
    for axis, (key, title) in zip(axes, TRACED.items(), strict=True):
        for arm, traces in present.items():
            line = partial(axis.plot, color=COLOURS[arm], linewidth=1.8)
            for number, trace in enumerate(traces):
                rows = trace[1:] if key == "largest_change" else trace  # q_0 changed from nothing
                steps = [row["iteration"] for row in rows]
                line(steps, [row[key] for row in rows], label=arm if number == 0 else None)
                if key == "relaxed_energy":
                    line(steps, [row["discrete_energy"] for row in rows], linestyle=(0, (2, 2)))
        axis.set_title(title)
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(visible=False, axis="x")
    axes[-1].set_yscale("log")
    axes[-1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[-1].yaxis.set_major_formatter("{x:g}")  # the default writes formulas
    axes[-1].yaxis.set_minor_formatter(NullFormatter())
    axes[-1].legend()
    return figure


def _traces(comparison: Comparison, arm: str) -> list[list[Values]]:
    """Find the last trace that each seed's metrics.jsonl holds whole."""
    columns = {"iteration", "discrete_energy", *TRACED}
    last = []
    for run in comparison.of(arm):
        traces = [line.get("crf/iterations") for line in run.history]
        whole = [trace for trace in traces if trace and all(columns <= row.keys() for row in trace)]
        last += whole[-1:]
    return last


PARAMETERS = {
    "theta_alpha": ("θα", "px"),
    "theta_beta": ("θβ", "grey levels"),
    "theta_gamma": ("θγ", "px"),
    "bilateral_weight_mean": ("bilateral weight", ""),
    "spatial_weight_mean": ("spatial weight", ""),
    "context_weight_mean": ("a label's context weight for itself", ""),
    "compatibility_off_diagonal": ("compatibility off the diagonal", ""),
    "unary_scale": ("scale of the unary", ""),
    "output_scale": ("scale of the output", ""),
}
"""Numbers of metrics.jsonl under "crf/": name and unit."""


def learning_curves(comparison: Comparison) -> Figure:
    """Draw the CRF's numbers by training step, a line for each arm and seed; weights as ranges.

    What no training moved is in one line above, as a number or a range.
    """
    runs = [run for arm in WITH_CRF for run in comparison.of(arm) if _series(run, "theta_alpha")]
    if not runs:
        raise Undrawable("No metrics.jsonl holds the training of a CRF.")
    logged = {key: [(run, series) for run in runs if (series := _series(run, key))]
              for key in PARAMETERS}  # fmt: skip
    moved = {
        key: lines
        for key, lines in logged.items()
        if any(_moves(list(series.values())) for _, series in lines)
    }
    if not moved:
        raise Undrawable("No training has moved a parameter of its CRF.")
    constant = []
    for key, lines in logged.items():
        if lines and key not in moved:
            name, unit = PARAMETERS[key]
            starts = [next(iter(series.values())) for _, series in lines]
            ends = dict.fromkeys(f"{end:.4g}" for end in (min(starts), max(starts)))
            constant.append(f"{name} {' to '.join(ends)} {unit}".strip())
    columns = min(3, len(moved))
    rows = -(-len(moved) // columns)
    width = max(510, 340 * columns)
    heading = fill(f"not moved: {', '.join(constant)}", width // 7) if constant else ""
    height = 25 + 15 * len(heading.splitlines()) + 230 * rows
    figure, axes = panels(width, height, rows, columns)
    for axis, (key, lines) in zip(axes, moved.items(), strict=False):
        for run, series in lines:
            colour = COLOURS[run.arm]
            axis.plot(
                *zip(*series.items(), strict=True), color=colour, linewidth=1.8, label=run.arm
            )
            low, high = (_series(run, key.replace("_mean", end)) for end in ("_min", "_max"))
            if key.endswith("_mean") and low.keys() == high.keys() == series.keys():
                axis.fill_between(list(low), list(low.values()), list(high.values()), color=colour,
                                  alpha=0.1, linewidth=0)  # fmt: skip
        axis.set_title(", ".join(filter(None, PARAMETERS[key])))
        axis.set_xlabel("step")
        axis.grid(visible=False, axis="x")
    for axis in axes[len(moved) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    by_arm = dict(zip(labels, handles, strict=True))
    axes[0].legend(list(by_arm.values()), list(by_arm))
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10.5, color=COLOURS["soft"])
    return figure


def _series(run: Run, key: str) -> dict[int, float]:
    """Collect step -> a number of the CRF."""
    key = f"crf/{key}"
    lines = [line for line in run.history if "step" in line and key in line]
    return {int(line["step"]): float(line[key]) for line in lines}


def _moves(values: Sequence[float]) -> bool:
    """Tell whether values differ by more than single precision alone makes them."""
    return max(values) - min(values) > 1e-5 * max(map(abs, values))


def learned_matrices(comparison: Comparison, arm: str) -> Figure:
    """Draw kernel weights and compatibility of an arm's first seed, as changes from their start.

    The weights started from the run's own `crf_start`, or else from the post-hoc CRF of the seed;
    the compatibility from Potts.
    """
    run = next((run for run in comparison.of(arm) if run.result["crf"] is not None), None)
    if run is None:
        raise Undrawable(f"No CRF of {arm}.")
    crf, origin, start = run.result["crf"], "its start", run.result.get("crf_start")
    post_hoc = comparison.find("post-hoc", run.seed)
    if not start and post_hoc is not None:
        origin, start = "post-hoc", post_hoc.result["crf"]
    before = start["kernel_weights"] if start else {}
    size = len(crf["compatibility"])
    names = comparison.classes if len(comparison.classes) == size else list(map(str, range(size)))
    side = 240 + 8 * size
    weights = {
        **{name: crf["kernel_weights"][name] for name in ("bilateral", "spatial")},
        **crf["kernel_weights"],
    }
    figure, axes = panels((len(weights) + 1) * side, side + 20, 1, len(weights) + 1)
    for axis, (kernel, matrix) in zip(axes, weights.items(), strict=False):
        # A context kernel starts silent; post-hoc has none.
        centre = np.asarray(before.get(kernel, np.zeros((size, size))))
        centre_name = origin if kernel in before else "zero"
        heat_map(axis, f"{kernel} kernel weights", np.asarray(matrix), centre, names, centre_name)
    compatibility, potts = np.asarray(crf["compatibility"]), 1 - np.eye(size)
    heat_map(axes[-1], "compatibility (penalty)", compatibility, potts, names, "Potts")
    return figure


def heat_map(
    axis: Axes,
    title: str,
    matrix: Matrix,
    centre: Matrix,
    names: Sequence[str],
    centre_name: str,
) -> None:
    """Draw a matrix, coloured by its difference to another one: blue lower, red higher.

    Args:
        axis: to draw on.
        title: what the matrix is.
        matrix: (L, L) values.
        centre: (L, L) values that count as no change.
        names: L label names.
        centre_name: what `centre` is, as in "change from Potts".

    Raises:
        ValueError: the sizes do not agree.
    """
    size = len(names)
    for what, values in (("matrix", matrix), ("centre", centre)):
        if values.shape != (size, size):
            raise ValueError(
                f"{title}: expected a {size} x {size} {what} for {size} label names, got "
                f"{values.shape}"
            )
    change = matrix - centre
    largest = float(np.abs(change).max())
    colours = [COLOURS["fall"], COLOURS["page"], COLOURS["rise"]]
    axis.pcolormesh(
        change, cmap=LinearSegmentedColormap.from_list("change", colours),
        vmin=-1.3 * (largest or 1), vmax=1.3 * (largest or 1),  # numbers stay readable
        edgecolors=COLOURS["rule"], linewidth=0.7,
    )  # fmt: skip
    if size <= 10:  # beyond, numbers do not fit their cells
        for row, column in zip(*np.nonzero(np.abs(change) >= 0.005), strict=True):
            value = change[row, column]
            digits = f"{value:+.2f}" if abs(value) < 10 else f"{value:+.1f}"
            text = digits.replace("0.", ".", 1) if abs(value) < 1 else digits
            axis.text(column + 0.5, row + 0.5, text.replace("-", "−"), ha="center", va="center",
                      fontsize=9)  # fmt: skip
    middles = np.arange(size) + 0.5
    axis.set_xticks(middles, list(names), rotation=90)
    axis.set_yticks(middles, list(names))
    axis.xaxis.tick_top()
    axis.grid(visible=False)
    axis.set(ylim=(size, 0), aspect="equal")
    axis.set_title(title, pad=10)
    strongest = f"change from {centre_name}, strongest {largest:.3g}"
    axis.set_xlabel(strongest if largest else f"same as {centre_name}")


KINDS: Mapping[str, tuple[Callable[[Comparison], Figure], str]] = {
    "ladder": (ladder, "mIoU of every arm in per cent"),
    "trimap": (trimap_curves, "mIoU against the width of the trimap band"),
    "trimap-difference": (
        trimap_differences,
        "difference of mIoU against the width of the trimap band",
    ),
    "classes": (class_differences, "difference of IoU to unary, class by class"),
    "strength": (
        gain_against_strength,
        "gain of the CRF on every image against the mIoU of the network",
    ),
    "calibration": (
        reliability,
        "share of right pixels against confidence, before and behind the CRF",
    ),
    "iterations": (iterations, "energy, divergence and change of q by iteration of the CRF"),
    "learning": (learning_curves, "the CRF's parameters by training step"),
    **{
        f"matrices-{arm}": (
            partial(learned_matrices, arm=arm),
            f"kernel weights and compatibility of the {arm} arm, as changes from their start",
        )
        for arm in ("joint", "crf-only")
    },
}
"""Name of a figure -> what draws it, and what it shows, for readers who do not see it."""


@dataclass(frozen=True)
class Drawing:
    """A figure of one comparison.

    Attributes:
        label: what it shows.
        svg: content of a file; empty without a figure.
        png: content of a file; empty without a figure.
        width: CSS pixels.
        reason: why there is no figure; empty with one.
    """

    label: str
    svg: str = ""
    png: bytes = b""
    width: float = 0
    reason: str = ""


def draw(comparison: Comparison, name: str) -> Drawing:
    """Draw one of `KINDS`."""
    make, label = KINDS[name]
    with style():
        try:
            figure = make(comparison)
        except Undrawable as reason:
            return Drawing(label, reason=str(reason))
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=144)  # two pixels a point
        return Drawing(label, svg_of(figure), buffer.getvalue(), 72 * figure.get_figwidth())


def write_files(drawings: Mapping[str, Drawing], folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.png of every figure there is; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in drawings.items():
        if not drawing.reason:
            svg, png = folder / f"{name}.svg", folder / f"{name}.png"
            svg.write_text(drawing.svg, encoding="utf-8")
            png.write_bytes(drawing.png)
            written += [svg, png]
    return written


def _present(by_arm: Mapping[str, Any], otherwise: str) -> dict[str, Any]:
    """Keep the arms that have something; raise `Undrawable` without any."""
    present = {arm: value for arm, value in by_arm.items() if value}
    if not present:
        raise Undrawable(otherwise)
    return present


def _pairs(comparison: Comparison, arm: str) -> list[tuple[SplitCounts, SplitCounts]]:
    """Collect the counts before and behind the CRF of every seed that has both."""
    runs = comparison.of(arm)
    return [(r.before, r.counts) for r in runs if r.before is not None and r.counts is not None]


def _beside(axes: Axes, row: float, text: str, points: float, side: str, **look: Any) -> None:
    """Write a text right of the axes, its `side` that many points from them."""
    axes.annotate(
        text, (1, row), xycoords=("axes fraction", "data"), xytext=(points, 0),
        textcoords="offset points", va="center", ha=side, annotation_clip=False, **look,
    )  # fmt: skip


def _spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions as little as needed for neighbours to be `gap` apart, keeping their order.

    Each pass pushes every overlapping pair apart by half of what it lacks.
    """
    order = np.argsort(positions, kind="stable")
    placed = np.asarray(positions, dtype=float)
    for _ in range(100):
        for below, above in pairwise(order):
            lack = max(0.0, gap - (placed[above] - placed[below]))
            placed[below] -= lack / 2
            placed[above] += lack / 2
    return list(placed)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the finite values with a margin on both sides; never empty."""
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
