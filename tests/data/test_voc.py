"""The VOC layout, alone and with the further masks of SBD."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data import CorruptSample, VocConfig, build
from data.voc import ANIMALS, CLASSES
from tests.data.layouts import write_image, write_lines, write_mask


@pytest.fixture
def config(tiny_voc):
    return VocConfig(root=tiny_voc.root)


def test_names_images_and_ids(tiny_voc, config):
    dataset = build(config, "train")
    assert (dataset.names, dataset.scored) == (("a", "b"), tuple(range(21)))
    sample = dataset[0]
    assert sample.name == "a"
    assert (sample.image.dtype, sample.image.is_contiguous()) == (torch.uint8, True)
    with Image.open(tiny_voc.image("a")) as picture:
        assert torch.equal(sample.image.permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    expected = torch.zeros(5, 7, dtype=torch.int64)
    expected[1:3, 2:5], expected[4], expected[0, 0] = 8, 20, 255
    assert torch.equal(sample.mask, expected)
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of 2"):
            dataset[index]
    animals = build(replace(config, scored=ANIMALS), "train")
    assert (animals.scored, animals.classes) == ((0, 8, 10, 12, 13, 15, 17), CLASSES)


def test_missing_folders_lists_and_files_are_named(tiny_voc, config, tmp_path):
    for changes, message in (
        ({"root": tmp_path}, "lacks JPEGImages, SegmentationClass"),
        ({"train_list": "x"}, r"x\.txt; lists there: train, tune.*--data.train"),
        ({"extra_masks": "Aug"}, "lacks Aug"),
        ({"sbd": tmp_path / "nowhere"}, r"--data\.sbd"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            build(replace(config, **changes), "train")
    tiny_voc.image("a").unlink()
    tiny_voc.mask("b").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg, .*b\.png do not exist, but the list"):
        build(config, "train")


def test_lists_that_name_no_images_are_refused(tiny_voc, config):
    for lines, message in (
        (("", "  "), r"report\.txt is empty"),
        (("a", "b", "a"), r"report\.txt names an image twice: a$"),
        (("a -1",), r"report\.txt: the line 'a -1' is neither"),  # a list of ImageSets/Main
    ):
        tiny_voc.write_list("report", *lines)
        with pytest.raises(ValueError, match=message):
            build(config, "report")


def test_a_sample_that_cannot_be_used_is_named(tiny_voc, config):
    dataset, mask = build(config, "train"), tiny_voc.mask("b")
    for mode in ("RGB", "1", "I;16"):
        Image.new(mode, (4, 6)).save(mask)
        with pytest.raises(CorruptSample, match=rf"b\.png has mode {mode}; expected an index"):
            dataset[1]
    ids = np.zeros((6, 4), dtype=np.uint8)
    ids[0, 0], ids[5, 3] = 21, 254
    write_mask(mask, ids)
    with pytest.raises(CorruptSample, match=r"b\.png holds .*\[21, 254\]; expected 0\.\.20"):
        dataset[1]
    shutil.copy(tiny_voc.mask("a"), mask)
    with pytest.raises(CorruptSample, match=r"b\.png is 5 x 7 \(H x W\).*b\.jpg is 6 x 4"):
        dataset[1]


def test_grey_masks_and_photographs_and_single_pixels_are_read_as_well(tiny_voc, config):
    Image.fromarray(np.full((6, 4), 17, dtype=np.uint8)).save(tiny_voc.mask("b"))
    Image.fromarray(np.full((6, 4), 90, dtype=np.uint8)).save(tiny_voc.image("b"))
    sample = build(config, "train")[1]
    assert (sample.mask == 17).all()
    assert sample.image.shape == (3, 6, 4)
    tiny_voc.add("b", np.array([[3]], dtype=np.uint8))
    sample = build(config, "train")[1]
    assert (sample.image.shape, sample.mask.tolist()) == ((3, 1, 1), [[3]])


def test_masks_of_sbd_serve_images_that_voc_does_not_label(tiny_voc, tiny_sbd, config):
    tiny_voc.write_list("mine", "a", "c")
    config = replace(config, report_list="mine", sbd=tiny_sbd)
    dataset = build(config, "report")
    assert (dataset[0].mask == 255).any()  # of VOC: SBD's own lacks the border
    assert (dataset[1].mask == 2).all()
    # A ready-made folder comes before SBD, and after VOC.
    for name, shape in (("a", (5, 7)), ("c", (5, 6))):
        write_mask(tiny_voc.root / "SegmentationClassAug" / f"{name}.png", np.full(shape, 4))
    dataset = build(replace(config, extra_masks="SegmentationClassAug"), "report")
    assert (dataset[0].mask == 255).any()
    assert (dataset[1].mask == 4).all()


def test_lists_of_paths(tiny_voc, config):
    write_image(tiny_voc.image("c"), 5, 6)
    write_mask(tiny_voc.root / "SegmentationClassAug" / "c.png", np.full((5, 6), 4))
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in ("c", "a")]
    write_lines(tiny_voc.root / "ImageSets" / "SegmentationAug" / "train_aug.txt", *lines)
    dataset = build(replace(config, train_list="SegmentationAug/train_aug"), "train")
    assert dataset.names == ("c", "a")
    assert (dataset[0].mask == 4).all()
    assert (dataset[1].mask == 255).any()  # the mask of VOC
