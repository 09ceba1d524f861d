from __future__ import annotations

import numpy as np
import pytest

from data import CamVid, CamVidConfig, CorruptSample, build
from tests.data.layouts import truncate, write_camvid, write_image, write_lines, write_mask


@pytest.fixture
def root(tmp_path):
    write_camvid(tmp_path / "CamVid")
    return tmp_path / "CamVid"


def test_shape(root):
    dataset = CamVid(CamVidConfig(root), "train")
    assert dataset.names == ("f1", "f2")
    assert len(dataset.classes) == 11
    assert dataset.scored == tuple(range(11))
    assert dataset[0].image.shape == (3, 4, 6)
    assert dataset[0].mask.shape == (4, 6)


def test_eleven_is_void(root):
    mask = CamVid(CamVidConfig(root), "train")[1].mask
    assert mask[0, 0] == 255
    assert mask[3, 5] == 10
    assert mask[1, 1] == 1


@pytest.mark.parametrize(("split", "names"), [("tune", ("f3",)), ("report", ("f4",))])
def test_the_published_splits(root, split, names):
    assert CamVid(CamVidConfig(root), split).names == names


def test_lists_with_the_paths_of_another_machine(root):
    line = "/SegNet/CamVid/train/f2.png /SegNet/CamVid/trainannot/f2.png"
    write_lines(root / "train.txt", line, line.replace("f2", "f1"))
    assert CamVid(CamVidConfig(root), "train").names == ("f2", "f1")


def test_frames_may_be_jpg_where_the_list_says_png(root):
    (root / "train" / "f2.png").unlink()
    write_image(root / "train" / "f2.jpg", 4, 6)
    assert CamVid(CamVidConfig(root), "train")[1].image.shape == (3, 4, 6)


@pytest.mark.parametrize("line", ["f1", "train/f1.png", "f1.png f1.png", "a/b a/b a/b"])
def test_a_line_that_is_not_two_paths_is_refused(root, line):
    write_lines(root / "train.txt", line)
    with pytest.raises(ValueError, match=r"train\.txt: the line .* is not two paths"):
        CamVid(CamVidConfig(root), "train")


def test_a_missing_root_and_list_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"layout of SegNet.*--data\.root"):
        CamVid(CamVidConfig(tmp_path / "nowhere"), "train")
    (root / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.txt; lists there: test, train; see"):
        CamVid(CamVidConfig(root), "tune")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_a_missing_file_is_named(root, folder):
    (root / folder / "f2.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{folder}/f2\.png does not exist"):
        CamVid(CamVidConfig(root), "train")


def test_broken_masks_are_named(root):
    path = root / "trainannot" / "f1.png"
    dataset = CamVid(CamVidConfig(root), "train")
    write_mask(path, np.full((4, 6), 12))
    with pytest.raises(CorruptSample, match=r"f1\.png holds .*\[12\]; expected 0\.\.10 or 11"):
        dataset[0]
    write_mask(path, np.zeros((4, 5)))
    with pytest.raises(CorruptSample, match=r"f1\.png is 4 x 5"):
        dataset[0]
    truncate(path)
    with pytest.raises(CorruptSample, match=r"f1\.png cannot be decoded"):
        dataset[0]


def test_the_classes_have_the_colours_of_segnet(root):
    palette = CamVid(CamVidConfig(root), "train").palette
    assert palette[3].tolist() == [128, 64, 128]
    assert palette[10].tolist() == [0, 128, 192]


@pytest.mark.data
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("tune", 101), ("report", 233)])
def test_the_published_copy(shared_root, split, count):
    dataset = build(CamVidConfig(shared_root / "datasets" / "camvid"), split)
    assert len(dataset) == count
    for i in range(0, count, 60):
        assert dataset[i].mask.shape == (360, 480)
