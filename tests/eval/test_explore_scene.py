"""Where scenes come from, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import CollageConfig
from data.label_set import LabelSet, label_set
from eval.__main__ import main
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.explore.command import LEARNT, ExploreOptions, explorer_of
from eval.explore.scene import Scenes, of_split
from eval.predict import POST_HOC
from models import CrfConfig
from tests.data.layouts import write_mask
from tests.eval.explore_scenes import two_scenes
from tests.eval.plain_networks import CRF
from tests.eval.tiny_checkpoint import tiny_checkpoint, write_photograph

COLLAGE = CollageConfig(size=33, num_train=1, num_tune=4, num_report=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two images."""
    write_photograph(tmp_path / "in" / "a.png", 40, 51)
    write_photograph(tmp_path / "in" / "b.png", 33, 33, seed=1)
    return tmp_path / "in"


def test_images_seen_by_a_network(images: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    explorer = explorer_of(ExploreOptions(checkpoint, (images,)))
    assert explorer.scenes.names == ["a", "b"]
    scene = explorer.scenes["a"]
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    with torch.no_grad():
        assert torch.equal(scene.unary, segmenter.unary(scene.image))
    assert scene.truth is None
    assert explorer.scenes["a"] is scene  # the network runs once an image
    assert explorer.start == CRF
    assert explorer.scenes.sources["a"].path == str(images / "a.png")


def test_stored_probabilities_are_explored_as_the_network_gave_them(
    images: Path, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    words = ["predict", str(checkpoint), str(images), "--out", str(tmp_path)]
    main([*words, "--write", "probabilities"])
    for source in (tmp_path / "probabilities", tmp_path / "probabilities" / "b.npz"):
        explorer = explorer_of(ExploreOptions(source, (images / "b.png",)))
        network = explorer_of(ExploreOptions(checkpoint, (images / "b.png",)))
        expected = network.scenes["b"].unary.softmax(1)
        # Half precision: eleven bits.
        torch.testing.assert_close(
            explorer.scenes["b"].unary.softmax(1), expected, rtol=2**-9, atol=1e-6
        )
        assert explorer.start == POST_HOC
        assert explorer.classes == label_set(CollageConfig()).classes


def test_a_split_has_its_truth(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt", data=COLLAGE)
    explorer = explorer_of(ExploreOptions(checkpoint, split="tune"))
    split = data.build(COLLAGE, "tune")
    assert explorer.scenes.names == list(split.names)
    scene = explorer.scenes[split.names[2]]
    assert scene.truth is not None
    assert np.array_equal(scene.truth, split[2].mask)
    assert np.array_equal(scene.pixels.transpose(2, 0, 1), split[2].image)
    one = explorer_of(ExploreOptions(checkpoint, (Path(split.names[1]),), split="tune"))
    assert one.scenes.names == [split.names[1]]
    with pytest.raises(ValueError, match=r"--split: there is no image cat.*and 1 others"):
        explorer_of(ExploreOptions(checkpoint, (Path("cat.jpg"),), split="tune"))


def test_masks_given_for_the_images(images: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
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


def test_sizes_must_be_equal(images: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "small.png", np.zeros((4, 5)))
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    truth = (tmp_path / "small.png",)
    explorer = explorer_of(ExploreOptions(checkpoint, (images / "a.png",), truth=truth))
    with pytest.raises(ValueError, match=r"a is 40 x 51 pixels \(H x W\), its truth is 4 x 5"):
        explorer.scenes["a"]


def test_probabilities_of_another_image(images: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    words = ["predict", str(checkpoint), str(images), "--out", str(tmp_path)]
    main([*words, "--write", "probabilities"])
    folder = tmp_path / "probabilities"
    with pytest.raises(ValueError, match=r"a\.npz is of the image 'a', got .*b\.png"):
        explorer_of(ExploreOptions(folder / "a.npz", (images / "b.png",)))
    (folder / "a.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*a\.npz"):
        explorer_of(ExploreOptions(folder, (images,)))
    Image.new("RGB", (7, 5)).save(images / "b.png")
    explorer = explorer_of(ExploreOptions(folder / "b.npz", (images / "b.png",)))
    with pytest.raises(ValueError, match=r"b is 5 x 7 pixels \(H x W\), its probabilities are 33"):
        explorer.scenes["b"]


def test_options_that_do_not_go_together(images: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt", data=COLLAGE)
    with pytest.raises(ValueError, match="--split needs a checkpoint"):
        explorer_of(ExploreOptions(tmp_path, (images,), split="tune"))
    with pytest.raises(ValueError, match="--split has its own truth"):
        explorer_of(ExploreOptions(checkpoint, split="tune", truth=(images,)))


def test_a_learnt_crf_is_announced_as_simplified(images: Path, tmp_path: Path) -> None:
    learnt = CrfConfig(kernel_weights="class", compatibility="full")
    for crf, note in ((learnt, LEARNT), (CRF, ""), (None, "")):
        checkpoint = tiny_checkpoint(tmp_path / "tiny.pt", crf=crf)
        assert explorer_of(ExploreOptions(checkpoint, (images,))).note == note


def test_the_split_of_a_segmenter_uses_the_names_of_its_data(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt", data=COLLAGE)
    segmenter = load_segmenter(read_checkpoint(checkpoint))
    labels = label_set(COLLAGE)
    names = LabelSet(("zero", *labels.classes[1:]), labels.scored, labels.palette)
    scenes = of_split(segmenter, names, data.build(COLLAGE, "tune"), ())
    assert scenes[scenes.names[0]].labels.classes[0] == "zero"


def test_a_scene_is_made_when_it_is_looked_at() -> None:
    scenes = two_scenes()
    broken = replace(scenes.sources["one"], read=lambda: (_ for _ in ()).throw(OSError("gone")))
    mixed = Scenes({"broken": broken, "other": scenes.sources["other"]})
    assert mixed["other"].name == "other"
    with pytest.raises(OSError, match="gone"):
        mixed["broken"]
