"""The comparison as HTML tables: the arms with their intervals, and all comparisons at a glance."""

from __future__ import annotations

import html
import statistics
from collections.abc import Callable, Sequence

from eval import wording
from eval.report.comparison import Comparison, Estimate
from eval.table import TABLE_WIDTHS
from runtime.run_folder import ARMS

LEGEND = (
    "Means over the seeds, in per cent but for NLL (nats a pixel); ± is the sample standard "
    "deviation over the seeds. Below each number its 95 % interval: between these the middle "
    "95 % of 2000 bootstrap resamples of the report images lie. It is of the images, all seeds "
    "scored on the same ones: how much another draw of test images would move the number. It is "
    "not of training: what another seed or another training set would change, only ± tells. "
    "vs post-hoc: difference of mIoU in points, paired by image and seed; ▲ and ▼ where its "
    "interval excludes zero. px: mIoU within the trimap band of that width. Boundary IoU and F: "
    "of outlines. Worse: share of images whose mIoU the arm's CRF lowers. Steps: network updates."
)

Cell = Callable[[Comparison, str], str]


def arms_table(comparison: Comparison) -> str:
    """One row an arm, one column a score."""
    columns = _columns()
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in ("arm", *columns))
    body = "".join(
        f'<tr class="arm-{arm}"><th scope="row">{arm}</th>'
        + "".join(f"<td>{cell(comparison, arm)}</td>" for cell in columns.values())
        + "</tr>"
        for arm in ARMS
    )
    return f'<table class="arms-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _columns() -> dict[str, Cell]:
    columns: dict[str, Cell] = {
        "mIoU": _score("miou"),
        "vs post-hoc": lambda c, arm: marked(c.difference(arm, "post-hoc", "miou")),
    }
    for width in TABLE_WIDTHS:
        columns[f"{width} px"] = _score("trimap_miou", str(width))
    columns |= {
        "Boundary IoU": _score("boundary_iou"),
        "Boundary F": _score("boundary_f"),
        "NLL": lambda c, arm: estimated(c.estimate(arm, "nll"), scale=1, digits=3),
        "ECE": _score("ece"),
        "worse": lambda c, arm: estimated(c.harm(arm), digits=1),
        "steps": _steps,
        "time": _time,
    }
    return columns


def overview(comparisons: Sequence[Comparison]) -> str:
    """One row a comparison: its arms' mIoU, and what joint training adds."""
    titles = ("comparison", "recipe", "seeds", "images", *ARMS, "joint − post-hoc")
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in titles)
    body = ""
    for number, comparison in enumerate(comparisons):
        name = html.escape(comparison.name)
        seeds = ", ".join(map(str, comparison.seeds))
        images = str(comparison.splits.get("report", wording.ABSENT))
        body += (
            f'<tr><th scope="row"><a href="#c{number}">{name}</a></th>'
            f"<td>{html.escape(comparison.recipe)}</td><td>{seeds}</td><td>{images}</td>"
            + "".join(f"<td>{estimated(comparison.estimate(arm, 'miou'))}</td>" for arm in ARMS)
            + f"<td>{marked(comparison.difference('joint', 'post-hoc', 'miou'))}</td></tr>"
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def estimated(
    estimate: Estimate | None, *, scale: float = 100, digits: int = 2, sign: str = ""
) -> str:
    """A number with its seeds' deviation, and below it its interval.

    Args:
        estimate: or none, then a dash.
        scale: 100 writes per cent.
        digits: after the point; intervals have one less where there are two.
        sign: "+" writes it for positive numbers too.
    """
    if estimate is None:
        return wording.ABSENT

    def number(value: float, places: int) -> str:
        rounded = round(scale * value, places) + 0.0  # no −0.00
        return f"{rounded:{sign}.{places}f}".replace("-", "−")

    text = f"<b>{number(estimate.value, digits)}</b>"
    deviation = estimate.spread.deviation
    if deviation is not None:
        text += f" <small>± {scale * deviation:.{digits}f}</small>"
    if estimate.interval is not None:
        places = 1 if digits == 2 and not sign else digits
        low, high = (number(end, places) for end in estimate.interval)
        text += f'<span class="interval">{low} to {high}</span>'
    return text


def marked(estimate: Estimate | None) -> str:
    """A difference, with an arrow where its interval excludes zero."""
    text = estimated(estimate, sign="+")
    if estimate is None or not estimate.sure:
        return text
    up = estimate.value > 0
    words = "above zero" if up else "below zero"
    arrow = (
        f'<abbr class="{"up" if up else "down"}" title="the interval is {words}">'
        f"{'▲' if up else '▼'}</abbr> "
    )
    return arrow + text


def _score(name: str, within: str | None = None) -> Cell:
    return lambda comparison, arm: estimated(comparison.estimate(arm, name, within))


def _steps(comparison: Comparison, arm: str) -> str:
    steps = sorted({int(run.result["network_steps"]) for run in comparison.of(arm)})
    return "/".join(map(str, steps)) or wording.ABSENT


def _time(comparison: Comparison, arm: str) -> str:
    seconds = [float(run.result["wall_seconds"]) for run in comparison.of(arm)]
    return wording.duration(statistics.fmean(seconds)) if seconds else wording.ABSENT
