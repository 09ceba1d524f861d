"""The figures show the numbers of the comparison, and say why where they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from eval import wording
from eval.metrics import gains, score_named
from eval.report.comparison import Comparison, comparisons
from eval.report.figures import KINDS, draw
from eval.report.figures.canvas import canvas, padded, style
from eval.report.figures.matrices import heat_map
from eval.report.reading import read_run
from runtime.run_folder import ARMS
from tests.eval.fake_run import FakeRun

WITH_CRF = ("post-hoc", "crf-only", "joint")


def read(path: Path) -> Comparison:
    return comparisons([read_run(path)])[0]


@pytest.fixture(scope="module")
def comparison(fake_run: FakeRun) -> Comparison:
    return read(fake_run.run_dir)


def figure_of(comparison: Comparison, name: str) -> Figure:
    """Before it is written: test_report.py writes all of them."""
    with style():
        return KINDS[name].draw(comparison)


def curves(axis: Any) -> list[list[float]]:
    return [list(map(float, line.get_ydata())) for line in axis.lines]


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def test_the_ladder_has_the_score_of_every_arm(comparison: Comparison) -> None:
    shown = texts(figure_of(comparison, "ladder"))
    for arm in ARMS:
        estimate = comparison.estimate(arm, "miou")
        assert estimate is not None
        assert arm in shown
        assert wording.percent(estimate.spread) in shown


def test_trimap_curves_are_the_scores_and_their_differences(
    comparison: Comparison, run_copy: Path
) -> None:
    widths = [1, 2, 3, 5, 10, 20, 40]
    figure = figure_of(comparison, "trimap")
    found = curves(figure.axes[0])
    for arm, curve in zip(ARMS, found, strict=True):
        estimates = [comparison.estimate(arm, "trimap_miou", str(width)) for width in widths]
        expected = [100 * estimate.value for estimate in estimates if estimate is not None]
        assert set(map(float, expected)) <= set(curve)
    assert len(figure.axes[0].collections) == len(ARMS)  # a band each
    differences = curves(figure_of(comparison, "trimap-difference").axes[0])
    post_hoc, crf_only, joint = (np.array(found[ARMS.index(arm)]) for arm in WITH_CRF)
    np.testing.assert_allclose(differences[0], crf_only - post_hoc, atol=1e-9)
    np.testing.assert_allclose(differences[1], joint - post_hoc, atol=1e-9)
    for path in (*run_copy.glob("arms/*/counts-*.npz"), *run_copy.glob("arms/start-*/result.json")):
        path.unlink()
    figure = figure_of(read(run_copy), "trimap")
    assert len(figure.axes[0].collections) == 0
    assert curves(figure.axes[0]) == found[1:]
    assert "start" not in texts(figure)


def test_classes_have_their_difference_to_unary(comparison: Comparison) -> None:
    figure = figure_of(comparison, "classes")
    dots = [np.asarray(c.get_offsets())[0, 0] for c in figure.axes[0].collections]
    expected = [
        100 * found.value
        for name in comparison.classes
        for arm in WITH_CRF
        if (found := comparison.difference(arm, "unary", "iou_per_class", name)) is not None
    ]
    assert dots == pytest.approx(expected)
    gain = comparison.difference("joint", "post-hoc", "iou_per_class", "class 2")
    assert gain is not None
    assert wording.percent(gain.spread, signed=True).replace("-", "−") in texts(figure)


def test_points_and_harm_are_what_the_counts_say(comparison: Comparison) -> None:
    joint = figure_of(comparison, "strength").axes[-1]
    expected = np.concatenate(
        [
            100 * np.stack(gains(run.before, run.counts), axis=1)
            for run in comparison.of("joint")
            if run.before is not None and run.counts is not None
        ]
    )
    np.testing.assert_allclose(np.asarray(joint.collections[0].get_offsets()), expected)
    harm = comparison.harm("joint")
    assert harm is not None
    assert harm.value == pytest.approx((expected[:, 1] < 0).mean())  # as many images a seed
    assert harm.interval is not None
    assert harm.interval[0] <= harm.value <= harm.interval[1]
    assert f"worse on {100 * harm.value:.1f} %" in joint.get_title(loc="left")


def test_calibration_is_that_of_the_counts(comparison: Comparison) -> None:
    shown = texts(figure_of(comparison, "calibration"))
    for when in ("before", "behind"):
        counts = [run.before if when == "before" else run.counts for run in comparison.of("joint")]
        ece, nll = (
            np.mean([score_named(name)(c, c.all_once())[0] for c in counts if c is not None])
            for name in ("ece", "nll")
        )
        assert f"{when}: ECE {100 * ece:.2f} %, NLL {nll:.3f}" in shown


def test_iterations_and_learning_are_those_of_the_log(comparison: Comparison) -> None:
    energy, divergence, change = figure_of(comparison, "iterations").axes
    steps = np.arange(6)
    assert curves(energy)[:2] == [list(2.0**-steps), list(0.5 * 2.0**-steps)]
    assert curves(divergence)[0] == list(3.0**-steps)
    assert curves(change)[0] == list(0.9 ** steps[1:])
    figure = figure_of(comparison, "learning")
    assert curves(figure.axes[0])[0] == [40 + 0.01 * step for step in range(10, 301, 10)]
    assert "not moved: θβ 9 grey levels" in texts(figure)


def test_matrices_are_changes_from_where_they_began(run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-*/result.json"):
        result = json.loads(path.read_text())
        result["crf"]["kernel_weights"]["context"] = [[0.25] * 4] * 4
        path.write_text(json.dumps(result))
    comparison = read(run_copy)
    bilateral, _, context, compatibility = figure_of(comparison, "matrices-joint").axes
    crf = comparison.of("joint")[0].result["crf"]
    changes = [text.get_text().replace("−", "-") for text in bilateral.texts]
    moved = np.array(crf["kernel_weights"]["bilateral"]) - 5 * np.eye(4)
    shown = moved[abs(moved) >= 0.005]
    np.testing.assert_allclose(np.array(changes, float), shown, atol=0.0051)  # two decimals
    assert "change from post-hoc" in bilateral.get_xlabel()
    assert "change from zero" in context.get_xlabel()
    assert "change from Potts" in compatibility.get_xlabel()
    for path in run_copy.glob("arms/post-hoc-*/result.json"):
        path.unlink()
    assert "change from zero" in texts(figure_of(read(run_copy), "matrices-joint"))


def test_a_heat_map_takes_matrices_of_one_size() -> None:
    with style():
        _, axes = canvas(300, 300)
        heat_map(axes, "weights", np.eye(1), np.eye(1), "a", "start")
        assert axes.get_xlabel() == "same as start"
        for matrix, centre in ((np.eye(1), np.eye(2)), (np.eye(2), np.eye(1))):
            with pytest.raises(ValueError, match=r"expected a 2 x 2 (matrix|centre)"):
                heat_map(axes, "weights", matrix, centre, "ab", "start")


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_that_cannot_be_drawn_says_why(name: str, run_copy: Path) -> None:
    before = dict(mpl.rcParams)
    for file in ("metrics.jsonl", "counts-report-before-crf.npz"):
        for path in run_copy.glob(f"arms/*/{file}"):
            path.unlink()
    needs_file = name in ("strength", "calibration", "iterations", "learning")
    if not needs_file:
        for path in run_copy.glob("arms/*/result.json"):
            path.unlink()
    drawing = draw(read(run_copy), name, "c0")
    assert drawing.reason
    assert (drawing.inline, drawing.svg, drawing.png) == ("", "", b"")
    assert dict(mpl.rcParams) == before


def test_padding_never_gives_an_empty_range() -> None:
    assert padded([5.0, 5.0]) == (4.0, 6.0)
    assert padded([0.0, 100.0, float("nan")]) == (-6.0, 106.0)
