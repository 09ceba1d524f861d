"""The figures of a study, drawn from what is stored of it, in the look of the report."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import scores
from eval.report.figures import KINDS, canvas, draw, heat_map, style, svg_of
from eval.results.forest import forest
from eval.results.gallery import GALLERY
from eval.results.lines import Load
from eval.results.store import Record, Store, Study, named
from eval.runs import Comparison, Run, RunRecord

SHOWN = ("trimap", "trimap-difference", "learning")
"""Of the report's figures, those of RESULTS.md."""

FOREST = "labels.svg"
CONTEXT = "context.svg"
CONTEXT_TITLE = "what a label (row) pays for another around it (column)"

CAPTION = """Predictions of one seed, and the mIoU of each image. A third of the rows are where the
difference on the left is largest, a third where it is smallest, the others lie evenly between."""


def write_figures(store: Store, study: Study, load: Load) -> list[Path]:
    """STUDY/NAME.svg of every figure that can be drawn.

    Of the arms under the label of `against`; the learning of those under `learning`. Figures that
    were there are replaced.
    """
    folder = store.root / study.name
    for old in folder.glob("*.svg"):
        old.unlink()
    written = [*write_context(folder, study), *write_forest(folder, study, load)]
    labels = {study.against[0], study.learning}
    comparisons = {label: comparison_of(study, label, load) for label in labels}
    for name in SHOWN:
        comparison = comparisons[label_of(name, study)]
        if comparison is None:
            continue
        if name == "trimap" and len({run.arm for run in comparison.records[0].runs}) == 1:
            continue  # one curve alone has nothing to be held against
        drawing = draw(comparison, name)
        if not drawing.reason:
            path = folder / f"{name}.svg"
            path.write_text(drawing.svg, encoding="utf-8")
            written.append(path)
    return written


def label_of(name: str, study: Study) -> str:
    """Whose runs a figure of `SHOWN` is of."""
    return study.learning if name == "learning" else study.against[0]


def write_forest(folder: Path, study: Study, load: Load) -> list[Path]:
    """FOREST, where there are labels to compare."""
    with style():
        figure = forest(study, load)
        if figure is None:
            return []
        path = folder / FOREST
        path.write_text(svg_of(figure), encoding="utf-8")
    return [path]


def write_context(folder: Path, study: Study) -> list[Path]:
    """CONTEXT, the mean over the seeds of what the context kernel of joint has learnt, if any."""
    label, _ = study.against
    learnt = [
        np.array([list(paid.values()) for paid in record["context"].values()])
        for record in study.records
        if (record["label"], record["arm"]) == (label, "joint") and record.get("context")
    ]
    if not learnt:
        return []
    names = next(list(r["context"]) for r in study.records if r.get("context"))
    size = len(names)
    with style():
        figure, axes = canvas(240 + 34 * size, 138 + 26 * size)
        title = textwrap.fill(CONTEXT_TITLE, 36)  # as wide as seven labels are
        heat_map(axes, title, np.mean(learnt, 0), np.zeros((size, size)), names, "0")
        path = folder / CONTEXT
        path.write_text(svg_of(figure), encoding="utf-8")
    return [path]


def comparison_of(study: Study, label: str, load: Load) -> Comparison | None:
    """The arms under a label, as the report sees a run; None without a run."""
    records = [r for r in study.records if r["label"] == label and "failed" not in r]
    if not records:
        return None
    runs = tuple(run_of(record, load) for record in records)
    counts = load(records[0]["counts"])
    config = {"seeds": sorted({record["seed"] for record in records})}
    return Comparison(
        [
            RunRecord(
                path=Path(study.name),
                recipe=records[0]["recipe"],
                config=config,
                invocations=(),
                classes=counts.classes,
                scored=counts.scored,
                splits={study.split: len(counts)},
                runs=runs,
                lacks=(),
            )
        ]
    )


def run_of(record: Record, load: Load) -> Run:
    """A stored run as the report sees it: what it calls report is the split of the study."""
    counts = load(record["counts"])
    result: dict[str, Any] = {
        **{key: record[key] for key in ("arm", "seed", "network_steps", "wall_seconds")},
        "metrics": {"report": scores(counts)},
        "crf": None,
        "search": None,
    }
    before = load(record["counts_before"]) if "counts_before" in record else None
    history: tuple[Mapping[str, Any], ...] = tuple(record["history"])
    return Run(record["arm"], record["seed"], result, counts=counts, before=before, history=history)


def figure_lines(store: Store, study: Study) -> list[str]:
    """The figures of a study that are there, as Markdown."""
    lines = []
    path = store.root / study.name / FOREST
    if path.is_file():
        title = f"differences to {named(study.against)}, with their intervals"
        lines += [f"![{title}]({path.as_posix()})", ""]
    for name in SHOWN:
        path = store.root / study.name / f"{name}.svg"
        if path.is_file():
            label = label_of(name, study)
            whose = "" if label == study.against[0] else f", of “{label}”"
            lines += [f"![{KINDS[name][1]}{whose}]({path.as_posix()})", ""]
    path = store.root / study.name / CONTEXT
    if path.is_file():
        lines += [f"![{CONTEXT_TITLE}]({path.as_posix()})", ""]
    path = store.root / study.name / GALLERY
    if path.is_file():
        lines += [f"![what the arms predict, image by image]({path.as_posix()})", "", CAPTION, ""]
    return lines
