"""The plots and heat maps: well-formed, complete, honest about what is missing."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from eval import figures
from eval.arms import ARMS
from eval.heatmap import heat_map

PLOTS = [
    figures.ladder,
    figures.trimap_curves,
    figures.trimap_differences,
    figures.class_differences,
]


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_are_well_formed(plot: Any, fake_run: Any) -> None:
    root = ElementTree.fromstring(plot(fake_run.results))
    assert root.tag == "svg"
    assert root.get("aria-label")


@pytest.mark.parametrize("plot", [figures.ladder, figures.trimap_curves])
def test_every_arm_is_drawn(plot: Any, fake_run: Any) -> None:
    drawing = plot(fake_run.results)
    assert all(f'class="arm-{arm}"' in drawing for arm in ARMS)


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("arm", ["start", "crf-only", "joint"])
def test_a_missing_arm_is_left_out(plot: Any, arm: str, fake_run: Any) -> None:
    drawing = plot(fake_run.without(arm))
    ElementTree.fromstring(drawing)
    assert f'class="arm-{arm}"' not in drawing


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_to_draw_is_none(plot: Any, fake_run: Any) -> None:
    assert plot({**fake_run.results, "runs": []}) is None


@pytest.mark.parametrize("plot", [figures.trimap_differences, figures.class_differences])
def test_no_difference_without_its_baseline(plot: Any, fake_run: Any) -> None:
    assert plot(fake_run.without("unary")) is None


@pytest.mark.parametrize("plot", PLOTS)
def test_equal_scores_are_drawn(plot: Any, fake_run: Any) -> None:
    metrics = fake_run.results["runs"][0]["metrics"]
    runs = [{**run, "metrics": metrics} for run in fake_run.results["runs"]]
    ElementTree.fromstring(plot({**fake_run.results, "runs": runs}))


def test_one_trimap_width_is_drawn(fake_run: Any) -> None:
    runs = []
    for run in fake_run.results["runs"]:
        report = run["metrics"]["report"]
        narrow = {**report, "trimap_miou": {"3": report["trimap_miou"]["3"]}}
        runs.append({**run, "metrics": {"report": narrow}})
    drawing = figures.trimap_curves({**fake_run.results, "runs": runs})
    assert drawing is not None
    ElementTree.fromstring(drawing)


def test_heat_map_colours_the_change() -> None:
    drawing = heat_map("weights", [[4.0, 0.0], [0.0, 2.5]], [[3.0, 0.0], [0.0, 3.0]], "ab", "start")
    squares = list(ElementTree.fromstring(drawing).iter("rect"))
    assert [square.get("class") for square in squares][::3] == ["square rise", "square fall"]
    assert [square.get("fill-opacity") for square in squares] == ["0.75", "0", "0", "0.38"]
    assert "a, a: 4 (start 3, change +1)" in drawing
    assert "change from start, strongest 1" in drawing
    assert "−.50" in drawing


def test_heat_map_without_change_says_so() -> None:
    drawing = heat_map("weights", [[1.0]], [[1.0]], ["one"], "Potts")
    assert "same as Potts" in drawing


@pytest.mark.parametrize(("matrix", "centre"), [([[1.0]], [[1.0, 0.0]] * 2), ([[1.0]] * 2, [[1]])])
def test_heat_map_refuses_other_sizes(matrix: Any, centre: Any) -> None:
    with pytest.raises(ValueError, match="expected a 2 x 2 matrix for 2 label names"):
        heat_map("weights", matrix, centre, ["a", "b"], "start")


def test_heat_map_escapes_class_names() -> None:
    drawing = heat_map("weights", [[1.0]], [[0.0]], ["<script>"], "zero")
    assert "<script>" not in drawing
    ElementTree.fromstring(drawing)
