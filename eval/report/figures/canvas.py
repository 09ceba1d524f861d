"""The look of every figure, and how one drawing serves the page, light and dark, and the files.

A figure is drawn once, in the light theme. Every colour of it has a role, and no two roles share
one, so that on the page a colour can be replaced by the CSS variable of its role: the dark theme
needs no second drawing. Nothing here touches matplotlib's global settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

COLOURS: dict[str, str] = {
    "page": "#fbfaf8",
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
"""The light theme by role; style.css has the same, and the dark one."""

FONT = "DejaVu Sans"  # matplotlib's own: the same layout everywhere

WITH_CRF = ("post-hoc", "crf-only", "joint")

_STYLE: dict[Any, Any] = {
    "font.family": [FONT],
    "font.size": 11.5,
    "text.parse_math": False,  # names may hold a $
    "text.color": COLOURS["text"],
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.titlecolor": COLOURS["text"],
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "axes.formatter.useoffset": False,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 1.0,
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": COLOURS["page"],
    "figure.dpi": 72.0,
    "savefig.facecolor": COLOURS["page"],
    "svg.fonttype": "none",
}

TIPS = "tips:"
"""What the id of a group begins with whose parts have a text under the pointer."""


class Undrawable(ValueError):
    """A figure that lacks what it shows; the message says what."""


@contextmanager
def style(salt: str = "crfrnn") -> Iterator[None]:
    """The settings in which figures are drawn and written.

    Args:
        salt: of the ids in an SVG: the same for the same bytes.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes in points, which the page shows as CSS pixels."""
    figure, axes = panels(width, height, 1, 1)
    return figure, axes[0]


def panels(
    width: float, height: float, rows: int, columns: int, *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, and the axes row by row.

    Args:
        width: points.
        height: points.
        rows: of axes.
        columns: of axes.
        share: one range for all of them, in x and in y.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.05, hspace=0.06)
    figure = Figure(figsize=(width / 72, height / 72), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, list(axes.flat)


def with_tips(artist: Artist, texts: Sequence[str]) -> None:
    """Give every part of an artist, such as the points of a scatter, a text under the pointer."""
    artist.set_gid(TIPS + "|".join(quote(text, safe="") for text in texts))


def label_ends(axes: Axes, x: float, ends: dict[str, float], pixels: float = 15.0) -> None:
    """Write the arms' names right of the ends of their curves, moved as little as needed.

    Args:
        axes: with their final limits.
        x: where the curves end, in data.
        ends: arm to the y of its end, in data.
        pixels: between two names.
    """
    low, high = axes.get_ylim()
    box = axes.get_position()
    height = box.height * axes.figure.get_figheight() * 72  # type: ignore[union-attr]
    places = spread_apart(list(ends.values()), pixels * (high - low) / height)
    for arm, y in zip(ends, places, strict=True):
        axes.annotate(
            arm,
            (x, y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS[arm],
            fontweight="bold",
            annotation_clip=False,
        )


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions as little as needed for neighbours to be `gap` apart, keeping their order.

    Each pass pushes every overlapping pair apart by half of what it lacks.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [positions[index] for index in order]
    for _ in range(100):
        for i in range(len(placed) - 1):
            lack = gap - (placed[i + 1] - placed[i])
            if lack > 0:
                placed[i] -= lack / 2
                placed[i + 1] += lack / 2
    result = [0.0] * len(placed)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the finite values and a share of it on both sides; never empty."""
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    margin = share * (high - low) or 1.0
    return low - margin, high + margin
