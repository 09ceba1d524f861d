"""What the explorer shows, without its page: setting in, view out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crfrnn import PRESETS
from eval.explore import markup
from eval.explore.controls import (
    CONTROLS,
    START,
    preset_names,
    setting_from,
    values_of,
    with_preset,
)
from eval.explore.refinery import FAINT, KEPT, Refinery, preview_of
from eval.explore.view import difference, heat, moves, shares, view
from eval.predict import POST_HOC
from models.crf import build_crf
from models.resize import shrink, shrink_image, stretch
from tests.eval.explore_scenes import LABELS, two_colours

SETTING = replace(POST_HOC, theta_alpha=8.0, theta_beta=20.0, num_iterations_eval=4)


@pytest.mark.parametrize("resolution", [1, 2])
def test_the_marginals_are_those_of_the_layer(resolution: int) -> None:
    scene, setting = two_colours(), replace(SETTING, resolution=resolution)
    refined = Refinery().refine(scene, setting)
    crf = build_crf(setting, 3).eval()
    with torch.no_grad():
        logits = crf(shrink(scene.unary, resolution), shrink_image(scene.image, resolution))
        expected = stretch(logits, scene.unary.shape[2:]).softmax(1)[0]
    assert torch.equal(refined.q, expected)
    assert refined.grid == (40 // resolution, 60 // resolution)


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({"bilateral_weight": 1.0}, True),
        ({"spatial_weight": 1.0}, True),
        ({"num_iterations_eval": 2}, True),
        ({"inference": "frank_wolfe"}, True),
        ({"theta_alpha": 9.0}, False),
        ({"theta_beta": 9.0}, False),
        ({"theta_gamma": 2.0}, False),
        ({"normalization": "symmetric"}, False),
        ({"bilateral_filter": "window"}, False),
        ({"lattice_accuracy": "fine"}, False),
        ({"resolution": 2}, False),
    ],
)
def test_kernels_serve_every_setting_that_leaves_them_alone(change, reused) -> None:
    refinery, scene = Refinery(), two_colours()
    assert not refinery.refine(scene, SETTING).reused
    second = refinery.refine(scene, replace(SETTING, **change))
    assert second.reused == reused
    assert torch.equal(second.q, Refinery().refine(scene, replace(SETTING, **change)).q)


def test_only_the_last_few_kernels_are_kept_and_another_image_has_its_own() -> None:
    refinery, scene = Refinery(), two_colours()
    refinery.refine(scene, SETTING)
    assert not refinery.refine(replace(scene, name="copy"), SETTING).reused
    for k in range(KEPT):
        refinery.refine(scene, replace(SETTING, theta_gamma=2.0 + k))
    assert not refinery.refine(scene, SETTING).reused


def test_energies_are_those_of_every_iteration() -> None:
    scene = two_colours()
    energies = Refinery().energies(scene, SETTING)
    crf = build_crf(replace(SETTING, resolution=2), 3).eval()
    kernels = crf.potentials.build_kernels(shrink_image(scene.image, 2))
    records = crf.trace(shrink(scene.unary, 2), kernels)
    assert len(energies) == 5
    expected = [record.free_energy.item() / 600 for record in records]
    assert [energy.free for energy in energies] == expected
    assert energies[0].change == 0 < energies[1].change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta_alpha": 0.0}, r"theta_alpha must be a finite number above 0 \(pixels\), got 0"),
        ({"theta_beta": 0.0}, r"theta_beta must be a finite number above 0 \(grey levels"),
        ({"bilateral_filter": "exact"}, r"2,400 are too many.*coarser resolution \(at most 2,000"),
    ],
)
def test_what_cannot_be_run_is_said_in_words(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        Refinery(exact_pixels=2000).refine(two_colours(), replace(SETTING, **change))


def test_the_exact_filter_runs_on_a_small_grid() -> None:
    exact = replace(SETTING, bilateral_filter="exact", resolution=2)
    refinery = Refinery(exact_pixels=600)
    assert refinery.refine(two_colours(), exact).grid == (20, 30)


def test_a_preview_is_coarse_and_no_finer_than_the_setting() -> None:
    assert preview_of(SETTING) == replace(SETTING, resolution=2)
    assert preview_of(replace(SETTING, resolution=8)).resolution == 8


def test_a_preview_leaves_out_labels_that_no_pixel_has() -> None:
    scene = two_colours()
    refinery = Refinery()
    coarse = refinery.refine(scene, replace(SETTING, resolution=2))
    assert torch.equal(refinery.refine(scene, SETTING, preview=True).q, coarse.q)
    rare = replace(scene, unary=scene.unary - torch.tensor([0.0, 0.0, 9.0])[:, None, None])
    assert rare.seen(FAINT).tolist() == [0, 1]
    shown = refinery.refine(rare, SETTING, preview=True).q
    assert not shown[2].any()
    # What is left out had less than a hundredth everywhere.
    expected = refinery.refine(rare, replace(SETTING, resolution=2)).q
    assert (shown - expected).abs().max() < 0.01


def test_the_view_of_a_scene() -> None:
    scene = two_colours()
    shown = view(Refinery(), scene, SETTING, "tree")
    before, after = scene.unary[0].argmax(0).numpy(), shown.refined.q.argmax(0).numpy()
    assert shown.changed == (before != after).mean() > 0
    assert sum(shown.shares.values()) == pytest.approx(1)
    assert np.array_equal(shown.probability, heat(shown.refined.q[1].numpy()))
    assert shown.miou is not None
    assert shown.miou[1] > shown.miou[0]
    assert shown.truth is not None
    known = scene.truth != 255
    tree = (scene.truth == 1) & known
    iou = (tree & (after == 1)).sum() / ((tree | (after == 1)) & known).sum()
    ground = (scene.truth == 0) & known
    other = (ground & (after == 0)).sum() / ((ground | (after == 0)) & known).sum()
    if not (after[1:] == 2).any():
        assert shown.miou[1] == pytest.approx((iou + other) / 2)


def test_a_preview_is_marked_by_its_grid_and_without_truth_there_is_no_score() -> None:
    shown = view(Refinery(), two_colours(truth=False), SETTING, "tree", preview=True)
    assert shown.refined.grid == (20, 30)
    assert shown.miou is None
    assert shown.truth is None


def test_moves_and_shares_by_hand() -> None:
    before = np.array([[0, 0, 0, 1], [1, 1, 2, 2]])
    after = np.array([[0, 1, 1, 1], [1, 1, 2, 0]])
    assert [(m.before, m.after, m.share) for m in moves(before, after)] == [
        (0, 1, 0.25),
        (2, 0, 0.125),
    ]
    assert moves(before, before) == ()
    assert shares(after) == {1: 0.625, 0: 0.25, 2: 0.125}


def test_the_difference_has_the_colour_of_the_new_label_only_where_it_changed() -> None:
    pixels = np.full((1, 2, 3), 100, dtype=np.uint8)
    shown = difference(pixels, np.array([[0, 1]]), np.array([[0, 2]]), LABELS.palette)
    assert shown[0, 0].tolist() == [190, 190, 190]
    assert shown[0, 1].tolist() == LABELS.palette[2].tolist()


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_reaches_the_controls_and_comes_back(name: str) -> None:
    now = replace(SETTING, resolution=4, bilateral_filter="window")
    setting = with_preset(SETTING, now, name)
    published = PRESETS[name]
    assert setting.theta_alpha == published.theta_alpha
    assert setting.spatial_weight == published.spatial_weight
    assert setting.normalization == published.normalization
    assert setting.num_iterations_eval == published.num_iterations_eval
    assert (setting.resolution, setting.bilateral_filter) == (4, "window")
    assert setting_from(SETTING, values_of(setting)) == setting


def test_the_menu_of_presets_returns_to_the_start() -> None:
    assert preset_names() == [START, *PRESETS]
    assert with_preset(SETTING, replace(SETTING, resolution=4), START) == SETTING


def test_controls_of_the_other_solver_are_ignored() -> None:
    values = dict(zip([c.name for c in CONTROLS], values_of(SETTING), strict=True))
    moved = {**values, "regularizer": "l2", "step": 0.5}
    assert setting_from(SETTING, list(moved.values())) == SETTING
    moved["inference"] = "frank_wolfe"
    changed = setting_from(replace(SETTING, damping=0.3), list(moved.values()))
    assert (changed.regularizer, changed.step, changed.damping) == ("l2", 0.5, 0.0)


def test_numbers_of_a_slider_are_rounded_to_what_they_mean() -> None:
    values = values_of(SETTING)
    values[0], values[5] = 0.1 + 0.2, 7.0
    setting = setting_from(SETTING, values)
    assert setting.theta_alpha == 0.3
    assert isinstance(setting.num_iterations_eval, int)


def test_names_are_escaped_and_numbers_are_there() -> None:
    scene = two_colours()
    shown = view(Refinery(), scene, SETTING, "<sky>")
    side = markup.side(shown, LABELS, "<sky>")
    assert "<sky>" not in side
    assert "probability of <b>&lt;sky&gt;</b>" in side
    assert "ground" in side
    main = markup.main(shown)
    assert "mIoU of this image" in main
    assert "kernels built" in main
    assert "preview" in markup.main(shown, preview=True)
    assert markup.percent(0.0004) == "&lt; 0.1 %"


def test_the_curve_needs_an_iteration() -> None:
    scene = two_colours()
    none = Refinery().energies(scene, replace(SETTING, num_iterations_eval=0))
    assert "No iteration" in markup.curve(none, 2)
    assert markup.curve(Refinery().energies(scene, SETTING), 2).count("<circle") == 2 * 5
