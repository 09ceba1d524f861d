from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import CorruptSample, Voc, VocConfig, build
from data.voc import ANIMALS, CLASSES
from tests.data.layouts import as_nobody, truncate, write_image, write_lines, write_mask


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


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_truncated_file_is_named(tiny_voc, kind):
    path: Path = getattr(tiny_voc, kind)("b")
    truncate(path)
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    dataset[0]
    with pytest.raises(CorruptSample, match=re.escape(str(path))):
        dataset[1]


def test_a_root_without_permission_ends_in_a_message(tiny_voc):
    # The folders of pytest belong to the user who runs it.
    with as_nobody(), pytest.raises(PermissionError, match=r"no permission to read .*--data\.root"):
        Voc(VocConfig(root=tiny_voc.root), "train")


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


def test_masks_of_sbd_serve_images_that_voc_does_not_label(tiny_voc, tiny_sbd):
    tiny_voc.write_list("train_aug", "a", "c")
    dataset = Voc(VocConfig(root=tiny_voc.root, train_list="train_aug", sbd=tiny_sbd), "train")
    assert dataset.names == ("a", "c")
    assert (dataset[1].mask == 2).all()
    assert dataset[1].image.shape == (3, 5, 6)


def test_the_mask_of_voc_wins(tiny_voc, tiny_sbd):
    write_mask(tiny_voc.root / "SegmentationClassAug" / "a.png", np.ones((5, 7)))
    expected = Voc(VocConfig(root=tiny_voc.root), "train")[0].mask
    assert (expected == 255).any()  # the border that the other masks lack
    for extra, sbd in (("SegmentationClassAug", None), (None, tiny_sbd)):
        config = VocConfig(root=tiny_voc.root, extra_masks=extra, sbd=sbd)
        assert torch.equal(Voc(config, "train")[0].mask, expected)


def test_the_ready_made_folder_is_tried_before_sbd(tiny_voc, tiny_sbd):
    write_mask(tiny_voc.root / "SegmentationClassAug" / "c.png", np.full((5, 6), 4))
    tiny_voc.write_list("train_aug", "c")
    config = VocConfig(
        root=tiny_voc.root,
        train_list="train_aug",
        extra_masks="SegmentationClassAug",
        sbd=tiny_sbd,
    )
    assert (Voc(config, "train")[0].mask == 4).all()


def test_lists_of_paths(tiny_voc):
    write_image(tiny_voc.image("c"), 5, 6)
    write_mask(tiny_voc.root / "SegmentationClassAug" / "c.png", np.full((5, 6), 4))
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in ("c", "a")]
    write_lines(tiny_voc.root / "ImageSets" / "SegmentationAug" / "train_aug.txt", *lines)
    config = VocConfig(root=tiny_voc.root, train_list="SegmentationAug/train_aug")
    dataset = Voc(config, "train")
    assert dataset.names == ("c", "a")
    assert (dataset[0].mask == 4).all()
    assert (dataset[1].mask == 255).any()  # the mask of VOC


def test_a_line_that_is_no_name_is_refused(tiny_voc):
    tiny_voc.write_list("report", "a -1")  # as the lists of a class in ImageSets/Main
    with pytest.raises(ValueError, match=r"report\.txt: the line 'a -1' is neither"):
        Voc(VocConfig(root=tiny_voc.root), "report")


def test_missing_folders_of_the_further_masks_are_named(tiny_voc, tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks Aug"):
        Voc(VocConfig(root=tiny_voc.root, extra_masks="Aug"), "train")
    with pytest.raises(FileNotFoundError, match=r"--data\.sbd"):
        Voc(VocConfig(root=tiny_voc.root, sbd=tmp_path / "nowhere"), "train")


def test_all_missing_files_are_counted(tiny_voc):
    for name in ("a", "b"):
        tiny_voc.image(name).unlink()
        tiny_voc.mask(name).unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg, .*b\.png do not exist, but the list"):
        Voc(VocConfig(root=tiny_voc.root), "train")


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
