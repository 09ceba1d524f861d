"""The explorer without its page: where scenes come from, setting in, view out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data
from crfrnn import PRESETS
from data import CollageConfig
from data.kinds import label_set
from eval.__main__ import main
from eval.explore.command import LEARNT, ExploreOptions, explorer_of
from eval.explore.controls import (
    CONTROLS,
    START,
    preset_names,
    setting_from,
    values_of,
    with_preset,
)
from eval.explore.page import Explorer
from eval.explore.refinery import FAINT, KEPT, Refinery, preview_of
from eval.explore.view import difference, heat, moves, shares, view
from eval.predict import POST_HOC
from models import CrfConfig
from models.crf import build_crf
from models.layers import shrink, shrink_image, stretch
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.data.layouts import write_mask
from tests.eval.explore_scenes import LABELS, SETTING, two_colours, two_scenes
from tests.eval.plain_networks import CRF
from tests.eval.tiny_checkpoint import tiny_checkpoint, write_photograph

COLLAGE = CollageConfig(size=33, num_train=1, num_tune=4, num_report=1)


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
        ({"normalization": "after"}, False),
        ({"bilateral_filter": "window"}, False),
        ({"lattice_accuracy": "fine"}, False),
        ({"resolution": 2}, False),
    ],
)
def test_kernels_serve_every_setting_that_leaves_them_alone(change, reused) -> None:
    refinery, scene = Refinery(), two_colours()
    setting = replace(SETTING, normalization="symmetric")
    assert not refinery.refine(scene, setting).reused
    second = refinery.refine(scene, replace(setting, **change))
    assert second.reused == reused
    assert torch.equal(second.q, Refinery().refine(scene, replace(setting, **change)).q)


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
    assert [energy.free for energy in energies] == [r.free_energy.item() / 600 for r in records]
    assert [e.relaxed for e in energies] == [r.relaxed_energy.item() / 600 for r in records]
    assert len(energies) == 5
    assert energies[0].change == 0 < energies[1].change


def test_the_exact_filter_runs_on_small_grids_only() -> None:
    exact = replace(SETTING, bilateral_filter="exact")
    small = replace(exact, resolution=2)
    assert Refinery(exact_pixels=600).refine(two_colours(), small).grid == (20, 30)
    with pytest.raises(ValueError, match=r"2,400 are too many.*at most 2,000"):
        Refinery(exact_pixels=2000).refine(two_colours(), exact)


def test_a_preview_is_coarse_and_leaves_out_labels_that_no_pixel_has() -> None:
    assert preview_of(SETTING) == replace(SETTING, resolution=2)
    assert preview_of(replace(SETTING, resolution=8)).resolution == 8
    scene, refinery = two_colours(), Refinery()
    coarse = replace(SETTING, resolution=2)
    shown = refinery.refine(scene, SETTING, preview=True)
    assert torch.equal(shown.q, refinery.refine(scene, coarse).q)
    rare = replace(scene, unary=scene.unary - torch.tensor([0.0, 0.0, 9.0])[:, None, None])
    assert rare.seen(FAINT).tolist() == [0, 1]
    few = refinery.refine(rare, SETTING, preview=True).q
    assert not few[2].any()
    # What is left out had less than a hundredth everywhere.
    assert (few - refinery.refine(rare, coarse).q).abs().max() < 0.01


def test_the_view_shows_the_mask_of_the_layer() -> None:
    scene = two_colours()
    shown = view(Refinery(), scene, SETTING, "tree")
    before, after = scene.unary[0].argmax(0).numpy(), shown.refined.q.argmax(0).numpy()
    assert shown.changed == (before != after).mean() > 0
    assert np.array_equal(shown.difference, difference(scene.pixels, before, after, LABELS.palette))
    assert shown.shares == shares(after)
    assert np.array_equal(shown.probability, heat(shown.refined.q[1].numpy()))
    assert scene.truth is not None
    assert shown.miou is not None
    known = scene.truth != 255
    present = set(np.unique(after[known])) | {0, 1}
    ious = [
        ((scene.truth == label) & (after == label))[known].mean()
        / ((scene.truth == label) | (after == label))[known].mean()
        for label in present
    ]
    assert shown.miou[1] == pytest.approx(np.mean(ious))
    assert shown.miou[1] > shown.miou[0]
    blind = view(Refinery(), two_colours(truth=False), SETTING, "tree")
    assert blind.miou is None
    assert blind.truth is None


def test_moves_shares_and_differences_by_hand() -> None:
    before = np.array([[0, 0, 0, 1], [1, 1, 2, 2]])
    after = np.array([[0, 1, 1, 1], [1, 1, 2, 0]])
    found = [(move.before, move.after, move.share) for move in moves(before, after)]
    assert found == [(0, 1, 0.25), (2, 0, 0.125)]
    assert moves(before, before) == ()
    assert shares(after) == {1: 0.625, 0: 0.25, 2: 0.125}
    pixels = np.full((1, 2, 3), 100, dtype=np.uint8)
    shown = difference(pixels, np.array([[0, 1]]), np.array([[0, 2]]), LABELS.palette)
    assert shown[0, 0].tolist() == [190, 190, 190]
    assert shown[0, 1].tolist() == LABELS.palette[2].tolist()


def test_presets_reach_the_controls_and_come_back() -> None:
    assert preset_names() == [START, *PRESETS]
    now = replace(SETTING, resolution=4, bilateral_filter="window")
    assert with_preset(SETTING, now, START) == SETTING
    for name, published in PRESETS.items():
        setting = with_preset(SETTING, now, name)
        for field in ("theta_alpha", "spatial_weight", "normalization", "num_iterations_eval"):
            assert getattr(setting, field) == getattr(published, field)
        assert (setting.resolution, setting.bilateral_filter) == (4, "window")
        assert setting_from(SETTING, values_of(setting)) == setting


def test_controls_of_the_other_solver_are_ignored_and_sliders_rounded() -> None:
    values = dict(zip([c.name for c in CONTROLS], values_of(SETTING), strict=True))
    moved = {**values, "regularizer": "l2", "step": 0.5}
    assert setting_from(SETTING, list(moved.values())) == SETTING
    moved |= {"inference": "frank_wolfe", "theta_alpha": 0.1 + 0.2, "num_iterations_eval": 7.0}
    changed = setting_from(replace(SETTING, damping=0.3), list(moved.values()))
    assert (changed.regularizer, changed.step, changed.damping) == ("l2", 0.5, 0.0)
    assert changed.theta_alpha == 0.3
    assert isinstance(changed.num_iterations_eval, int)


def moved(**changes: Any) -> list[Any]:
    return values_of(replace(SETTING, **changes))


def test_pictures_and_lines_follow_the_controls() -> None:
    shown = Explorer(two_scenes(), SETTING, "net.pt")
    first = shown.pictures("one", "tree", moved())
    other = shown.pictures("one", "tree", moved(theta_beta=1.0))
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert shown.pictures("one", "<sky>", moved())[1] != first[1]
    assert "<sky>" not in shown.pictures("one", "<sky>", moved())[1]
    code, commands = shown.lines("one", moved(theta_beta=1.0))
    assert "theta_beta=1," in code
    assert "--crf.theta-beta 1 " in commands
    assert "predict net.pt two.png" in commands
    assert shown.curve("one", moved()) != shown.curve("one", moved(theta_beta=1.0))
    assert "No iteration" in shown.curve("one", moved(num_iterations_eval=0))


def test_errors_are_said_on_the_page() -> None:
    shown = Explorer(two_scenes(), SETTING, "net.pt")
    large, small = shown.pictures("one", "tree", moved(theta_alpha=0.0))
    assert 'role="alert"' in large
    assert "theta_alpha must be" in large
    assert small == shown.curve("one", moved(theta_alpha=0.0)) == ""
    assert all("# theta_alpha must" in line for line in shown.lines("one", moved(theta_alpha=0.0)))

    def gone() -> Any:
        raise OSError("<one.png> is gone")

    scenes = two_scenes()
    scenes.sources["one"] = replace(scenes.sources["one"], read=gone)
    broken = Explorer(scenes, SETTING, "net.pt")
    assert "&lt;one.png&gt; is gone" in broken.pictures("one", "tree", moved())[0]
    assert 'role="alert"' not in broken.pictures("other", "tree", moved())[0]


def test_a_later_request_makes_an_earlier_one_out_of_date() -> None:
    shown = Explorer(two_scenes(), SETTING, "net.pt")
    first = shown.arrived("a")
    assert shown.latest("a") == first
    shown.arrived("a")
    assert shown.latest("a") != first
    assert shown.latest("b") == 0


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two images."""
    write_photograph(tmp_path / "in" / "a.png", 40, 51)
    write_photograph(tmp_path / "in" / "b.png", 33, 33, seed=1)
    return tmp_path / "in"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("net") / "tiny.pt", data=COLLAGE)


def test_images_are_seen_by_the_network(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    explorer = explorer_of(ExploreOptions(checkpoint, (images,)))
    assert explorer.scenes.names == ["a", "b"]
    scene = explorer.scenes["a"]
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    with torch.no_grad():
        assert torch.equal(scene.unary, segmenter.unary(scene.image))
    assert scene.truth is None
    assert explorer.scenes["a"] is scene  # the network runs once an image
    assert (explorer.start, explorer.note) == (CRF, "")
    learnt = CrfConfig(kernel_weights="class", compatibility="full")
    path = tiny_checkpoint(tmp_path / "learnt.pt", crf=learnt)
    assert explorer_of(ExploreOptions(path, (images,))).note == LEARNT


def test_stored_probabilities_are_those_of_the_network(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = ["predict", str(checkpoint), str(images), "--out", str(tmp_path)]
    main([*words, "--write", "probabilities"])
    folder = tmp_path / "probabilities"
    network = explorer_of(ExploreOptions(checkpoint, (images / "b.png",)))
    for source in (folder, folder / "b.npz"):
        explorer = explorer_of(ExploreOptions(source, (images / "b.png",)))
        found, expected = (e.scenes["b"].unary.softmax(1) for e in (explorer, network))
        # Half precision: eleven bits.
        torch.testing.assert_close(found, expected, rtol=2**-9, atol=1e-6)
        assert explorer.start == POST_HOC
        assert explorer.classes == label_set(COLLAGE).classes
    with pytest.raises(ValueError, match=r"a\.npz is of the image 'a', got .*b\.png"):
        explorer_of(ExploreOptions(folder / "a.npz", (images / "b.png",)))
    with pytest.raises(ValueError, match="--split needs a checkpoint"):
        explorer_of(ExploreOptions(folder, (images,), split="tune"))
    (folder / "a.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*a\.npz"):
        explorer_of(ExploreOptions(folder, (images,)))
    Image.new("RGB", (7, 5)).save(images / "b.png")
    with pytest.raises(ValueError, match=r"b is 5 x 7 pixels \(H x W\), its probabilities are 33"):
        explorer_of(ExploreOptions(folder, (images / "b.png",))).scenes["b"]


def test_a_split_has_its_truth(checkpoint: Path, images: Path) -> None:
    explorer = explorer_of(ExploreOptions(checkpoint, split="tune"))
    split = data.build(COLLAGE, "tune")
    assert explorer.scenes.names == list(split.names)
    scene = explorer.scenes[split.names[2]]
    assert scene.truth is not None
    assert np.array_equal(scene.truth, split[2].mask)
    assert np.array_equal(scene.pixels.transpose(2, 0, 1), split[2].image)
    one = explorer_of(ExploreOptions(checkpoint, (Path(split.names[1]),), split="tune"))
    assert one.scenes.names == [split.names[1]]
    with pytest.raises(ValueError, match=r"--split: there is no image cat"):
        explorer_of(ExploreOptions(checkpoint, (Path("cat.jpg"),), split="tune"))
    with pytest.raises(ValueError, match="--split has its own truth"):
        explorer_of(ExploreOptions(checkpoint, split="tune", truth=(images,)))


def test_masks_are_given_for_the_images_in_order(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "one.png", tmp_path / "two.png"
    write_mask(masks[0], np.full((40, 51), 2))
    write_mask(masks[1], np.full((33, 33), 99))
    explorer = explorer_of(ExploreOptions(checkpoint, (images,), truth=masks))
    truth = explorer.scenes["a"].truth
    assert truth is not None
    assert np.array_equal(truth, np.full((40, 51), 2))
    with pytest.raises(ValueError, match=r"the truth of b holds the ids \[99\]: expected 0\.\.\d"):
        explorer.scenes["b"]
    with pytest.raises(ValueError, match=r"--truth: expected one mask for each of the 2 images"):
        explorer_of(ExploreOptions(checkpoint, (images,), truth=masks[:1]))
    exchanged = explorer_of(ExploreOptions(checkpoint, (images,), truth=masks[::-1]))
    with pytest.raises(ValueError, match=r"a is 40 x 51 pixels \(H x W\), its truth is 33 x 33"):
        exchanged.scenes["a"]
