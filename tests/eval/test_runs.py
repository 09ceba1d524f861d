"""Means, paired differences, tables and sentences on numbers that can be checked by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from eval import tables
from eval.runs import Comparison, Estimate, Run, RunRecord, Spread, of_results
from runtime.run_folder import ARMS


def comparison(**miou: list[float]) -> Comparison:
    """Make the runs of these arms by seed; within 1 px they have half the score, in 10 px none."""
    runs = tuple(
        Run(arm.replace("_", "-"), seed, {"metrics": {"report": scores}})
        for arm, values in miou.items()
        for seed, value in enumerate(values)
        for scores in ({"miou": value, "trimap_miou": {"10": None, "1": value / 2}},)
    )
    return Comparison([RunRecord(Path("x"), "x", {"seeds": [0, 1]}, (), (), (), {}, runs)])


FOUND = comparison(start=[0.5], post_hoc=[0.6, 0.8], joint=[0.65, 0.81])


def values(found: Comparison, arm: str, base: str = "post-hoc") -> tuple[float, ...] | None:
    estimate = found.difference(arm, base, "miou")
    return None if estimate is None else estimate.spread.values


def test_runs_and_scores_are_found_and_missed_by_arm_and_seed() -> None:
    (start,) = FOUND.of("start")
    assert (start.score("miou"), start.score("trimap_miou", "1")) == (0.5, 0.25)
    assert start.score("trimap_miou", "10") is start.score("miou", split="tune") is None
    assert FOUND.estimate("unary", "miou") is None
    assert FOUND.find("start", 1) is FOUND.of("start")[0]  # it stands for every seed
    assert FOUND.find("joint", 1) is FOUND.of("joint")[1]
    assert FOUND.find("joint", 2) is None
    less = comparison(start=[0.5], post_hoc=[0.6, 0.8], joint=[0.65])
    assert less.missing() == [("unary", (0, 1)), ("crf-only", (0, 1)), ("joint", (1,))]
    assert values(less, "joint") == pytest.approx((0.05,))


def test_differences_are_paired_by_seed_and_spread_is_the_sample_deviation() -> None:
    spread = FOUND.line("post-hoc").spread("miou")
    assert spread is not None
    assert (spread.mean, spread.deviation) == pytest.approx((0.7, 0.2 / 2**0.5))
    assert Spread((0.5,)).deviation is None
    assert values(FOUND, "joint") == pytest.approx((0.05, 0.01))
    assert values(FOUND, "start") == pytest.approx((-0.1, -0.3))
    assert values(FOUND, "joint", "joint") is None


def estimate(value: float, *resampled: float) -> Estimate:
    drawn = np.array([[value, *resampled]]) if resampled else None
    return Estimate(Spread((value,)), lambda: drawn)


def test_with_several_seeds_a_claim_needs_the_seeds_as_well_as_the_images() -> None:
    images = np.linspace(-0.1, 0.1, 401)  # what another choice of images changes, the same for all

    def of_seeds(*values: float) -> Estimate:
        drawn = np.array([[value, *(value + images)] for value in values])
        return Estimate(Spread(values), lambda: drawn)

    agreed, torn = of_seeds(0.2, 0.21, 0.22, 0.23), of_seeds(0.9, -0.25, 0.9, -0.25)
    assert agreed.wide_interval is not None
    assert agreed.interval == pytest.approx((0.215 - 0.095, 0.215 + 0.095))
    assert agreed.wide_interval[1] - agreed.wide_interval[0] > 0.19
    assert (agreed.sure, torn.sure) == (True, False)
    assert torn.interval is not None
    assert torn.interval[0] > 0  # the images alone would have claimed it
    assert of_seeds(0.2).wide_interval is None


def test_no_difference_is_claimed_where_the_interval_holds_zero() -> None:
    for found, words in (
        (estimate(0.01, 0.005, 0.02), "1.00 points above it"),
        (estimate(-0.01, -0.02, -0.005), "1.00 points below it"),
        (estimate(0.0067, -0.002, 0.02), "no difference from it that this can tell"),
        (estimate(0.0, 0.0, 0.0), "no difference from it that this can tell"),
        (estimate(0.01), "1.00 points above it (interval unknown)"),
    ):
        assert tables.verdict(found, "it") == words
    assert "1.00 points above" in tables.headline(comparison(post_hoc=[0.7], joint=[0.71]))
    for arms in ({"post_hoc": [0.71]}, {"joint": [0.7]}):
        assert "above" not in tables.headline(comparison(**arms))


def test_the_table_has_the_means_of_every_arm_and_is_whole_on_a_terminal(finished_run: Any) -> None:
    found = Comparison([of_results({**finished_run.results, "name": "a [bold] run"})])
    titles, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables.markdown_block(found).splitlines()
        if line.startswith("|")
    )
    table = {row[0]: dict(zip(titles, row, strict=True)) for row in rows}
    assert list(table) == list(ARMS)
    joint, (one, two) = table["joint"], found.of("joint")
    for title, score in (("mIoU", ("miou",)), ("3 px", ("trimap_miou", "3"))):
        values = one.score(*score), two.score(*score)
        assert joint[title].startswith(f"{100 * np.mean(values):.2f} ± ")  # type: ignore[arg-type]
    assert joint["steps"] == "4"
    assert table["post-hoc"]["vs post-hoc"] == tables.ABSENT
    assert "±" not in table["start"]["mIoU"]
    assert "8 train" in tables.markdown_block(found)
    stream = io.StringIO()
    Console(file=stream, width=100).print(tables.comparison_table(found))
    text = stream.getvalue()
    assert "…" not in text
    assert all(word in text for row in rows for cell in row for word in cell.split())
    assert "[bold]" in text
