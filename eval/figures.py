"""The plots of a comparison: arms on one scale, trimap curves, classes.

Every function returns inline SVG, or None when the runs that it needs are missing. An arm has the
same colour everywhere, by its class `arm-NAME`; the colours are in `report_template.html`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval import svg
from eval.arms import ARMS
from eval.summary import Spread, over_seeds, paired_difference, score, trimap_widths
from eval.wording import percent

Results = Mapping[str, Any]
Curve = list[tuple[int, Spread]]


def ladder(results: Results) -> str | None:
    """All arms on one axis of mIoU: a large dot for the mean, a small one for each seed."""
    spreads = {arm: over_seeds(results, arm, score("miou")) for arm in ARMS}
    present = {arm: spread for arm, spread in spreads.items() if spread is not None}
    if not present:
        return None
    width, left, right, row = 520, 78, 104, 42
    bottom = row * len(present) + 6
    low, high = svg.padded([100 * v for spread in present.values() for v in spread.values])

    def x(value: float) -> float:
        return left + (100 * value - low) / (high - low) * (width - left - right)

    marks = []
    for tick in svg.ticks(low, high, 6):
        marks.append(svg.line(x(tick / 100), 0, x(tick / 100), bottom, "grid"))
        marks.append(svg.text(x(tick / 100), bottom + 14, svg.number(tick), "tick", "middle"))
    for index, (arm, spread) in enumerate(present.items()):
        y = row * (index + 0.5)
        hint = f"{arm}: {percent(spread)} % mIoU"
        marks.append(
            svg.group(
                f"arm-{arm}",
                svg.text(left - 14, y, arm, "name", "end"),
                svg.line(x(spread.low), y, x(spread.high), y, "range"),
                *(svg.dot(x(value), y, 3.5, "seed", hint) for value in spread.values),
                svg.dot(x(spread.mean), y, 7, "ink", hint),
                svg.text(width - right + 14, y, percent(spread), "value"),
            )
        )
    return svg.picture(width, bottom + 24, "mIoU of every arm in per cent", *marks)


def trimap_curves(results: Results) -> str | None:
    """MIoU in per cent against the width of the trimap band, a curve for each arm."""
    curves: dict[str, Curve] = {}
    for arm in ARMS:
        for width in trimap_widths(results):
            spread = over_seeds(results, arm, score("trimap_miou", within=str(width)))
            if spread is not None:
                curves.setdefault(arm, []).append((width, spread))
    return _plot_against_width(curves, "mIoU within the band, %") if curves else None


def trimap_differences(results: Results, baseline: str = "unary") -> str | None:
    """The same curves minus those of another arm, in points, paired by seed."""
    curves: dict[str, Curve] = {}
    for arm in ARMS:
        for width in trimap_widths(results):
            pick = score("trimap_miou", within=str(width))
            spread = paired_difference(results, arm, baseline, pick)
            if spread is not None:
                curves.setdefault(arm, []).append((width, spread))
    if not curves:
        return None
    return _plot_against_width(curves, f"difference to {baseline}, points of mIoU", baseline)


def class_differences(results: Results, baseline: str = "unary") -> str | None:
    """IoU of every scored class minus that of the baseline, one row a class, one dot an arm.

    A line joins the post-hoc CRF to joint training; its end says how much joint training adds.
    """
    table = _class_table(results, baseline)
    if not table:
        return None
    width, top, row = 520, 28, 28
    left, right = 20 + 8.0 * max(map(len, table)), 124
    bottom = top + row * len(table) + 4
    means = [100 * spread.mean for spreads in table.values() for spread in spreads.values()]
    low, high = svg.padded([0.0, *means])

    def x(value: float) -> float:
        return left + (100 * value - low) / (high - low) * (width - left - right)

    marks = [svg.text(width - right + 24, 10, "joint − post-hoc", "tick")]
    for tick in svg.ticks(low, high, 6):
        marks.append(svg.line(x(tick / 100), top, x(tick / 100), bottom, "grid"))
        marks.append(svg.text(x(tick / 100), bottom + 14, svg.number(tick), "tick", "middle"))
    marks.append(svg.line(x(0), top - 6, x(0), bottom, "zero"))
    marks.append(svg.text(x(0), 10, baseline, "tick", "middle"))
    for index, (name, spreads) in enumerate(table.items()):
        y = top + row * (index + 0.5)
        marks.append(svg.text(left - 14, y, name, "name", "end"))
        pick = score("iou_per_class", within=name)
        gain = paired_difference(results, "joint", "post-hoc", pick)
        if gain is not None and "joint" in spreads and "post-hoc" in spreads:
            ahead = "joint" if gain.mean >= 0 else "post-hoc"
            ends = x(spreads["post-hoc"].mean), x(spreads["joint"].mean)
            marks.append(svg.group(f"arm-{ahead}", svg.line(ends[0], y, ends[1], y, "range")))
            gained = percent(gain, signed=True).replace("-", "−")
            marks.append(svg.text(width - right + 24, y, gained, "value"))
        for arm, spread in spreads.items():
            hint = f"{name}, {arm}: {percent(spread, signed=True)} points against {baseline}"
            marks.append(svg.group(f"arm-{arm}", svg.dot(x(spread.mean), y, 6, "ink", hint)))
    label = f"Difference of IoU to {baseline} for every scored class, in points"
    return svg.picture(width, bottom + 24, label, *marks)


def _class_table(results: Results, baseline: str) -> dict[str, dict[str, Spread]]:
    """Difference to the baseline by scored class and arm, without what does not exist."""
    table: dict[str, dict[str, Spread]] = {}
    for index in results["data"]["scored"]:
        name = results["data"]["classes"][index]
        for arm in ("post-hoc", "crf-only", "joint"):
            pick = score("iou_per_class", within=name)
            spread = paired_difference(results, arm, baseline, pick)
            if spread is not None:
                table.setdefault(name, {})[arm] = spread
    return table


def _plot_against_width(
    curves: Mapping[str, Curve], y_label: str, baseline: str | None = None
) -> str:
    """Means as lines and the range over the seeds as an area, against the width on a log scale."""
    width, height, left, right, top, bottom = 480, 340, 42, 72, 30, 46
    widths = sorted({w for curve in curves.values() for w, _ in curve})
    values = [100 * v for curve in curves.values() for _, spread in curve for v in spread.values]
    low, high = svg.padded([*values, *([0.0] if baseline else [])])
    decades = math.log(widths[-1] / widths[0]) or 1.0

    def x(band: int) -> float:
        return left + math.log(band / widths[0]) / decades * (width - left - right)

    def y(value: float) -> float:
        return top + (high - 100 * value) / (high - low) * (height - top - bottom)

    marks = [svg.text(left, 10, y_label, "tick")]
    for tick in svg.ticks(low, high):
        marks.append(svg.line(left, y(tick / 100), width - right, y(tick / 100), "grid"))
        marks.append(svg.text(left - 8, y(tick / 100), svg.number(tick), "tick", "end"))
    for band in widths:
        marks.append(svg.text(x(band), height - bottom + 14, str(band), "tick", "middle"))
    centre = (left + width - right) / 2
    marks.append(svg.text(centre, height - 12, "width of the band, pixels", "tick", "middle"))
    ends = {arm: y(curve[-1][1].mean) for arm, curve in curves.items()}
    if baseline:
        marks.append(svg.line(left, y(0), width - right, y(0), "zero"))
        ends[baseline] = y(0)
    for arm, curve in curves.items():
        marks.append(svg.group(f"arm-{arm}", *_curve(arm, curve, x, y)))
    label_heights = svg.spread_apart(list(ends.values()), 15)
    for arm, at in zip(ends, label_heights, strict=True):
        marks.append(svg.group(f"arm-{arm}", svg.text(width - right + 8, at, arm, "name")))
    return svg.picture(width, height, f"{y_label}, against the width of the trimap band", *marks)


def _curve(
    arm: str,
    curve: Sequence[tuple[int, Spread]],
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> list[str]:
    """One arm: the area between the seeds, the line of the means, a dot at every width."""
    upper = [(x(band), y(spread.high)) for band, spread in curve]
    lower = [(x(band), y(spread.low)) for band, spread in reversed(curve)]
    means = [(x(band), y(spread.mean)) for band, spread in curve]
    return [
        svg.element("polygon", {"points": _points([*upper, *lower]), "class": "area"}),
        svg.element("polyline", {"points": _points(means), "class": "curve"}),
        *(
            svg.dot(x(band), y(spread.mean), 3, "ink", f"{arm}, {band} px: {percent(spread)}")
            for band, spread in curve
        ),
    ]


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)
