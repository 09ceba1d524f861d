"""Numbers as words: the one place that decides how scores, times and machines are written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from eval.summary import Spread, over_seeds, paired_difference, score

ABSENT = "–"
"""Stands for a number that does not exist."""


def percent(spread: Spread | None, *, signed: bool = False) -> str:
    """Mean and sample standard deviation in per cent, "71.20 ± 0.31"; no ± for a single seed."""
    if spread is None:
        return ABSENT
    # Adding zero turns a rounded -0.0 into 0.0.
    mean = round(100 * spread.mean, 2) + 0.0
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return text if spread.deviation is None else f"{text} ± {100 * spread.deviation:.2f}"


def duration(seconds: float) -> str:
    """A wall time with its two largest units: "42 s", "3:20 min", "1:05 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def factor(value: float) -> str:
    """A ratio with two significant digits: "0.012", "3.4", "25", "1,200"."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def machine_line(results: Mapping[str, Any]) -> str:
    """The machine as "cpu: ..., cores: 2, ..." in the order of results.json."""
    return ", ".join(
        f"{key}: {'none' if value is None else value}" for key, value in results["machine"].items()
    )


def commit_line(results: Mapping[str, Any]) -> str:
    """The commit, with a warning when the working tree had changes that it does not hold."""
    commit = str(results["commit"])
    return f"{commit} with uncommitted changes" if results["dirty"] else commit


def seeds_line(results: Mapping[str, Any]) -> str:
    """The seeds as "0, 1"."""
    return ", ".join(str(seed) for seed in results["seeds"])


def headline(results: Mapping[str, Any]) -> str:
    """The comparison in one sentence: joint training against the post-hoc CRF."""
    miou = score("miou")
    joint = over_seeds(results, "joint", miou)
    if joint is None:
        return "Joint training has no result in this run"
    reached = f"Joint training reached {100 * joint.mean:.2f} % mIoU"
    difference = paired_difference(results, "joint", "post-hoc", miou)
    if difference is None:
        return f"{reached}; there is no post-hoc CRF to compare it with"
    return f"{reached}, {_against(difference)} the post-hoc CRF"


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What the headline does not say: agreement of the seeds, boundaries, order of the arms."""
    lines = []
    difference = paired_difference(results, "joint", "post-hoc", score("miou"))
    if difference is not None:
        above = sum(value > 0 for value in difference.values)
        lines.append(
            f"Joint is above post-hoc in {above} of {len(difference.values)} paired seeds."
        )
    boundary = paired_difference(results, "joint", "post-hoc", score("trimap_miou", within="1"))
    if boundary is not None:
        lines.append(
            f"Within 1 px of the boundaries it is {_against(boundary)} the post-hoc CRF in mIoU."
        )
    order = _order(results)
    if order is not None:
        lines.append(order)
    return lines


def _against(difference: Spread) -> str:
    """A mean difference as "0.80 points above", "0.80 points below" or "level with"."""
    points = round(100 * difference.mean, 2)
    if points == 0:
        return "level with"
    return f"{abs(points):.2f} points {'above' if points > 0 else 'below'}"


def _order(results: Mapping[str, Any]) -> str | None:
    """Whether start < unary < post-hoc < joint holds in the means, None when an arm is missing."""
    chain = ("start", "unary", "post-hoc", "joint")
    spreads = {arm: over_seeds(results, arm, score("miou")) for arm in chain}
    means = {arm: spread.mean for arm, spread in spreads.items() if spread is not None}
    if len(means) < len(chain):
        return None
    broken = [
        f"{higher} is not above {lower}"
        for lower, higher in pairwise(chain)
        if not means[higher] > means[lower]
    ]
    expected = "The expected order start < unary < post-hoc < joint"
    return f"{expected} does not hold: {', '.join(broken)}." if broken else f"{expected} holds."
