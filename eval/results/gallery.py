"""A picture of what the arms predict, for a study: label maps alone, without photographs.

The photographs of most data sets are not ours to publish; `python -m eval report` shows them where
the data set lies. Nobody picks the images: they are those that joint gains and loses most on
against post-hoc, or the later of two other arms, and some evenly between.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from data.dataset import Picture
from eval.report.figures import COLOURS, panels, style
from eval.report.gallery import Item, best_worst_and_between, compared, ranked
from eval.runs import Comparison, Run, read_run
from runtime.run_folder import ARMS

GALLERY = "gallery.png"

WIDTH = 900.0  # points, of the whole picture
ROW = 118.0
RESOLUTION = 100  # dots per inch


def write_gallery(run_dir: Path, path: Path, count: int) -> None:
    """Draw the predictions of the first seed that has both arms of a pair.

    Args:
        run_dir: that `python -m train compare` wrote.
        path: of the PNG.
        count: images, one row each.

    Raises:
        FileNotFoundError: there is no such folder, or no prediction of an image.
        ValueError: it is no run folder, or lacks two arms of one seed.
    """
    comparison = Comparison([read_run(run_dir)])
    found = compared(comparison)
    if found is None:
        raise ValueError(f"{run_dir}: a gallery needs two arms of one seed, scored on report.")
    seed, left, right = found
    arms: dict[str, Run] = {
        arm: run for arm in ARMS if (run := comparison.find(arm, seed)) is not None
    }
    items = best_worst_and_between(ranked(arms, left, right), count)
    with style():
        figure = draw(items, arms, f"{right} - {left}")
        figure.savefig(path, dpi=RESOLUTION, metadata={"Software": None})


def draw(items: list[Item], arms: dict[str, Run], gain: str) -> Figure:
    """A row for each image, a column for each arm."""
    figure, axes = panels(WIDTH, 30 + ROW * len(items), len(items), len(arms))
    places = iter(axes)
    for row, item in enumerate(items):
        for arm, run in arms.items():
            place = next(places)
            show(place, prediction(run, item.name))
            place.set_xlabel(f"{100 * item.miou[arm]:.1f}" if arm in item.miou else "")
            if row == 0:
                place.set_title(arm, color=COLOURS[arm])
        first = axes[row * len(arms)]
        first.set_ylabel(f"{item.name}\n{gain}\n{100 * item.gain:+.1f}", fontsize=9)
    return figure


def show(axes: Axes, picture: Picture) -> None:
    """A picture without scales."""
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def prediction(run: Run, name: str) -> Picture:
    """(H, W, 3): what an arm predicted of an image, in the colours of the classes.

    Raises:
        FileNotFoundError: there is no file of it.
    """
    path = run.predictions / f"{name}.png"
    if not path.is_file():
        raise FileNotFoundError(f"no prediction at {path}: run {run.where} again.")
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))
