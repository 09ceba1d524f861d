"""Means, paired differences, tables and sentences on numbers that can be checked by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from eval import wording
from eval.summary import (
    Spread,
    find_run,
    missing_runs,
    over_seeds,
    paired_difference,
    score,
    trimap_widths,
)
from eval.table import columns, comparison_table, markdown_block, markdown_table, rows
from runtime.run_folder import ARMS


def results(**miou: list[float]) -> dict[str, Any]:
    """Runs of these arms by seed; within 1 px they have half the score, within 10 px none."""
    runs = [
        {
            "arm": arm.replace("_", "-"),
            "seed": seed,
            "metrics": {"report": {"miou": value, "trimap_miou": {"10": None, "1": value / 2}}},
        }
        for arm, values in miou.items()
        for seed, value in enumerate(values)
    ]
    return {"seeds": [0, 1], "runs": runs}


FOUND = results(start=[0.5], post_hoc=[0.6, 0.8], joint=[0.65, 0.81])


def difference(found: dict[str, Any], arm: str, base: str = "post-hoc") -> Any:
    spread = paired_difference(found, arm, base, score("miou"))
    return None if spread is None else spread.values


def test_a_score_is_a_number_or_none() -> None:
    start = FOUND["runs"][0]
    assert score("miou")(start) == 0.5
    assert score("trimap_miou", within="1")(start) == 0.25
    assert score("trimap_miou", within="10")(start) is None
    assert score("pixel_accuracy")(start) is None
    assert over_seeds(FOUND, "unary", score("miou")) is None
    assert trimap_widths(FOUND) == [1, 10]


def test_runs_are_found_and_missed_by_arm_and_seed() -> None:
    assert find_run(FOUND, "start", 1) is FOUND["runs"][0]  # it stands for every seed
    assert find_run(FOUND, "joint", 1) is FOUND["runs"][4]
    assert find_run(FOUND, "joint", 2) is None
    less = {**FOUND, "runs": FOUND["runs"][:-1]}
    assert missing_runs(less) == [("unary", (0, 1)), ("crf-only", (0, 1)), ("joint", (1,))]
    assert difference(less, "joint") == pytest.approx((0.05,))


def test_differences_are_paired_by_seed_and_spread_is_the_sample_deviation() -> None:
    spread = over_seeds(FOUND, "post-hoc", score("miou"))
    assert spread is not None
    assert (spread.mean, spread.deviation) == pytest.approx((0.7, 0.2 / 2**0.5))
    assert Spread((0.5,)).deviation is None
    assert difference(FOUND, "joint") == pytest.approx((0.05, 0.01))
    assert difference(FOUND, "start") == pytest.approx((-0.1, -0.3))
    assert difference(FOUND, "joint", "joint") is None


def test_numbers_as_words() -> None:
    assert wording.percent(Spread((0.7, 0.71))) == "70.50 ± 0.71"
    assert wording.percent(Spread((0.005,)), signed=True) == "+0.50"
    assert wording.percent(Spread((-0.005,)), signed=True) == "-0.50"
    assert wording.percent(Spread((-1e-9,)), signed=True) == "+0.00"
    assert wording.percent(None) == wording.ABSENT
    times = {0.2: "0 s", 59.4: "59 s", 59.6: "1:00 min", 200: "3:20 min", 3900: "1:05 h"}
    assert {seconds: wording.duration(seconds) for seconds in times} == times


def test_headline_and_remarks_say_who_wins() -> None:
    for joint, sentence in (
        ([0.72, 0.72], "reached 72.00 % mIoU, 1.00 points above"),
        ([0.70, 0.70], "reached 70.00 % mIoU, 1.00 points below"),
        ([0.70, 0.72], "reached 71.00 % mIoU, level with"),
        ([], "no result"),
    ):
        assert sentence in wording.headline(results(post_hoc=[0.71, 0.71], joint=joint))
    assert "no post-hoc CRF to compare" in wording.headline(results(joint=[0.7]))
    some = {"unary": [0.6, 0.6], "post_hoc": [0.70, 0.71], "joint": [0.69, 0.74]}
    none = {"unary": [0.4, 0.4], "post_hoc": [0.7, 0.7], "joint": [0.6, 0.6]}
    for arms, words in (
        (some, ("in 1 of 2 paired seeds", "0.50 points above", "holds.")),
        (none, ("in 0 of 2 paired seeds", "5.00 points below", "unary is not above start")),
    ):
        said = wording.remarks(results(start=[0.5], **arms))
        assert all(word in remark for word, remark in zip(words, said, strict=True))
    assert wording.remarks(results(unary=[0.4])) == []


def test_the_table_has_the_means_of_every_arm(fake_run: Any) -> None:
    table = [dict(zip(columns(), row, strict=True)) for row in rows(fake_run.results)]
    assert [row["arm"] for row in table] == list(ARMS)
    start, _, post_hoc, _, joint = table
    reports = [r["metrics"]["report"] for r in fake_run.results["runs"] if r["arm"] == "joint"]
    assert joint["mIoU"].startswith(f"{50 * sum(report['miou'] for report in reports):.2f} ± ")
    trimap = 50 * sum(report["trimap_miou"]["3"] for report in reports)
    assert joint["3 px"].startswith(f"{trimap:.2f} ± ")
    assert (joint["steps"], joint["time"]) == ("300", "45 s")
    assert [row["vs post-hoc"][0] for row in (start, post_hoc, joint)] == ["-", wording.ABSENT, "+"]
    assert "±" not in start["mIoU"]
    without = [run for run in fake_run.results["runs"] if run["arm"] != "post-hoc"]
    table = [dict(zip(columns(), row, strict=True)) for row in rows({**FOUND, "runs": without})]
    assert set(table[2].values()) == {"post-hoc", wording.ABSENT}


def test_the_table_is_whole_on_a_terminal_and_in_markdown(fake_run: Any) -> None:
    stream = io.StringIO()
    named = {**fake_run.results, "name": "a [bold] run"}
    Console(file=stream, width=80).print(comparison_table(named))
    text = stream.getvalue()
    assert "…" not in text
    assert "[bold]" in text
    words = [word for row in rows(fake_run.results) for cell in row for word in cell.split()]
    assert all(word in text for word in words)
    lines = markdown_table(fake_run.results).splitlines()
    assert {line.count("|") for line in lines} == {len(columns()) + 1}
    assert len(lines) == 2 + len(ARMS)
    block = markdown_block(fake_run.results)
    for part in (*lines, "compare collage --out runs/demo", "400 train", "a processor", "7:03 min"):
        assert part in block
