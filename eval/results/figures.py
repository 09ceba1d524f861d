"""Draw the figures of a study, in the look of the report.

The photographs of most data sets are not ours to publish, so the gallery has label maps alone;
`python -m eval report` shows photographs where the data set lies. Nobody picks its images: they are
those that joint gains and loses most on against post-hoc, or the later of two other arms, and some
evenly between.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from data.dataset import Picture
from eval.report.figures import COLOURS, WITH_CRF, canvas, heat_map, panels, style, svg_of
from eval.report.gallery import Item, best_worst_and_between, compared, ranked
from eval.results.document import ALT, shown, told
from eval.results.study import Study
from eval.runs import Comparison, Estimate, Run, read_run
from runtime.run_folder import ARMS

APART = 0.22  # of a row: two arms of one label
ROW = 118.0  # points, of the gallery


def write_figures(study: Study, pages: Path) -> list[Path]:
    """Draw a study's differences between labels, and what a context kernel has learnt, if any."""
    written = []
    for name, draw in (("labels.svg", forest), ("context.svg", context)):
        path = pages / f"{study.name}-{name}"
        path.unlink(missing_ok=True)
        with style():
            figure = draw(study)
            if figure is not None:
                pages.mkdir(parents=True, exist_ok=True)
                path.write_text(svg_of(figure), encoding="utf-8")
                written.append(path)
    return written


def forest(study: Study) -> Figure | None:
    """Draw differences to `study.against`, in points, with 95 % intervals over the images.

    Of the arms with a CRF. None where fewer than two labels have something to be compared with.
    """
    base, scores = study.line(study.against), told(shown(study))
    dots: dict[tuple[str, str], list[Estimate | None]] = {}
    for line in study.lines():
        found = [score.minus(line, base) for score in scores]
        if line.arm in WITH_CRF and found[0] is not None:
            dots[line.label, line.arm] = found
    labels = list(dict.fromkeys(label for label, _ in dots))
    if len({*labels, study.against[0]}) < 3:
        return None
    figure, axes = panels(7.5 * max(map(len, labels)) + 560, 84 + 34 * len(labels), 1, len(scores))
    for index, (axis, score) in enumerate(zip(axes, scores, strict=True)):
        axis.axvline(0, color=COLOURS["soft"], linewidth=1.2)
        for arm in WITH_CRF:
            rows, values = [], []
            for row, label in enumerate(labels):
                arms = [other for other in WITH_CRF if (label, other) in dots]
                estimate = dots[label, arm][index] if arm in arms else None
                if estimate is not None and estimate.interval is not None:
                    y = row + APART * (arms.index(arm) - (len(arms) - 1) / 2)
                    ends = [100 * end for end in estimate.interval]
                    axis.plot(ends, [y, y], color=COLOURS[arm])
                    rows.append(y)
                    values.append(100 * estimate.value)
            if rows:
                axis.scatter(values, rows, s=34, color=COLOURS[arm], label=arm, zorder=3)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.set_yticks(range(len(labels)), [""] * len(labels) if index else labels)
        axis.grid(visible=False, axis="y")
        axis.set_title(score.title)
        axis.set_xlabel("difference, points")
    axes[0].tick_params(axis="y", labelcolor=COLOURS["text"])
    if len({arm for _, arm in dots}) > 1:
        axes[-1].legend(labelcolor="linecolor", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def context(study: Study) -> Figure | None:
    """Draw the mean over the seeds of what the context kernel of joint has learnt, if any."""
    learnt = [
        run.result["context"]
        for run in study.line((study.against[0], "joint")).runs
        if "context" in run.result
    ]
    if not learnt:
        return None
    names = list(learnt[0])
    size = len(names)
    matrices = [np.array([list(paid.values()) for paid in one.values()]) for one in learnt]
    figure, axes = canvas(240 + 34 * size, 138 + 26 * size)
    title = textwrap.fill(ALT["context.svg"], 36)  # as wide as seven labels are
    heat_map(axes, title, np.mean(matrices, 0), np.zeros((size, size)), names, "0")
    return figure


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
    pair = compared(comparison)
    if pair is None:
        raise ValueError(f"{run_dir}: a gallery needs two arms of one seed, scored on report.")
    seed, left, right = pair
    arms: dict[str, Run] = {
        arm: run for arm in ARMS if (run := comparison.find(arm, seed)) is not None
    }
    items = best_worst_and_between(ranked(arms, left, right), count)
    with style():
        figure = gallery(items, arms, f"{right} - {left}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100, metadata={"Software": None})


def gallery(items: list[Item], arms: dict[str, Run], gain: str) -> Figure:
    """Draw a row for each image, a column for each arm."""
    figure, axes = panels(900.0, 30 + ROW * len(items), len(items), len(arms))
    places = iter(axes)
    for row, item in enumerate(items):
        for arm, run in arms.items():
            place: Axes = next(places)
            place.imshow(_prediction(run, item.name), interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.grid(visible=False)
            place.set_xlabel(f"{100 * item.miou[arm]:.1f}" if arm in item.miou else "")
            if row == 0:
                place.set_title(arm, color=COLOURS[arm])
        first = axes[row * len(arms)]
        first.set_ylabel(f"{item.name}\n{gain}\n{100 * item.gain:+.1f}", fontsize=9)
    return figure


def _prediction(run: Run, name: str) -> Picture:
    """Return (H, W, 3): what an arm predicted of an image, in the colours of the classes."""
    path = run.predictions / f"{name}.png"
    if not path.is_file():
        raise FileNotFoundError(f"no prediction at {path}: run {run.where} again.")
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))
