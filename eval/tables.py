"""Write tables and numbers: the one writer of Markdown, HTML and terminal tables, and its words."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from eval.runs import Comparison, Estimate, Spread
from runtime.run_folder import ARMS

ABSENT = "–"
"""Stands for a number that does not exist."""

Rows = Sequence[Sequence[str]]


# The writer: titles and rows of cells in, a table out.


def markdown(titles: Sequence[str], rows: Rows, *, left: int = 1) -> str:
    """Write a table in GitHub's Markdown, without a trailing newline.

    Args:
        titles: of the columns.
        rows: their cells.
        left: how many columns hold words, aligned to the left.
    """
    rules = ["---"] * left + ["---:"] * (len(titles) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rules, *rows))


def terminal(
    title: str, titles: Sequence[str], rows: Rows, *, caption: str = "", left: int = 1
) -> Table:
    """Write a table for a terminal, or a log, of 80 columns: long cells go over several lines."""
    table = Table(
        title=Text(title),
        caption=Text(caption),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for index, words in enumerate(titles):
        words_column = index < left
        table.add_column(
            Text(words) if words_column else _stacked(words),
            justify="left" if words_column else "right",
            no_wrap=not words_column or left == 1,
        )
    for row in rows:
        table.add_row(*map(Text, row[:left]), *map(_stacked, row[left:]))
    return table


def _stacked(cell: str) -> Text:
    """Break a cell between its numbers, which stay whole."""
    if len(cell) <= 5:
        return Text(cell)
    return Text(cell.replace(" ± ", "\n±").replace(" to ", "\nto ").replace(" ", "\n"))


def html(titles: Sequence[str], rows: Rows, *, kinds: Sequence[str] = (), kind: str = "") -> str:
    """Write a table in HTML; the first cell of a row is its heading.

    Args:
        titles: of the columns.
        rows: their cells, escaped unless they are `Markup`.
        kinds: a class for each row.
        kind: the class of the table.
    """
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(title) for title in titles)
    body = Markup("")
    for index, (first, *cells) in enumerate(rows):
        of_row = Markup(' class="{}"').format(kinds[index]) if kinds else ""
        written = Markup("").join(Markup("<td>{}</td>").format(cell) for cell in cells)
        body += Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(of_row, first, written)
    of_table = Markup(' class="{}"').format(kind) if kind else ""
    return str(
        Markup("<table{}><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(
            of_table, head, body
        )
    )


# Numbers, times and machines as words.


def percent(spread: Spread | None, *, signed: bool = False) -> str:
    """Write mean and sample standard deviation in per cent, "71.20 ± 0.31"; no ± for one seed."""
    if spread is None:
        return ABSENT
    # Adding zero turns a rounded -0.0 into 0.0.
    mean = round(100 * spread.mean, 2) + 0.0
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return text if spread.deviation is None else f"{text} ± {100 * spread.deviation:.2f}"


def duration(seconds: float) -> str:
    """Write a wall time with its two largest units: "42 s", "3:20 min", "1:05 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def factor(value: float) -> str:
    """Write a ratio with two significant digits: "0.012", "3.4", "25", "1,200"."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def machine_line(provenance: Mapping[str, Any]) -> str:
    """Write the machine as "cpu: ..., cores: 2, ..."."""
    return ", ".join(
        f"{key}: {'none' if value is None else value}"
        for key, value in provenance["machine"].items()
    )


def commit_line(provenance: Mapping[str, Any]) -> str:
    """Write the commit, with a warning when the working tree had changes that it does not hold."""
    commit = str(provenance["commit"])
    return f"{commit} with uncommitted changes" if provenance["dirty"] else commit


def list_of(values: Sequence[Any]) -> str:
    """Write "0, 1"."""
    return ", ".join(map(str, values))


# A comparison: one row an arm, for the terminal, the README and the page; and what it says.

TABLE_WIDTHS = (1, 3, 5, 10)
"""Trimap widths that the tables show, in pixels."""

LEGEND = (
    "mIoU and accuracy in per cent on the report split, mean ± sample standard deviation over the "
    "seeds; vs post-hoc: difference of mIoU in points, paired by seed; 1 px to 10 px: mIoU within "
    "the trimap band of that width; steps: network updates."
)
"""How to read the table in the terminal and in Markdown."""

PAGE_LEGEND = (
    "Means over the seeds, in per cent but for NLL (nats a pixel); ± is the sample standard "
    "deviation over the seeds. Below each number its 95 % interval: between these the middle "
    "95 % of 2000 bootstrap resamples of the report images lie. It is of the images, all seeds "
    "scored on the same ones: how much another draw of test images would move the number. It is "
    "not of training: what another seed or another training set would change, only ± tells. "
    "vs post-hoc: difference of mIoU in points, paired by image and seed; with several seeds, "
    "“seeds” is its interval where each resample draws seeds, too. ▲ and ▼ where this excludes "
    "zero, and all seeds but one at most agree. px: mIoU within the trimap band of that width. "
    "Boundary IoU and F: of outlines. Worse: share of images whose mIoU the arm's CRF lowers. "
    "Steps: network updates."
)
"""How to read it on the page."""


class Column(NamedTuple):
    """One score of the arms.

    Attributes:
        pick: gives the estimate for an arm of a comparison.
        scale: 100 writes per cent.
        digits: after the point.
        signed: write "+" too, and on the page an arrow where the interval excludes zero.
    """

    pick: Callable[[Comparison, str], Estimate | None]
    scale: float = 100.0
    digits: int = 2
    signed: bool = False


def _score(
    name: str, within: str | None = None, *, split: str = "report", **options: Any
) -> Column:
    return Column(lambda c, arm: c.line(arm).estimate(name, within, split), **options)


COLUMNS: dict[str, Column] = {
    "mIoU": _score("miou"),
    "vs post-hoc": Column(lambda c, arm: c.difference(arm, "post-hoc", "miou"), signed=True),
    **{f"{width} px": _score("trimap_miou", str(width)) for width in TABLE_WIDTHS},
    "pixel acc.": _score("pixel_accuracy"),
    "tune mIoU": _score("miou", split="tune"),
    "Boundary IoU": _score("boundary_iou"),
    "Boundary F": _score("boundary_f"),
    "NLL": _score("nll", scale=1.0, digits=3),
    "ECE": _score("ece"),
    "worse": Column(lambda c, arm: c.harm(arm), digits=1),
}

IN_TEXT = (*list(COLUMNS)[:6], "pixel acc.", "tune mIoU")
ON_PAGE = (*list(COLUMNS)[:6], "Boundary IoU", "Boundary F", "NLL", "ECE", "worse")


def arm_titles(columns: Sequence[str]) -> list[str]:
    """Return the titles of a table of arms."""
    return ["arm", *columns, "steps", "time"]


def arm_rows(
    comparison: Comparison, columns: Sequence[str], write: Callable[[Estimate | None, Column], str]
) -> list[list[str]]:
    """Return the cells of every arm, in the order of the arms; an arm without runs has dashes."""
    return [
        [
            arm,
            *(write(COLUMNS[name].pick(comparison, arm), COLUMNS[name]) for name in columns),
            *_cost(comparison, arm),
        ]
        for arm in ARMS
    ]


def _cost(comparison: Comparison, arm: str) -> tuple[str, str]:
    """Write the network steps of an arm, and its mean wall time."""
    results = [run.result for run in comparison.of(arm)]
    steps = sorted({int(result["network_steps"]) for result in results})
    seconds = [float(result["wall_seconds"]) for result in results]
    time = duration(statistics.fmean(seconds)) if seconds else ABSENT
    return "/".join(map(str, steps)) or ABSENT, time


def _plain(estimate: Estimate | None, column: Column) -> str:
    return percent(None if estimate is None else estimate.spread, signed=column.signed)


def comparison_table(comparison: Comparison) -> Table:
    """Write the arms for the terminal."""
    return terminal(
        f"{comparison.name}: report split",
        arm_titles(IN_TEXT),
        arm_rows(comparison, IN_TEXT, _plain),
        caption=LEGEND,
    )


def markdown_block(comparison: Comparison) -> str:
    """Write the arms with what it takes to repeat them: command, seeds, machine, commit."""
    made = comparison.provenance
    images = ", ".join(f"{count} {split}" for split, count in comparison.splits.items())
    return "\n".join(
        [
            "```",
            made["command"],
            "```",
            "",
            f"- seeds {list_of(comparison.seeds)}; {comparison.network_steps} network steps; "
            f"images: {images}",
            f"- machine: {machine_line(made)}; wall time {duration(made['wall_seconds'])}",
            f"- commit {commit_line(made)}",
            "",
            markdown(arm_titles(IN_TEXT), arm_rows(comparison, IN_TEXT, _plain)),
            "",
            LEGEND,
        ]
    )


def arms_table(comparison: Comparison) -> str:
    """Write the arms for the page, with their intervals."""
    rows = arm_rows(comparison, ON_PAGE, _with_interval)
    kinds = [f"arm-{arm}" for arm in ARMS]
    return html(arm_titles(ON_PAGE), rows, kinds=kinds, kind="arms-table")


def overview(comparisons: Sequence[Comparison]) -> str:
    """Write one row a comparison for the page: its arms' mIoU, and what joint training adds."""
    miou, gain = COLUMNS["mIoU"], COLUMNS["vs post-hoc"]
    rows = [
        [
            Markup('<a href="#c{}">{}</a>').format(number, comparison.name),
            comparison.recipe,
            list_of(comparison.seeds),
            str(comparison.splits.get("report", ABSENT)),
            *(_with_interval(miou.pick(comparison, arm), miou) for arm in ARMS),
            _with_interval(gain.pick(comparison, "joint"), gain),
        ]
        for number, comparison in enumerate(comparisons)
    ]
    return html(("comparison", "recipe", "seeds", "images", *ARMS, "joint − post-hoc"), rows)


def _with_interval(estimate: Estimate | None, column: Column) -> str:
    """Write a number with its seeds' deviation, and below it its interval."""
    if estimate is None:
        return ABSENT
    scale, digits, sign = column.scale, column.digits, "+" if column.signed else ""

    def number(value: float, places: int) -> str:
        rounded = round(scale * value, places) + 0.0  # no −0.00
        return f"{rounded:{sign}.{places}f}".replace("-", "−")

    text = Markup("<b>{}</b>").format(number(estimate.value, digits))
    deviation = estimate.spread.deviation
    if deviation is not None:
        text += Markup(" <small>± {}</small>").format(f"{scale * deviation:.{digits}f}")
    if estimate.interval is not None:
        places = 1 if digits == 2 and not sign else digits
        low, high = (number(end, places) for end in estimate.interval)
        text += Markup('<span class="interval">{} to {}</span>').format(low, high)
    if column.signed and estimate.wide_interval is not None:
        low, high = (number(end, places) for end in estimate.wide_interval)
        text += Markup('<span class="interval">seeds {} to {}</span>').format(low, high)
    if column.signed and estimate.sure:
        up = estimate.value > 0
        kind, side, arrow = ("up", "above", "▲") if up else ("down", "below", "▼")
        mark = Markup('<abbr class="{}" title="{} zero">{}</abbr> ')
        text = mark.format(kind, side, arrow) + text
    return text


def crf_table(comparison: Comparison) -> str:
    """Write theta, mean kernel weights and the search of every run that has a CRF."""
    kernels = ("bilateral", "spatial")
    rows, kinds = [], []
    for run in (run for arm in ARMS for run in comparison.of(arm)):
        crf, searched = run.result["crf"], run.result["search"]
        if crf is None:
            continue
        thetas = (crf.get(f"theta_{name}") for name in ("alpha", "beta", "gamma", "context"))
        means = (_mean_diagonal(crf["kernel_weights"][kernel]) for kernel in kernels)
        kinds.append(f"arm-{run.arm}")
        rows.append(
            [
                run.arm,
                str(run.seed),
                *(ABSENT if value is None else f"{value:.4g}" for value in (*thetas, *means)),
                crf["normalization"],
                str(crf["num_iterations"]),
                f"{len(searched)} settings" if searched else ABSENT,
            ]
        )
    if not rows:
        return '<p class="absent">No run has a CRF.</p>'
    widths = ("θα, px", "θβ, grey", "θγ, px", "θ context, px")
    titles = ("arm", "seed", *widths, *kernels, "normalization", "iterations", "searched")
    return html(titles, rows, kinds=kinds)


def _mean_diagonal(matrix: Sequence[Sequence[float]]) -> float:
    return sum(row[index] for index, row in enumerate(matrix)) / len(matrix)


POST_HOC = "the post-hoc CRF"


def headline(comparison: Comparison) -> str:
    """Say the comparison in one sentence: joint training against the post-hoc CRF."""
    joint = comparison.estimate("joint", "miou")
    if joint is None:
        return "Joint training has no result in this run"
    reached = f"Joint training reached {100 * joint.value:.2f} % mIoU"
    difference = comparison.difference("joint", "post-hoc", "miou")
    if difference is None:
        return f"{reached}; there is no post-hoc CRF to compare it with"
    return f"{reached}, {verdict(difference, POST_HOC)}"


def remarks(comparison: Comparison) -> list[str]:
    """Say what the headline does not: agreement of the seeds, boundaries."""
    said = []
    difference = comparison.difference("joint", "post-hoc", "miou")
    if difference is not None:
        values = difference.spread.values
        above = sum(value > 0 for value in values)
        said.append(f"Joint is above post-hoc in {above} of {len(values)} paired seeds.")
    boundary = comparison.difference("joint", "post-hoc", "trimap_miou", "1")
    if boundary is not None:
        words = verdict(boundary, POST_HOC)
        said.append(f"Within 1 px of the boundaries, in mIoU: {words}.")
    return said


def verdict(difference: Estimate, other: str) -> str:
    """Say how an arm stands to another one: in points only where that can be claimed.

    Returns:
        "0.80 points above OTHER", or below; where `Estimate.sure` does not hold, "no difference
        from OTHER that this can tell". Without counts there is no interval, which is said.
    """
    if difference.interval is not None and not difference.sure:
        return f"no difference from {other} that this can tell"
    points = round(100 * difference.value, 2)
    words = f"{abs(points):.2f} points {'above' if points > 0 else 'below'} {other}"
    return words if difference.interval is not None else f"{words} (interval unknown)"
