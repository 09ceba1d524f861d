"""Sentences made from numbers, above all when joint training loses."""

from __future__ import annotations

from typing import Any

import pytest

from eval import wording
from eval.summary import Spread


def results(**miou: list[float]) -> dict[str, Any]:
    runs = [
        {
            "arm": arm.replace("_", "-"),
            "seed": seed,
            "metrics": {"report": {"miou": value, "trimap_miou": {"1": value / 2}}},
        }
        for arm, values in miou.items()
        for seed, value in enumerate(values)
    ]
    return {"seeds": [0, 1], "runs": runs}


def test_percent() -> None:
    assert wording.percent(Spread((0.7, 0.71))) == "70.50 ± 0.71"
    assert wording.percent(Spread((0.5,))) == "50.00"
    assert wording.percent(Spread((0.005,)), signed=True) == "+0.50"
    assert wording.percent(Spread((-0.005,)), signed=True) == "-0.50"
    assert wording.percent(None) == "–"


def test_percent_has_no_negative_zero() -> None:
    assert wording.percent(Spread((-1e-9,)), signed=True) == "+0.00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (200, "3:20 min"), (3900, "1:05 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_machine_line_says_none() -> None:
    assert wording.machine_line({"machine": {"cores": 2, "gpu": None}}) == "cores: 2, gpu: none"


def test_commit_line_tells_uncommitted_changes() -> None:
    assert wording.commit_line({"commit": "abc", "dirty": False}) == "abc"
    assert wording.commit_line({"commit": "abc", "dirty": True}) == "abc with uncommitted changes"


@pytest.mark.parametrize(
    ("joint", "sentence"),
    [
        ([0.72, 0.72], "reached 72.00 % mIoU, 1.00 points above the post-hoc CRF"),
        ([0.70, 0.70], "reached 70.00 % mIoU, 1.00 points below the post-hoc CRF"),
        ([0.70, 0.72], "reached 71.00 % mIoU, level with the post-hoc CRF"),
    ],
)
def test_headline(joint: list[float], sentence: str) -> None:
    headline = wording.headline(results(post_hoc=[0.71, 0.71], joint=joint))
    assert headline == f"Joint training {sentence}"


def test_headline_without_one_of_the_two() -> None:
    assert "no result" in wording.headline(results(post_hoc=[0.7]))
    assert "no post-hoc CRF to compare" in wording.headline(results(joint=[0.7]))


def test_remarks_when_the_order_holds() -> None:
    lines = wording.remarks(
        results(start=[0.5], unary=[0.6, 0.6], post_hoc=[0.70, 0.71], joint=[0.69, 0.74])
    )
    assert lines == [
        "Joint is above post-hoc in 1 of 2 paired seeds.",
        "Within 1 px of the boundaries it is 0.50 points above the post-hoc CRF in mIoU.",
        "The expected order start < unary < post-hoc < joint holds.",
    ]


def test_remarks_when_joint_loses() -> None:
    lines = wording.remarks(
        results(start=[0.5], unary=[0.4, 0.4], post_hoc=[0.7, 0.7], joint=[0.6, 0.6])
    )
    assert lines[0] == "Joint is above post-hoc in 0 of 2 paired seeds."
    assert "5.00 points below" in lines[1]
    assert lines[2].endswith(
        "does not hold: unary is not above start, joint is not above post-hoc."
    )


def test_no_remark_on_what_was_not_run() -> None:
    assert wording.remarks(results(unary=[0.4])) == []
