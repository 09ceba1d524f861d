"""The VOC layout, alone and with the further masks of SBD."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import CorruptSample, Split, Voc, VocConfig, build
from data.kinds import label_set
from data.voc import ANIMALS, CLASSES
from tests.data.layouts import as_nobody, truncate, write_image, write_lines, write_mask


def test_names_images_and_ids(tiny_voc):
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    assert dataset.names == ("a", "b")
    sample = dataset[0]
    assert sample.name == "a"
    assert sample.image.shape == (3, 5, 7)
    assert sample.image.dtype == torch.uint8
    assert sample.image.is_contiguous()
    with Image.open(tiny_voc.image("a")) as picture:
        assert torch.equal(sample.image.permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    expected = torch.zeros(5, 7, dtype=torch.int64)
    expected[1:3, 2:5], expected[4], expected[0, 0] = 8, 20, 255
    assert torch.equal(sample.mask, expected)
    for index in (-1, 2):
        with pytest.raises(IndexError, match="of 2"):
            dataset[index]
    with pytest.raises(ValueError, match="got 'val'"):
        Voc(VocConfig(root=tiny_voc.root), "val")  # type: ignore[arg-type]


def test_scored_classes(tiny_voc):
    config = VocConfig(root=tiny_voc.root)
    every = Voc(config, "train")
    assert every.scored == tuple(range(21))
    animals = Voc(replace(config, scored=ANIMALS), "train")
    assert animals.scored == (0, 8, 10, 12, 13, 15, 17)
    assert animals.classes == CLASSES
    found = label_set(VocConfig(scored=ANIMALS))
    assert (found.classes, found.scored) == (animals.classes, animals.scored)
    assert np.array_equal(found.palette, animals.palette)


def test_missing_folders_lists_and_files_are_named(tiny_voc, tmp_path):
    config = VocConfig(root=tiny_voc.root)
    with pytest.raises(FileNotFoundError, match="lacks JPEGImages, SegmentationClass"):
        Voc(replace(config, root=tiny_voc.root.parent), "train")
    with pytest.raises(FileNotFoundError, match=r"report\.txt; lists there: train, tune.*report"):
        Voc(config, "report")
    with pytest.raises(FileNotFoundError, match="lacks Aug"):
        Voc(replace(config, extra_masks="Aug"), "train")
    with pytest.raises(FileNotFoundError, match=r"--data\.sbd"):
        Voc(replace(config, sbd=tmp_path / "nowhere"), "train")
    tiny_voc.image("a").unlink()
    tiny_voc.mask("b").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg, .*b\.png do not exist, but the list"):
        Voc(config, "train")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("", "  "), r"report\.txt is empty"),
        (("a", "b", "a"), r"report\.txt names an image twice: a$"),
        (("a -1",), r"report\.txt: the line 'a -1' is neither"),  # a list of ImageSets/Main
    ],
)
def test_lists_that_name_no_images_are_refused(tiny_voc, lines, message):
    tiny_voc.write_list("report", *lines)
    with pytest.raises(ValueError, match=message):
        Voc(VocConfig(root=tiny_voc.root), "report")


@pytest.mark.parametrize("mode", ["RGB", "1", "I;16"])
def test_a_mask_that_is_not_an_index_image_is_refused(tiny_voc, mode):
    Image.new(mode, (4, 6)).save(tiny_voc.mask("b"))
    with pytest.raises(CorruptSample, match=rf"b\.png has mode {mode}; expected an index image"):
        Voc(VocConfig(root=tiny_voc.root), "train")[1]


def test_wrong_ids_and_sizes_are_refused_by_the_name_of_the_file(tiny_voc):
    mask = np.zeros((6, 4), dtype=np.uint8)
    mask[0, 0], mask[5, 3] = 21, 254
    write_mask(tiny_voc.mask("b"), mask)
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    dataset[0]
    with pytest.raises(CorruptSample, match=r"b\.png holds .*\[21, 254\]; expected 0\.\.20"):
        dataset[1]
    shutil.copy(tiny_voc.mask("a"), tiny_voc.mask("b"))
    with pytest.raises(CorruptSample, match=r"b\.png is 5 x 7 \(H x W\).*b\.jpg is 6 x 4"):
        dataset[1]


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_truncated_file_is_named(tiny_voc, kind):
    path: Path = getattr(tiny_voc, kind)("b")
    truncate(path)
    with pytest.raises(CorruptSample, match=re.escape(str(path))):
        Voc(VocConfig(root=tiny_voc.root), "train")[1]


def test_a_root_without_permission_ends_in_a_message(tiny_voc):
    # The folders of pytest belong to the user who runs it.
    with as_nobody(), pytest.raises(PermissionError, match=r"no permission to read .*--data\.root"):
        Voc(VocConfig(root=tiny_voc.root), "train")


def test_grey_masks_and_photographs_are_read_as_well(tiny_voc):
    Image.fromarray(np.full((6, 4), 17, dtype=np.uint8)).save(tiny_voc.mask("b"))
    Image.fromarray(np.full((6, 4), 90, dtype=np.uint8)).save(tiny_voc.image("b"))
    sample = Voc(VocConfig(root=tiny_voc.root), "train")[1]
    assert (sample.mask == 17).all()
    assert sample.image.shape == (3, 6, 4)
    tiny_voc.add("b", np.array([[3]], dtype=np.uint8))
    sample = Voc(VocConfig(root=tiny_voc.root), "train")[1]
    assert sample.image.shape == (3, 1, 1)
    assert sample.mask.tolist() == [[3]]


def test_masks_of_sbd_serve_images_that_voc_does_not_label(tiny_voc, tiny_sbd):
    tiny_voc.write_list("mine", "a", "c")
    config = VocConfig(root=tiny_voc.root, report_list="mine", sbd=tiny_sbd)
    dataset = build(config, "report")
    assert dataset.names == ("a", "c")
    assert (dataset[0].mask == 255).any()  # of VOC: SBD's own lacks the border
    assert (dataset[1].mask == 2).all()
    assert dataset[1].image.shape == (3, 5, 6)
    # A ready-made folder comes before SBD, and after VOC.
    for name, shape in (("a", (5, 7)), ("c", (5, 6))):
        write_mask(tiny_voc.root / "SegmentationClassAug" / f"{name}.png", np.full(shape, 4))
    dataset = build(replace(config, extra_masks="SegmentationClassAug"), "report")
    assert (dataset[0].mask == 255).any()
    assert (dataset[1].mask == 4).all()


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


@pytest.mark.data
def test_the_animal_subset(voc_animals_root):
    names: list[str] = []
    splits: dict[Split, int] = {"train": 437, "tune": 217, "report": 228}
    for split, count in splits.items():
        dataset = build(VocConfig(root=voc_animals_root, scored=ANIMALS), split)
        assert len(dataset) == count
        mask = dataset[count // 2].mask  # reading checks sizes and ids
        assert 151 <= min(mask.shape) <= max(mask.shape) <= 500
        assert (mask == 255).any()
        names += dataset.names
    assert len(set(names)) == len(names)
