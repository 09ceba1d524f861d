"""RESULTS.md, written wholly from the stored studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from eval.metrics import SplitCounts
from eval.results.figures import figure_lines
from eval.results.lines import Load
from eval.results.overview import overview_rows
from eval.results.store import Store, Study, named
from eval.results.table import class_rows, difference_rows, markdown, run_rows, score_rows

HEADING = """# Results

Written by `python -m eval results write` from the runs in [`experiments/`](experiments); `make
results-check` recomputes every number of its tables from what was counted on the images, and fails
where one differs. Arms and protocol: [README.md](README.md).
"""

NOTATION = """\
Scores in per cent but for NLL (nats a pixel): mean ± sample standard deviation over n seeds; px:
mIoU within the trimap of that width; harm: images whose mIoU the CRF lowers, in per cent.
Differences are paired by image and seed, in points; the brackets are 95 % intervals over the
images, of 2,000 resamples. They tell how much the choice of the test images matters; only the seeds
tell what another training would change: some columns give the difference of each seed. A row begins
with its label; “recipe” is the recipe of the command without a change.
"""

AGAIN = "To make these rows again, with the paths of the data set and the weights:"


def document(store: Store) -> str:
    """The whole text.

    Raises:
        FileNotFoundError: counts of a run are not stored.
        ValueError: a study is not what it should be.
    """

    @cache
    def load(digest: str) -> SplitCounts:
        return store.counts(digest)

    studies = store.studies()
    sections = [section(store, study, load) for study in studies]
    says = store.says()
    parts = [HEADING, *([says, ""] if says else []), NOTATION, *overview(studies, load), *sections]
    return "\n".join(parts)


def overview(studies: Sequence[Study], load: Load) -> list[str]:
    """What the arms that learn are ahead of post-hoc, over all studies; nothing if none is."""
    rows = overview_rows(studies, load)
    if len(rows) == 1:
        return []
    title = "How far the CRFs that learn are ahead of the tuned post-hoc CRF:"
    return [title, "", markdown(rows), ""]


def section(store: Store, study: Study, load: Load) -> str:
    """One study: what was asked, tables and figures, what they say, and the commands."""
    lines = [f"## {study.title}", "", study.asked, ""]
    for title, beginning in study.parts.items():
        lines += [f"### {title}", ""] if title else []
        lines += [*scores_of(study, load, beginning), ""]
    lines += [*figure_lines(store, study), study.says, "", *made_by(store, study)]
    return "\n".join(lines)


def scores_of(study: Study, load: Load, beginning: str) -> list[str]:
    """The two tables of a part of the images."""
    if not study.records:
        return ["Not run yet."]
    lines = [
        f"Scores on the {study.split} split:",
        "",
        markdown(score_rows(study, load, beginning)),
    ]
    for base in (study.against, *study.also):
        rows = difference_rows(replace(study, against=base), load, beginning)
        if len(rows) > 1:
            lines += ["", f"Differences to {named(base)}:", "", markdown(rows)]
    if any("failed" not in record for record in study.records):
        table = markdown(class_rows(study, load, beginning))
        lines += ["", *folded("IoU of each class", table)]
    return lines


def folded(summary: str, *content: str) -> list[str]:
    """Markdown that shows its summary until it is opened."""
    return [f"<details><summary>{summary}</summary>", "", *content, "", "</details>"]


def made_by(store: Store, study: Study) -> list[str]:
    """The commands that make the runs again, and the runs, folded."""
    if not study.records:
        return []
    runs = folded(f"{len(study.records)} runs", markdown(run_rows(study)))
    if study.commands:
        return [AGAIN, "", "```", *study.commands, "```", "", *runs, ""]
    folder = (store.root / study.name / "runs").as_posix()
    return [f"The command that made a run stands in [its file]({folder}).", "", *runs, ""]
