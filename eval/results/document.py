"""Write RESULTS.md and docs/results/STUDY.md wholly from the stored studies."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eval import tables
from eval.results.study import Base, Study
from eval.runs import Estimate, Line

HEADING = """# Results

Written by `python -m eval results write` from the runs in [`experiments/`](experiments); `make
results-check` recomputes every number of its tables from what was counted on the images, and fails
where one differs. Arms and protocol: [README.md](README.md).
"""

NOTATION = """\
Scores in per cent: mean ± sample standard deviation over n seeds; 3 px: mIoU within 3 pixels of the
borders. Differences (Δ) are paired by image and seed, in points. Brackets are 95 % intervals of
2,000 resamples: the first of the images, the second, where there are several seeds, of seeds and
images together: what another training would change, too. A difference is claimed where the second
excludes 0 and all seeds but one at most agree. “recipe” is the recipe of the command without a
change. The page of each study has its question, all scores, what they say and what they do not, and
the commands.
"""

PAGE_NOTATION = """\
Scores in per cent but for NLL (nats a pixel): mean ± sample standard deviation over n seeds; 3 px:
mIoU within 3 pixels of the borders; harm: images whose mIoU the CRF lowers, in per cent.
Differences are paired by image and seed, in points, with 95 % intervals: over the images, then over
seeds and images where there are several seeds.
"""

LEARNT = ("crf-only", "joint")

GALLERY_CAPTION = """\
Predictions of one seed, and the mIoU of each image. A third of the rows are where the difference on
the left is largest, a third where it is smallest, the others lie evenly between."""


class Score(NamedTuple):
    """A column of the tables; `within` a trimap's width or a class."""

    title: str
    name: str
    within: str | None = None
    scale: float = 100.0
    digits: int = 2

    def mean(self, line: Line) -> str:
        """Write the mean and sample deviation over the seeds."""
        spread = line.spread(self.name, self.within)
        if spread is None or len(spread.values) < len(line.runs):
            return tables.ABSENT  # a class that a run has not on these images, or no probabilities
        mean = f"{self.scale * spread.mean:.{self.digits}f}"
        if spread.deviation is None:
            return mean
        return f"{mean} ± {self.scale * spread.deviation:.{self.digits}f}"

    def minus(self, line: Line, base: Line) -> Estimate | None:
        """Return the difference of two lines."""
        return line.minus(base, self.name, self.within)

    def change(self, estimate: Estimate | None) -> str:
        """Write a difference with its interval over the images, and over seeds and images."""
        if estimate is None or estimate.interval is None:
            return tables.ABSENT
        intervals = [ends for ends in (estimate.interval, estimate.wide_interval) if ends]
        brackets = [f"[{self.number(low)}, {self.number(high)}]" for low, high in intervals]
        # With a comma: Markdown reads "[a] [b]" as a link.
        return f"{self.number(estimate.value)} {', '.join(brackets)}"

    def number(self, value: float) -> str:
        """Write a difference in the column's unit, with its sign."""
        return f"{self.scale * value:+.{self.digits}f}"

    def by_seed(self, estimate: Estimate | None) -> str:
        """Write a difference seed by seed."""
        values = () if estimate is None else estimate.spread.values
        return ", ".join(map(self.number, values)) or tables.ABSENT


SHORT = (
    Score("mIoU", "miou"),
    Score("3 px", "trimap_miou", "3"),
    Score("Boundary IoU", "boundary_iou"),
)
SCORES = (*SHORT, Score("NLL", "nll", scale=1.0, digits=4))
FOREGROUND = (
    Score("foreground", "foreground_miou"),
    Score("foreground 3 px", "trimap_foreground_miou", "3"),
)
TOLD = (*SHORT[:2], *FOREGROUND)
"""What is drawn, and told seed by seed."""


def shown(study: Study) -> tuple[Score, ...]:
    """Return the columns of a study: with background against all classes where it asks for it."""
    return (*SCORES, *FOREGROUND) if study.foreground else SCORES


def told(scores: Sequence[Score]) -> list[Score]:
    """Return those that are drawn, and told seed by seed."""
    return [score for score in scores if score in TOLD]


def documents(studies: Sequence[Study], root: Path, document: Path, pages: Path) -> dict[Path, str]:
    """Write RESULTS.md and the pages of all studies.

    Args:
        studies: all of them.
        root: experiments.
        document: the path of RESULTS.md.
        pages: the folder of the pages, docs/results.

    Returns:
        Every file's path and text.
    """
    says = root / "says.md"
    words = [says.read_text(encoding="utf-8").strip(), ""] if says.is_file() else []
    sections = [line for study in studies for line in section(study, pages)]
    text = "\n".join([HEADING, *words, NOTATION, *overview(studies), *sections])
    return {document: text, **{pages / f"{s.name}.md": page(s, pages) for s in studies}}


def overview(studies: Sequence[Study]) -> list[str]:
    """Write what the arms that learn are ahead of post-hoc, in all studies of the report split."""
    scores = SHORT[:2]
    rows = []
    for study in studies:
        label, base = study.against
        if base != "post-hoc" or study.split != "report":
            continue
        link = f"[{study.title}](#{anchor(study.title)})"
        for line in study.lines():
            if line.label == label and line.arm in LEARNT:
                found = [score.minus(line, study.line(study.against)) for score in scores]
                rows.append([link, line.arm, *difference_cells(scores, found)])
                link = ""  # a title stands once
    if not rows:
        return []
    title = "How far the CRFs that learn are ahead of the tuned post-hoc CRF:"
    return [title, "", tables.markdown(difference_titles(scores), rows, left=2), ""]


def anchor(title: str) -> str:
    """Return what GitHub makes of a heading: lower case, no punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def difference_titles(scores: Sequence[Score]) -> list[str]:
    """Name the columns of differences."""
    by_seed = [f"{score.title} by seed" for score in told(scores)]
    return ["", "arm", "n", *(score.title for score in scores), *by_seed]


def difference_cells(scores: Sequence[Score], found: Sequence[Estimate | None]) -> list[str]:
    """Write n, the differences of the scores with intervals, and some of them seed by seed."""
    first = found[0]
    cells = ["0" if first is None else str(len(first.spread.values))]
    cells += [score.change(one) for score, one in zip(scores, found, strict=True)]
    by_seed = zip(scores, found, strict=True)
    return [*cells, *(score.by_seed(one) for score, one in by_seed if score in TOLD)]


def section(study: Study, pages: Path) -> list[str]:
    """Write a study for RESULTS.md: its answer and one table."""
    lines = [f"## {study.title}", ""]
    answer = textwrap.fill(study.answer, 100, break_on_hyphens=False, break_long_words=False)
    lines += [answer, ""] if answer else []
    if study.runs:
        base = study.line(study.against)
        titles = ["", "arm", "n", *(score.title for score in SHORT)]
        titles += [f"Δ {score.title}" for score in SHORT]
        rows = [
            [
                line.label,
                line.arm,
                str(len(line.runs)),
                *(score.mean(line) for score in SHORT),
                *(score.change(score.minus(line, base)) for score in SHORT),
            ]
            for line in study.lines()
        ]
        where = f"Scores on the {study.split} split, Δ to {named(study.against)}:"
        lines += [where, "", tables.markdown(titles, rows, left=2), ""]
    lines += figures(study, pages, pages.as_posix() + "/", ("labels.svg",))
    return [*lines, f"[All of this study]({pages.as_posix()}/{study.name}.md)", ""]


def page(study: Study, pages: Path) -> str:
    """Write a study's page: question, all tables and figures, what they say, and the commands."""
    lines = [f"# {study.title}", "", study.asked, "", PAGE_NOTATION]
    for title, beginning in study.parts.items():
        lines += [f"## {title}", ""] if title else []
        lines += part(study, beginning)
    lines += [*figures(study, pages, "", FIGURES), "## What this says", "", study.says, ""]
    return "\n".join([*lines, *made_by(study)])


def part(study: Study, beginning: str) -> list[str]:
    """Write the tables of the images whose names begin so."""
    if not study.runs:
        return ["Not run yet.", ""]
    lines = [f"Scores on the {study.split} split:", "", score_table(study, beginning), ""]
    for base in (study.against, *study.also):
        rows = difference_rows(study, base, beginning)
        if len(rows) > 1:
            table = tables.markdown(rows[0], rows[1:], left=2)
            lines += [f"Differences to {named(base)}:", "", table, ""]
    return [*lines, "IoU of each class:", "", class_table(study, beginning), ""]


def named(base: Base) -> str:
    """Say what rows are compared with."""
    label, arm = base
    return f"{arm} of “{label}”"


def score_table(study: Study, beginning: str) -> str:
    """Write a row for each line: the scores, mean and deviation over the seeds."""
    scores = shown(study)
    titles = ["", "arm", "n", *(score.title for score in scores), "harm"]
    rows = []
    for line in study.lines(beginning):
        harm = line.harm()
        harmed = (
            tables.ABSENT if harm is None else f"{100 * statistics.fmean(harm.spread.values):.0f}"
        )
        number = str(len(line.runs))
        cells = [score.mean(line) for score in scores]
        rows.append([line.label, line.arm, number, *cells, harmed])
        if line.arm == "joint":  # of the other arms with a CRF the network is unary's
            cells = [score.mean(line.before()) for score in scores]
            rows.append([line.label, "joint, before its CRF", number, *cells, tables.ABSENT])
    for run in study.runs:
        if "failed" in run.result:
            cells = ["failed", run.result["failed"], *[""] * len(scores)]
            rows.append([run.label, run.arm, *cells])
    return tables.markdown(titles, rows, left=2)


def class_table(study: Study, beginning: str) -> str:
    """Write a row for each line: the IoU of each scored class."""
    rows = study.lines(beginning)
    counts = rows[0].runs[0].counts if rows else None
    names = [] if counts is None else [counts.classes[k] for k in counts.scored]
    classes = [Score(name, "iou_per_class", name) for name in names]
    cells = [
        [line.label, line.arm, str(len(line.runs)), *(score.mean(line) for score in classes)]
        for line in rows
    ]
    return tables.markdown(["", "arm", "n", *names], cells, left=2)


def difference_rows(study: Study, base: Base, beginning: str) -> list[list[str]]:
    """Write titles, and a row for each line with its paired differences to that of `base`."""
    scores = shown(study)
    rows = [[*difference_titles(scores), *(["published"] if study.published else [])]]
    other = study.line(base, beginning)
    for line in study.lines(beginning):
        found = [score.minus(line, other) for score in scores]
        if found[0] is not None:
            cells = [line.label, line.arm, *difference_cells(scores, found)]
            published = [study.published.get(line.label, tables.ABSENT)] if study.published else []
            rows.append([*cells, *published])
    return rows


FIGURES = ("labels.svg", "context.svg", "gallery.png")

ALT = {
    "labels.svg": "differences to {base}, with their intervals",
    "context.svg": "what a label (row) pays for another around it (column)",
    "gallery.png": "what the arms predict, image by image",
}


def figures(study: Study, pages: Path, prefix: str, names: Sequence[str]) -> list[str]:
    """Refer to those figures of a study that there are.

    Args:
        study: whose.
        pages: the folder of pages and figures.
        prefix: from the document to that folder.
        names: endings of the files' names.
    """
    lines = []
    for name in names:
        file = f"{study.name}-{name}"
        if (pages / file).is_file():
            alt = ALT[name].format(base=named(study.against))
            lines += [f"![{alt}]({prefix}{file})", ""]
            lines += [GALLERY_CAPTION, ""] if name == "gallery.png" else []
    return lines


def made_by(study: Study) -> list[str]:
    """Write the commands that make the runs again, and where the runs came from."""
    if not study.runs:
        return []
    made = [run.result["made"] for run in study.runs]
    commits = dict.fromkeys(c for e in made for c in tables.commit_line(e).split(", "))
    machines = dict.fromkeys(tables.machine_line(entry) for entry in made)
    seconds = sum(run.result.get("wall_seconds", 0.0) for run in study.runs)
    lines = ["## The runs", ""]
    if study.commands:
        again = "To make them again, with the paths of the data set and the weights:"
        lines += [again, "", "```", *study.commands, "```", ""]
    return [
        *lines,
        f"{len(study.runs)} runs, {tables.duration(seconds)} in all; commits: "
        f"{', '.join(commits)}; machine: {'; '.join(machines)}. Each run's command, configuration, "
        f"versions and time: `{study.folder.as_posix()}/runs.json`.",
        "",
    ]
