"""The CRF's parameters over the training."""

from __future__ import annotations

from textwrap import fill

from matplotlib.figure import Figure

from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, WITH_CRF, Undrawable, panels
from eval.report.reading import ArmRun

QUANTITIES = {
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
"""Numbers of metrics.jsonl under "crf/": what they are called, and their unit."""

COLUMNS = 3


def learning_curves(comparison: Comparison) -> Figure:
    """Widths, weights and scales by step, a line for each arm and seed; of weights their range.

    What no training moved is in one line above, as a number or a range.

    Raises:
        Undrawable: no arm has logged a training of its CRF, or none has moved anything.
    """
    trained = [
        run
        for arm in WITH_CRF
        for run in comparison.of(arm)
        if any("step" in line and "crf/theta_alpha" in line for line in run.history)
    ]
    if not trained:
        raise Undrawable("No metrics.jsonl holds the training of a CRF.")
    series = {
        key: [(run, *found) for run in trained if (found := _series(run, key))[0]]
        for key in QUANTITIES
    }
    moved = {key: rows for key, rows in series.items() if any(_moves(v) for _, _, v in rows)}
    if not moved:
        raise Undrawable("No training has moved a parameter of its CRF.")
    constant = [
        f"{QUANTITIES[key][0]} {_range([v[0] for _, _, v in rows])} {QUANTITIES[key][1]}".strip()
        for key, rows in series.items()
        if rows and key not in moved
    ]
    columns = min(COLUMNS, len(moved))
    rows_of_axes = -(-len(moved) // columns)
    width = max(510, 340 * columns)
    held = fill(f"not moved: {', '.join(constant)}", width // 7) if constant else ""
    height = 25 + 15 * len(held.splitlines()) + 230 * rows_of_axes
    figure, axes = panels(width, height, rows_of_axes, columns)
    for axis, (key, rows) in zip(axes, moved.items(), strict=False):
        for run, steps, values in rows:
            axis.plot(steps, values, color=COLOURS[run.arm], linewidth=1.8, label=run.arm)
            low, high = (_series(run, key.replace("_mean", end))[1] for end in ("_min", "_max"))
            if key.endswith("_mean") and len(low) == len(high) == len(steps):
                axis.fill_between(steps, low, high, color=COLOURS[run.arm], alpha=0.1, linewidth=0)
        axis.set_title(", ".join(filter(None, QUANTITIES[key])))
        axis.set_xlabel("step")
        axis.grid(visible=False, axis="x")
    for axis in axes[len(moved) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes[0].legend(list(named.values()), list(named), labelcolor="linecolor")
    if held:
        figure.suptitle(held, x=0.01, ha="left", fontsize=10.5, color=COLOURS["soft"])
    return figure


def _series(run: ArmRun, key: str) -> tuple[list[int], list[float]]:
    lines = [line for line in run.history if "step" in line and f"crf/{key}" in line]
    return [int(line["step"]) for line in lines], [float(line[f"crf/{key}"]) for line in lines]


def _range(values: list[float]) -> str:
    low, high = (f"{end(values):.4g}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _moves(values: list[float]) -> bool:
    """More than single precision alone would."""
    return max(values) - min(values) > 1e-5 * max(map(abs, values))
