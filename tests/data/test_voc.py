from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import Voc, VocConfig, build
from data.voc import ANIMALS, CLASSES


def test_shape(tiny_voc):
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    assert len(dataset) == 2
    assert dataset.names == ("a", "b")
    assert len(dataset.classes) == 21
    sample = dataset[0]
    assert sample.name == "a"
    assert sample.image.shape == (3, 5, 7)
    assert sample.image.dtype == torch.uint8
    assert sample.image.is_contiguous()
    assert sample.mask.shape == (5, 7)
    assert sample.mask.dtype == torch.int64


def test_a_missing_root_names_the_layout_and_the_option(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        Voc(VocConfig(root=tmp_path / "nowhere"), "train")
    for word in ("nowhere does not exist", "JPEGImages", "SegmentationClass", "--data.root"):
        assert word in str(caught.value)


def test_a_root_one_level_too_high_names_what_it_lacks(tiny_voc):
    with pytest.raises(FileNotFoundError, match="lacks JPEGImages, SegmentationClass"):
        Voc(VocConfig(root=tiny_voc.root.parent), "train")


def test_a_missing_list_names_those_that_exist(tiny_voc):
    with pytest.raises(FileNotFoundError, match=r"report\.txt; lists there: train, tune.*report"):
        Voc(VocConfig(root=tiny_voc.root), "report")


def test_an_empty_list_is_refused(tiny_voc):
    tiny_voc.write_list("report", "", "  ")
    with pytest.raises(ValueError, match=r"report\.txt is empty"):
        Voc(VocConfig(root=tiny_voc.root), "report")


def test_an_image_named_twice_is_refused(tiny_voc):
    tiny_voc.write_list("report", "a", "b", "a")
    with pytest.raises(ValueError, match=r"report\.txt names an image twice: a$"):
        Voc(VocConfig(root=tiny_voc.root), "report")


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_missing_file_is_named(tiny_voc, kind):
    path: Path = getattr(tiny_voc, kind)("b")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        Voc(VocConfig(root=tiny_voc.root), "train")


@pytest.mark.parametrize("mode", ["RGB", "1", "I;16", "LA"])
def test_a_mask_that_is_not_an_index_image_is_refused(tiny_voc, mode):
    Image.new(mode, (4, 6)).save(tiny_voc.mask("b"))
    with pytest.raises(ValueError, match=rf"b\.png has mode {mode}; expected an index image"):
        Voc(VocConfig(root=tiny_voc.root), "train")[1]


def test_a_wrong_id_is_refused_by_the_name_of_the_file(tiny_voc):
    mask = np.zeros((6, 4), dtype=np.uint8)
    mask[0, 0], mask[5, 3] = 21, 254
    tiny_voc.add("b", mask)
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    dataset[0]
    with pytest.raises(
        ValueError, match=r"b\.png holds the label ids \[21, 254\]; expected 0\.\.20"
    ):
        dataset[1]


def test_a_mask_of_another_size_is_refused(tiny_voc):
    shutil.copy(tiny_voc.mask("a"), tiny_voc.mask("b"))
    with pytest.raises(ValueError, match=r"b\.png is 5 x 7 \(H x W\).*b\.jpg is 6 x 4"):
        Voc(VocConfig(root=tiny_voc.root), "train")[1]


def test_a_truncated_image_is_an_error(tiny_voc):
    path = tiny_voc.image("b")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(OSError, match="truncated"):
        Voc(VocConfig(root=tiny_voc.root), "train")[1]


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_is_refused(tiny_voc, index):
    with pytest.raises(IndexError, match="of 2"):
        Voc(VocConfig(root=tiny_voc.root), "train")[index]


def test_an_unknown_split_is_refused(tiny_voc):
    with pytest.raises(ValueError, match="got 'val'"):
        Voc(VocConfig(root=tiny_voc.root), "val")  # type: ignore[arg-type]


def test_an_unknown_scored_class_suggests_the_nearest():
    with pytest.raises(ValueError, match="no class 'hrose'; did you mean 'horse'"):
        VocConfig(scored=("cat", "hrose"))
    with pytest.raises(ValueError, match="no class 'qqq'; expected some of"):
        VocConfig(scored=("qqq",))
    with pytest.raises(ValueError, match="twice"):
        VocConfig(scored=("cat", "cat"))


def test_ids_are_the_indices_of_the_palette(tiny_voc):
    expected = torch.zeros(5, 7, dtype=torch.int64)
    expected[1:3, 2:5], expected[4], expected[0, 0] = 8, 20, 255
    with Image.open(tiny_voc.mask("a")) as picture:
        assert picture.mode == "P"
    assert torch.equal(Voc(VocConfig(root=tiny_voc.root), "train")[0].mask, expected)


def test_grey_masks_hold_ids_as_well(tiny_voc):
    Image.fromarray(np.full((6, 4), 17, dtype=np.uint8)).save(tiny_voc.mask("b"))
    assert (Voc(VocConfig(root=tiny_voc.root), "train")[1].mask == 17).all()


def test_grey_photographs_become_rgb(tiny_voc):
    Image.fromarray(np.full((6, 4), 90, dtype=np.uint8)).save(tiny_voc.image("b"))
    assert Voc(VocConfig(root=tiny_voc.root), "train")[1].image.shape == (3, 6, 4)


def test_any_list_serves_any_split(tiny_voc):
    tiny_voc.write_list("mine", "b")
    config = VocConfig(root=tiny_voc.root, report_list="mine")
    assert build(config, "report").names == ("b",)


def test_scored_classes(tiny_voc):
    every = Voc(VocConfig(root=tiny_voc.root), "train")
    assert every.scored == tuple(range(21))
    animals = Voc(VocConfig(root=tiny_voc.root, scored=ANIMALS), "train")
    assert animals.scored == (0, 8, 10, 12, 13, 15, 17)
    assert animals.classes == CLASSES
    assert Voc(VocConfig(root=tiny_voc.root, scored=("dog", "cat")), "train").scored == (8, 12)


def test_one_pixel(tiny_voc):
    tiny_voc.add("b", np.array([[3]], dtype=np.uint8))
    sample = Voc(VocConfig(root=tiny_voc.root), "train")[1]
    assert sample.image.shape == (3, 1, 1)
    assert sample.mask.tolist() == [[3]]


def test_repr(tiny_voc):
    assert repr(Voc(VocConfig(root=tiny_voc.root), "tune")).startswith(
        "Voc(split='tune', images=1, VocConfig(root="
    )


@pytest.mark.data
@pytest.mark.parametrize(("split", "count"), [("train", 437), ("tune", 217), ("report", 228)])
def test_the_animal_subset(voc_animals_root, split, count):
    dataset = Voc(VocConfig(root=voc_animals_root, scored=ANIMALS), split)
    assert len(dataset) == count
    for i in range(0, count, 40):  # reading checks sizes and ids
        sample = dataset[i]
        assert min(sample.mask.shape) >= 151
        assert max(sample.mask.shape) <= 500
        assert (sample.mask == 255).any()


@pytest.mark.data
def test_the_splits_of_the_animal_subset_are_disjoint(voc_animals_root):
    config = VocConfig(root=voc_animals_root)
    names = [name for split in ("train", "tune", "report") for name in build(config, split).names]
    assert len(set(names)) == len(names) == 437 + 217 + 228
