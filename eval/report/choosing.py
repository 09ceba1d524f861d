"""Which images a gallery shows, and the two arms that it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.comparison import Comparison
from eval.report.reading import ArmRun

PAIRS = (
    ("post-hoc", "joint"),
    ("post-hoc", "crf-only"),
    ("unary", "joint"),
    ("unary", "crf-only"),
    ("unary", "post-hoc"),
    ("start", "unary"),
)
"""Left and right layer at first: of these the first whose arms have both been run."""


@dataclass(frozen=True)
class Item:
    """An image to show.

    Attributes:
        name: of the image.
        miou: of every arm that has one, 0..1.
        gain: mIoU of the right arm minus that of the left one.
        crf_gain: what the right arm's CRF changed, where that is known.
    """

    name: str
    miou: Mapping[str, float]
    gain: float
    crf_gain: float | None


def compared(comparison: Comparison) -> tuple[int, str, str] | None:
    """The first seed that has both arms of a pair, and the pair, left and right."""
    for left, right in PAIRS:
        for seed in comparison.seeds:
            if comparison.find(left, seed) and comparison.find(right, seed):
                return seed, left, right
    return None


def ranked(arms: Mapping[str, ArmRun], left: str, right: str) -> list[Item]:
    """The images that both arms have a score of, largest gain first."""
    by_arm = {
        arm: _mious(run.result["metrics"]["report"].get("images", ())) for arm, run in arms.items()
    }
    before = _mious(arms[right].result.get("before_crf", {}).get("report", {}).get("images", ()))
    items = [
        Item(
            name,
            {arm: mious[name] for arm, mious in by_arm.items() if name in mious},
            value - by_arm[left][name],
            value - before[name] if name in before else None,
        )
        for name, value in by_arm[right].items()
        if name in by_arm[left]
    ]
    return sorted(items, key=lambda item: (-item.gain, item.name))


def _mious(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {image["name"]: image["miou"] for image in images if image["miou"] is not None}


def best_worst_and_between(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the ranked items: a third from either end, the rest evenly between.

    Raises:
        ValueError: a negative number.
    """
    if count < 0:
        raise ValueError(f"the gallery has at least 0 images, got {count}.")
    if len(items) <= count:
        return list(items)
    ends = count // 3
    between = count - 2 * ends
    first, last = ends, len(items) - ends
    # The middles of `between` equal parts.
    places = [first + int((k + 0.5) * (last - first) / between) for k in range(between)]
    return [*items[:ends], *(items[place] for place in places), *items[last:]]
