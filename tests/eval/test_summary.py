"""Means, deviations and paired differences on numbers that can be checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from eval.summary import (
    Spread,
    find_run,
    missing_runs,
    over_seeds,
    paired_difference,
    score,
    trimap_widths,
)


def run(arm: str, seed: int, miou: float | None, **report: Any) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "metrics": {"report": {"miou": miou, **report}}}


RESULTS: dict[str, Any] = {
    "seeds": [0, 1],
    "runs": [
        run("start", 0, 0.5, trimap_miou={"3": 0.25, "10": None}),
        run("post-hoc", 0, 0.60),
        run("post-hoc", 1, 0.80),
        run("joint", 0, 0.65),
        run("joint", 1, 0.81),
    ],
}


def test_score_reads_a_number_or_none() -> None:
    start = RESULTS["runs"][0]
    assert score("miou")(start) == 0.5
    assert score("trimap_miou", within="3")(start) == 0.25
    assert score("trimap_miou", within="10")(start) is None
    assert score("trimap_miou", within="99")(start) is None
    assert score("pixel_accuracy")(start) is None
    assert score("miou", split="tune")(start) is None


def test_start_stands_for_every_seed() -> None:
    assert find_run(RESULTS, "start", 1) is RESULTS["runs"][0]
    assert find_run(RESULTS, "joint", 1) is RESULTS["runs"][4]
    assert find_run(RESULTS, "joint", 2) is None


def test_spread_is_mean_and_sample_deviation() -> None:
    spread = over_seeds(RESULTS, "post-hoc", score("miou"))
    assert spread is not None
    assert spread.mean == pytest.approx(0.7)
    assert spread.deviation == pytest.approx(0.2 / 2**0.5)
    assert (spread.low, spread.high) == (0.6, 0.8)


def test_one_seed_has_no_deviation() -> None:
    assert Spread((0.5,)).deviation is None


def test_absent_scores_have_no_spread() -> None:
    assert over_seeds(RESULTS, "unary", score("miou")) is None
    assert over_seeds(RESULTS, "start", score("trimap_miou", within="10")) is None


def test_differences_are_paired_by_seed() -> None:
    difference = paired_difference(RESULTS, "joint", "post-hoc", score("miou"))
    assert difference is not None
    assert difference.values == pytest.approx((0.05, 0.01))


def test_start_is_compared_with_every_seed() -> None:
    difference = paired_difference(RESULTS, "start", "post-hoc", score("miou"))
    assert difference is not None
    assert difference.values == pytest.approx((-0.1, -0.3))


def test_a_seed_that_lacks_one_arm_is_left_out() -> None:
    results = {**RESULTS, "runs": RESULTS["runs"][:-1]}
    difference = paired_difference(results, "joint", "post-hoc", score("miou"))
    assert difference is not None
    assert difference.values == pytest.approx((0.05,))


def test_an_arm_has_no_difference_to_itself() -> None:
    assert paired_difference(RESULTS, "joint", "joint", score("miou")) is None


def test_missing_runs_are_named() -> None:
    results = {**RESULTS, "runs": RESULTS["runs"][:-1]}
    assert missing_runs(results) == [("unary", (0, 1)), ("crf-only", (0, 1)), ("joint", (1,))]


def test_trimap_widths_are_sorted_as_numbers() -> None:
    assert trimap_widths(RESULTS) == [3, 10]
