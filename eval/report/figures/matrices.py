"""Square matrices over the labels as heat maps of their change from where they started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, Undrawable, panels, with_tips

Matrix = npt.NDArray[Any]

STRONGEST = 0.75
"""Opacity of the largest change: the number in the cell stays readable on it."""

MOST_LABELS_WITH_NUMBERS = 10
"""Beyond this the numbers do not fit their cells; they still appear under the pointer."""

KERNELS = ("bilateral", "spatial")


def learned_matrices(comparison: Comparison, arm: str) -> Figure:
    """Kernel weights and compatibility of an arm's first seed, as changes from their start.

    The weights started from the run's own `crf_start`, or else from the post-hoc CRF of the seed;
    the compatibility from Potts.

    Raises:
        Undrawable: the arm has no CRF.
    """
    run = next((run for run in comparison.of(arm) if run.result["crf"] is not None), None)
    if run is None:
        raise Undrawable(f"No CRF of {arm}.")
    crf = run.result["crf"]
    size = len(crf["compatibility"])
    names = comparison.classes if len(comparison.classes) == size else list(map(str, range(size)))
    origin, start = _start_of(comparison, run.result)
    before = start["kernel_weights"] if start else {}
    maps = [
        (
            f"{kernel} kernel weights",
            np.asarray(crf["kernel_weights"][kernel]),
            # A context kernel starts silent; post-hoc has none.
            np.asarray(before.get(kernel, np.zeros((size, size)))),
            origin if kernel in before else "zero",
        )
        for kernel in (*KERNELS, *(name for name in crf["kernel_weights"] if name not in KERNELS))
    ]
    maps.append(
        ("compatibility (penalty)", np.asarray(crf["compatibility"]), 1 - np.eye(size), "Potts")
    )
    side = 240 + 8 * size
    figure, axes = panels(len(maps) * side, side + 20, 1, len(maps))
    for axis, (title, matrix, centre, name) in zip(axes, maps, strict=True):
        heat_map(axis, title, matrix, centre, names, name)
    return figure


def heat_map(
    axis: Axes,
    title: str,
    matrix: Matrix,
    centre: Matrix,
    names: Sequence[str],
    centre_name: str,
) -> None:
    """Draw a matrix, coloured by its difference to another one.

    The colour's opacity is the size of the change, relative to the largest in this matrix, so that
    "unchanged" has the colour of the page, light or dark.

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
    cells = axis.pcolormesh(
        np.arange(size + 1), np.arange(size + 1), np.zeros((size, size)),
        edgecolors=COLOURS["rule"], linewidth=0.7,
    )  # fmt: skip
    cells.set_array(None)
    cells.set_facecolor(list(_colours(change, largest).reshape(-1, 4)))
    texts = [
        f"{names[row]}, {names[column]}: {matrix[row, column]:.4g} "
        f"({centre_name} {centre[row, column]:.4g}, change {change[row, column]:+.3g})"
        for row in range(size)
        for column in range(size)
    ]
    with_tips(cells, texts)
    if size <= MOST_LABELS_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(np.abs(change) >= 0.005), strict=True):
            axis.text(
                column + 0.5, row + 0.5, _short(change[row, column]), ha="center", va="center",
                fontsize=9,
            )  # fmt: skip
    middles = np.arange(size) + 0.5
    axis.set_xticks(middles, list(names), rotation=90)
    axis.set_yticks(middles, list(names))
    axis.xaxis.tick_top()
    axis.grid(visible=False)
    axis.set(ylim=(size, 0), aspect="equal")
    axis.set_title(title, pad=10)
    axis.set_xlabel(_scale(largest, centre_name))


def _colours(change: Matrix, largest: float) -> Matrix:
    """(L, L, 4): the hue by the sign of the change, the opacity by its size."""
    rgba = np.zeros((*change.shape, 4))
    rgba[change > 0, :3] = to_rgb(COLOURS["rise"])
    rgba[change <= 0, :3] = to_rgb(COLOURS["fall"])
    rgba[..., 3] = STRONGEST * np.abs(change) / largest if largest else 0.0
    return rgba


def _start_of(
    comparison: Comparison, result: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any] | None]:
    """What the kernel weights of a run are compared with, by name."""
    if result.get("crf_start"):
        return "its start", result["crf_start"]
    post_hoc = comparison.find("post-hoc", result["seed"])
    if post_hoc is not None and post_hoc.result["crf"]:
        return "post-hoc", post_hoc.result["crf"]
    return "zero", None


def _scale(largest: float, centre_name: str) -> str:
    if largest == 0:
        return f"same as {centre_name}"
    return f"change from {centre_name}, strongest {largest:.3g}"


def _short(value: float) -> str:
    """Two decimals without the leading zero, three characters more or less: +.12, −1.5."""
    digits = f"{abs(value):.2f}" if abs(value) < 10 else f"{abs(value):.1f}"
    return f"{'+' if value > 0 else '−'}{digits.removeprefix('0')}"
