"""The explorer without a browser: where scenes come from, setting in, what is shown out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data
from crfrnn import PRESETS
from data import CollageConfig
from eval.__main__ import main
from eval.explore.page import (
    LEARNT,
    START,
    ExploreOptions,
    Explorer,
    Refinery,
    control,
    explorer_of,
    setting_from,
    values_of,
    with_preset,
)
from eval.explore.scenes import Scene
from eval.predict import POST_HOC
from eval.setting_lines import LINE_OPTIONS
from models import CrfConfig
from models.crf import build_crf
from models.layers import shrink, shrink_image, stretch
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.data.layouts import write_mask
from tests.eval.explore_scenes import SETTING, two_colours, two_scenes
from tests.eval.plain_networks import CRF, tiny_checkpoint, write_photograph

COLLAGE = CollageConfig(size=33, num_train=1, num_tune=4, num_report=1)


def test_the_marginals_are_those_of_the_layer_and_kernels_serve_while_they_can() -> None:
    scene, refinery = two_colours(), Refinery()
    setting = replace(SETTING, normalization="symmetric")
    for change, reused in (
        ({}, False),
        ({"bilateral_weight": 1.0, "num_iterations_eval": 2}, True),
        ({"theta_alpha": 9.0}, False),
        ({"normalization": "after"}, False),
        ({"resolution": 2}, False),
    ):
        setting = replace(setting, **change)
        refined = refinery.refine(scene, setting)
        assert refined.reused == reused
        assert not refinery.refine(replace(scene, name=f"other {change}"), setting).reused
        crf = build_crf(setting, 3).eval()
        small = shrink_image(scene.image, setting.resolution)
        with torch.no_grad():
            logits = crf(shrink(scene.unary, setting.resolution), small)
            expected = stretch(logits, scene.unary.shape[2:]).softmax(1)[0]
        assert torch.equal(refined.q, expected)
    energies = refinery.energies(scene, setting)
    records = crf.trace(shrink(scene.unary, 2), crf.potentials.build_kernels(small))
    free = energies["nats per pixel"][energies["quantity"] == "KL + const."]
    assert list(free) == [record.free_energy.item() / 600 for record in records]
    with pytest.raises(ValueError, match=r"2,400 are too many.*at most 2,000"):
        Refinery(exact_pixels=2000).refine(scene, replace(SETTING, bilateral_filter="exact"))


def test_presets_reach_the_controls_and_come_back() -> None:
    now = replace(SETTING, resolution=4, bilateral_filter="window")
    assert with_preset(SETTING, now, START) == SETTING
    for name, published in PRESETS.items():
        setting = with_preset(SETTING, now, name)
        assert setting.theta_alpha == published.theta_alpha
        assert (setting.resolution, setting.bilateral_filter) == (4, "window")
        assert setting_from(SETTING, values_of(setting)) == setting
    for option, value in zip(LINE_OPTIONS, values_of(SETTING), strict=True):
        assert control(option, value).value == value


def moved(**changes: Any) -> list[Any]:
    return values_of(replace(SETTING, **changes))


def test_what_is_shown_follows_the_controls_and_says_what_is_wrong() -> None:
    shown = Explorer(two_scenes(), SETTING, "net.pt")
    masks, words, key, *small = shown.pictures("one", "tree", moved())
    new_masks, new_words, new_key, *new = shown.pictures("one", "tree", moved(theta_beta=1.0))
    assert (masks[1] != new_masks[1]).any()
    assert (key, words) != (new_key, new_words)
    assert any((one != other).any() for one, other in zip(small, new, strict=True))
    assert "mIoU of this image" in words
    everywhere_sky = replace(two_colours(), unary=two_colours().unary.flip(1))
    shown.scenes.loaders["other"] = lambda: everywhere_sky
    assert "<sky>" not in shown.pictures("other", "<sky>", moved())[2]  # it is escaped
    python, commands = shown.lines("one", moved(theta_beta=1.0))
    assert "theta_beta=1," in python
    assert "--crf.theta-beta 1 " in commands
    assert "theta_alpha must be" in shown.pictures("one", "tree", moved(theta_alpha=0.0))[1]

    def gone() -> Scene:
        raise OSError("<one.png> is gone")

    scenes = two_scenes()
    scenes.loaders["one"] = gone
    broken = Explorer(scenes, SETTING, "net.pt")
    assert "&lt;one.png&gt; is gone" in broken.pictures("one", "tree", moved())[1]


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
    assert list(explorer.scenes.loaders) == ["a", "b"]
    scene = explorer.scenes["a"]
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    with torch.no_grad():
        assert torch.equal(scene.unary, segmenter.unary(scene.image))
    assert explorer.scenes["a"] is scene  # the network runs once an image
    assert (explorer.start, explorer.note) == (CRF, "")
    learnt = CrfConfig(kernel_weights="class", compatibility="full")
    path = tiny_checkpoint(tmp_path / "learnt.pt", crf=learnt)
    assert explorer_of(ExploreOptions(path, (images,))).note == LEARNT


def test_stored_probabilities_are_those_of_the_network(images, checkpoint, tmp_path) -> None:
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
        assert explorer.labels.classes == COLLAGE.label_set().classes
    with pytest.raises(ValueError, match=r"a\.npz is of the image 'a', got .*b\.png"):
        explorer_of(ExploreOptions(folder / "a.npz", (images / "b.png",)))


def test_a_split_has_its_truth(checkpoint: Path) -> None:
    explorer = explorer_of(ExploreOptions(checkpoint, split="tune"))
    split = data.build(COLLAGE, "tune")
    assert list(explorer.scenes.loaders) == list(split.names)
    scene = explorer.scenes[split.names[2]]
    assert scene.truth is not None
    assert np.array_equal(scene.truth, split[2].mask)
    assert np.array_equal(scene.pixels.transpose(2, 0, 1), split[2].image)
    with pytest.raises(ValueError, match=r"--split: there is no image cat"):
        explorer_of(ExploreOptions(checkpoint, (Path("cat.jpg"),), split="tune"))


def test_masks_are_given_for_the_images_in_order(images, checkpoint, tmp_path) -> None:
    masks = tmp_path / "one.png", tmp_path / "two.png"
    write_mask(masks[0], np.full((40, 51), 2))
    write_mask(masks[1], np.full((33, 33), 99))
    explorer = explorer_of(ExploreOptions(checkpoint, (images,), truth=masks))
    truth = explorer.scenes["a"].truth
    assert truth is not None
    assert np.array_equal(truth, np.full((40, 51), 2))
    with pytest.raises(ValueError, match=r"the truth of b holds the ids \[99\]: expected 0\.\.\d"):
        explorer.scenes["b"]
    exchanged = explorer_of(ExploreOptions(checkpoint, (images,), truth=masks[::-1]))
    with pytest.raises(ValueError, match=r"a is 40 x 51 pixels \(H x W\), its truth is 33 x 33"):
        exchanged.scenes["a"]
