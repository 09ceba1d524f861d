"""Two plots: time against pixels, and how many times slower each other path is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from eval.benchmark.paths import NATIVE
from eval.benchmark.summary import exponent, median, pixels, problems, ratio, rows_of

FORMATS = ("png", "svg")


def write_figures(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Both plots beside the results, as PNG and SVG; returns the files."""
    written = []
    for name, figure in (("pixels", time_figure(results)), ("ratio", ratio_figure(results))):
        for suffix in FORMATS:
            path = folder / f"{results['name']}-{name}.{suffix}"
            # The same bytes for the same results.
            with mpl.rc_context({"svg.hashsalt": results["name"]}):
                figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
            written.append(path)
    return written


def time_figure(results: Mapping[str, Any]) -> Figure:
    """Time against pixels on logarithmic axes, each path with the exponent of its fit."""
    figure, axes = _axes()
    for name in _names(results, "pixels"):
        rows = rows_of(results, "pixels", path=name)
        label = f"{name}, pixels^{exponent(rows):.2f}" if len(rows) > 1 else name
        axes.plot(
            [pixels(row) / 1e6 for row in rows], [median(row) for row in rows],
            marker="o", label=label, linewidth=2 if name == NATIVE.name else 1,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="seconds")
    config = results["config"]
    axes.set_title(f"T = {config['iterations']}, {config['labels']} labels")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    return figure


def ratio_figure(results: Mapping[str, Any]) -> Figure:
    """Time of every other path over that of the native one, problem by problem."""
    figure, axes = _axes()
    groups = [(sweep, group) for sweep in ("inference", "training")
              for group in problems(results, sweep)]  # fmt: skip
    names = [name for name in _names(results, "inference") if name != NATIVE.name]
    width = 0.8 / max(1, len(names))
    for k, name in enumerate(names):
        bars = [
            (at + k * width, ratio(row, native))
            for at, (_, (native, rows)) in enumerate(groups)
            for row in rows
            if row["path"] == name
        ]
        drawn = axes.bar([x for x, _ in bars], [y for _, y in bars], width, label=name)
        axes.bar_label(drawn, fmt="%.1f", fontsize=7)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(
        [at + 0.4 - width / 2 for at in range(len(groups))],
        [_tick(sweep, native) for sweep, (native, _) in groups],
        fontsize=8,
    )
    axes.set(yscale="log", ylabel="times as slow as the native path")
    # Above the bars, none of which it may cover.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    return figure


def _tick(sweep: str, row: Mapping[str, Any]) -> str:
    if sweep == "training":
        what = "training,\ntheta learns" if row["learn_theta"] else "training"
    else:
        what = "theta\n{:g} / {:g}".format(*row["thetas"])
    return f"{what}\n{row['threads']} thread{'s' * (row['threads'] > 1)}"


def _names(results: Mapping[str, Any], sweep: str) -> list[str]:
    return list(dict.fromkeys(row["path"] for row in rows_of(results, sweep)))


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    return figure, figure.subplots()
