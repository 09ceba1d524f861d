"""The figures of a comparison: what each one is, drawn, and written to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from eval.report.comparison import Comparison
from eval.report.figures.calibration import reliability
from eval.report.figures.canvas import Undrawable, style
from eval.report.figures.classes import class_differences
from eval.report.figures.iterations import iterations
from eval.report.figures.ladder import ladder
from eval.report.figures.learning import learning_curves
from eval.report.figures.matrices import learned_matrices
from eval.report.figures.strength import gain_against_strength
from eval.report.figures.trimap import trimap_curves, trimap_differences
from eval.report.figures.vector import inline_svg, svg_file

DPI = 144  # of the PNG files: two pixels a point


@dataclass(frozen=True)
class Kind:
    """One of the figures.

    Attributes:
        draw: makes it of a comparison.
        label: what it shows, for readers who do not see it.
    """

    draw: Callable[[Comparison], Figure]
    label: str


KINDS: Mapping[str, Kind] = {
    "ladder": Kind(ladder, "mIoU of every arm in per cent"),
    "trimap": Kind(trimap_curves, "mIoU against the width of the trimap band"),
    "trimap-difference": Kind(
        trimap_differences, "difference of mIoU against the width of the trimap band"
    ),
    "classes": Kind(class_differences, "difference of IoU to unary, class by class"),
    "strength": Kind(
        gain_against_strength, "gain of the CRF on every image against the mIoU of the network"
    ),
    "calibration": Kind(
        reliability, "share of right pixels against confidence, before and behind the CRF"
    ),
    "iterations": Kind(iterations, "energy, divergence and change of q by iteration of the CRF"),
    "learning": Kind(learning_curves, "the CRF's parameters by training step"),
    "matrices-joint": Kind(
        lambda comparison: learned_matrices(comparison, "joint"),
        "kernel weights and compatibility of the joint arm, as changes from their start",
    ),
    "matrices-crf-only": Kind(
        lambda comparison: learned_matrices(comparison, "crf-only"),
        "kernel weights and compatibility of the crf-only arm, as changes from their start",
    ),
}


@dataclass(frozen=True)
class Drawing:
    """A figure of one comparison in every form that is needed; the forms are empty without it.

    Attributes:
        inline: an element of the page.
        svg: the content of a file.
        png: the content of a file.
        reason: why there is none.
    """

    inline: str
    svg: str
    png: bytes
    reason: str


def draw(comparison: Comparison, name: str, prefix: str) -> Drawing:
    """Draw one figure.

    Args:
        comparison: what it shows.
        name: one of `KINDS`.
        prefix: of the ids on the page, unique for each comparison.
    """
    kind = KINDS[name]
    with style(f"{prefix}-{name}"):
        try:
            figure = kind.draw(comparison)
        except Undrawable as reason:
            return Drawing("", "", b"", str(reason))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out: both formats are of one layout
        svg = svg_file(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        inline = inline_svg(svg, f"{prefix}-{name}", kind.label)
        return Drawing(inline, svg, buffer.getvalue(), "")


def write_files(drawings: Mapping[str, Drawing], folder: Path) -> list[Path]:
    """NAME.svg and NAME.png of every figure there is, in the light theme; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in drawings.items():
        if not drawing.reason:
            (folder / f"{name}.svg").write_text(drawing.svg, encoding="utf-8")
            (folder / f"{name}.png").write_bytes(drawing.png)
            written += [folder / f"{name}.svg", folder / f"{name}.png"]
    return written
