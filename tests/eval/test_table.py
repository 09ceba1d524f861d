"""The comparison table in the terminal and in Markdown."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from eval.arms import ARMS
from eval.table import columns, comparison_table, markdown_block, markdown_table, rows


def printed(results: dict[str, Any], width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(results))
    return stream.getvalue()


def cells_of(results: dict[str, Any], arm: str) -> dict[str, str]:
    return dict(zip(columns(), rows(results)[ARMS.index(arm)], strict=True))


def test_one_row_for_each_arm_in_order(fake_run: Any) -> None:
    assert [row[0] for row in rows(fake_run.results)] == list(ARMS)
    assert all(len(row) == len(columns()) for row in rows(fake_run.results))


def test_cells_are_means_over_seeds(fake_run: Any) -> None:
    runs = [run for run in fake_run.results["runs"] if run["arm"] == "joint"]
    mious = [100 * run["metrics"]["report"]["miou"] for run in runs]
    trimap = [100 * run["metrics"]["report"]["trimap_miou"]["3"] for run in runs]
    cells = cells_of(fake_run.results, "joint")
    assert cells["mIoU"].startswith(f"{sum(mious) / 2:.2f} ± ")
    assert cells["3 px"].startswith(f"{sum(trimap) / 2:.2f} ± ")
    assert cells["steps"] == "300"
    assert cells["time"] == "45 s"


def test_difference_is_to_post_hoc(fake_run: Any) -> None:
    assert cells_of(fake_run.results, "joint")["vs post-hoc"].startswith("+")
    assert cells_of(fake_run.results, "start")["vs post-hoc"].startswith("-")
    assert cells_of(fake_run.results, "post-hoc")["vs post-hoc"] == "–"


def test_start_has_no_deviation(fake_run: Any) -> None:
    assert "±" not in cells_of(fake_run.results, "start")["mIoU"]


def test_an_arm_that_was_not_run_has_dashes(fake_run: Any) -> None:
    assert set(rows(fake_run.without("crf-only"))[3][1:]) == {"–"}


def test_without_post_hoc_there_is_no_difference(fake_run: Any) -> None:
    results = fake_run.without("post-hoc")
    assert {row[2] for row in rows(results)} == {"–"}


def test_terminal_table_is_whole_on_80_columns(fake_run: Any) -> None:
    text = printed(fake_run.results, width=80)
    assert "…" not in text
    for row in rows(fake_run.results):
        for cell in row:
            assert all(word in text for word in cell.split())


def test_terminal_table_does_not_read_markup(fake_run: Any) -> None:
    assert "[bold]" in printed({**fake_run.results, "name": "a [bold] run"}, width=120)


def test_markdown_table_is_rectangular(fake_run: Any) -> None:
    lines = markdown_table(fake_run.results).splitlines()
    assert len(lines) == 2 + len(ARMS)
    assert {line.count("|") for line in lines} == {len(columns()) + 1}
    assert lines[0].startswith("| arm | mIoU |")
    assert lines[1].startswith("| --- | ---: |")


def test_markdown_block_says_how_to_repeat_it(fake_run: Any) -> None:
    block = markdown_block({**fake_run.results, "dirty": True})
    for part in (
        "python -m train compare collage --out runs/demo",
        "seeds 0, 1; 300 network steps; images: 400 train, 20 tune, 8 report",
        "machine: cpu: a processor, cores: 2, gpu: none; wall time 7:03 min",
        "commit 0123456789abcdef0123456789abcdef01234567 with uncommitted changes",
        markdown_table(fake_run.results),
    ):
        assert part in block
