"""The objective over pairs of values: where it is flat, and where the search has looked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from matplotlib.tri import Triangulation

from eval.tuning.method import SEARCHED
from models import CrfConfig

LABELS = {
    "theta_gamma": "theta_gamma, px",
    "spatial_weight": "spatial weight",
    "theta_alpha": "theta_alpha, px",
    "theta_beta": "theta_beta, grey levels",
    "bilateral_weight": "bilateral weight",
}
ACROSS = 3  # panels in a row


def write_surface(values: Mapping[CrfConfig, float], title: str, stem: Path) -> list[Path]:
    """The figure as PNG and SVG; none where fewer than two settings differ."""
    moved = [n for n in SEARCHED if len({getattr(s, n) for s in values}) > 1]
    if not moved:
        return []
    figure = surface_figure(values, moved, title)
    written = []
    for suffix in ("png", "svg"):
        path = stem.with_suffix(f".{suffix}")
        with mpl.rc_context({"svg.hashsalt": stem.name}):  # the same bytes for the same scores
            figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
        written.append(path)
    return written


def surface_figure(values: Mapping[CrfConfig, float], moved: list[str], title: str) -> Figure:
    """One panel for each pair of moved values, or one curve where a single value moved."""
    best = max(values, key=values.__getitem__)
    pairs = list(combinations(moved, 2))
    count = max(1, len(pairs))
    columns = min(ACROSS, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(1 + 4.6 * columns, 0.6 + 4 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels[count:]:
        panel.set_visible(False)
    if not pairs:
        _curve(panels[0], values, moved[0], best, title)
        return figure
    shown = np.array(list(values.values()))
    # Few settings are much worse: on one scale with them the others would look alike.
    scale = mpl.colors.Normalize(max(shown.min(), np.quantile(shown, 0.1)), shown.max())
    for panel, pair in zip(panels, pairs, strict=False):
        drawn = _panel(panel, values, pair, best, scale)
    figure.colorbar(drawn, ax=panels[:count].tolist(), label=title, extend="min")
    return figure


def _panel(
    axes: Any,
    values: Mapping[CrfConfig, float],
    pair: tuple[str, str],
    best: CrfConfig,
    scale: mpl.colors.Normalize,
) -> Any:
    """The best value at every place of a pair, over all others."""
    highest: dict[tuple[float, float], float] = {}
    for setting, value in values.items():
        at = getattr(setting, pair[0]), getattr(setting, pair[1])
        highest[at] = max(value, highest.get(at, value))
    places, top = np.array(list(highest)), np.array(list(highest.values()))
    logs = np.log(places)
    logs = (logs - logs.min(0)) / np.ptp(logs, axis=0)  # neighbours as the eye sees them
    if np.linalg.matrix_rank(logs - logs.mean(0), tol=1e-6) == 2:
        triangles = Triangulation(*logs.T).triangles
        levels = np.linspace(scale.vmin, scale.vmax, 13)  # type: ignore[arg-type]
        if levels[0] < levels[-1]:
            axes.tricontourf(
                *places.T, triangles, top, levels=levels, norm=scale, alpha=0.55, extend="min"
            )
    drawn = axes.scatter(*places.T, c=top, norm=scale, s=42, edgecolors="black", linewidths=0.6)
    chosen = [getattr(best, name) for name in pair]
    axes.scatter(*chosen, marker="*", s=320, color="white", edgecolors="black", zorder=3)
    axes.use_sticky_edges = False
    axes.margins(0.07)
    axes.set(xscale="log", yscale="log", xlabel=LABELS[pair[0]], ylabel=LABELS[pair[1]])
    for axis, column in ((axes.xaxis, places[:, 0]), (axes.yaxis, places[:, 1])):
        axis.set_ticks(_ticks(column))
        axis.set_major_formatter(FormatStrFormatter("%.4g"))
        axis.set_minor_formatter(NullFormatter())
    return drawn


def _ticks(column: Any) -> list[float]:
    """Some of the values, far enough apart to be read."""
    chosen: list[float] = []
    for value in np.unique(column).tolist():
        if not chosen or value / chosen[-1] > 1.12:
            chosen.append(value)
    return chosen if len(chosen) <= 8 else chosen[:: -(-len(chosen) // 8)]


def _curve(
    axes: Any, values: Mapping[CrfConfig, float], name: str, best: CrfConfig, title: str
) -> None:
    """The values along the one that moved."""
    points = sorted((getattr(setting, name), value) for setting, value in values.items())
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.plot([getattr(best, name)], [values[best]], marker="*", markersize=16, color="black")
    axes.set(xlabel=LABELS[name], ylabel=title)
