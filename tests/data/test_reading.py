"""Reading files, folders, lists and labels: what is damaged, absent or forbidden is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data import VOID, CorruptSample, Sample, SegmentationDataset, label_pixels, paired, reading
from data.dataset import label_set_of
from data.paired import to_labels
from data.reading import image_header, read_ids, read_image, read_lines, require_folders
from tests.data.layouts import as_nobody, truncate, write_image, write_lines, write_mask, write_sbd

IDS = np.random.default_rng(0).integers(0, 21, size=(40, 40))


def test_images_and_masks(tmp_path):
    write_image(tmp_path / "a.png", 3, 5)
    write_mask(tmp_path / "m.png", np.arange(6).reshape(2, 3))
    write_sbd(tmp_path / "c.mat", np.array([[0, 20], [3, 4], [5, 6]]))
    write_sbd(tmp_path / "d.mat", np.array([[1, 2, 3]]))
    assert read_image(tmp_path / "a.png").shape == (3, 5, 3)
    assert image_header(tmp_path / "a.png") == (3, 5, 1)
    assert read_ids(tmp_path / "m.png").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_ids(tmp_path / "c.mat").tolist() == [[0, 20], [3, 4], [5, 6]]
    assert read_ids(tmp_path / "d.mat").tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "keep"), [("a.jpg", 0.0), ("a.jpg", 0.9), ("a.png", 0.02), ("a.png", 0.5)]
)
def test_a_truncated_image_is_named(tmp_path, name, keep):
    write_image(tmp_path / name, 40, 40)
    truncate(tmp_path / name, keep)
    with pytest.raises(CorruptSample, match=rf"{name} cannot be decoded as an image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["m.png", "m.mat"])
def test_a_truncated_or_changed_mask_is_named(tmp_path, name, keep):
    (write_mask if name == "m.png" else write_sbd)(tmp_path / name, IDS)
    truncate(tmp_path / name, keep)
    with pytest.raises(CorruptSample, match=rf"{name} cannot be decoded as a mask"):
        read_ids(tmp_path / name)
    if name == "m.png":  # a bit that flipped
        write_mask(tmp_path / name, IDS)
        content = bytearray((tmp_path / name).read_bytes())
        content[content.index(b"IDAT") + 30] ^= 0x10
        (tmp_path / name).write_bytes(bytes(content))
        with pytest.raises(CorruptSample, match=name):
            read_ids(tmp_path / name)


def test_what_is_no_image_or_mask_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    for read in (read_image, image_header):
        with pytest.raises(CorruptSample, match=r"a\.jpg cannot be decoded"):
            read(tmp_path / "a.jpg")
    write_image(tmp_path / "a.png", 20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    with pytest.raises(CorruptSample, match=r"a\.png.*decompression bomb"):
        read_image(tmp_path / "a.png")
    savemat(tmp_path / "c.mat", {"GTinst": {"Segmentation": np.zeros((2, 2))}})
    with pytest.raises(CorruptSample, match=r"c\.mat holds \['GTinst'\]; expected GTcls"):
        read_ids(tmp_path / "c.mat")
    savemat(tmp_path / "c.mat", {"GTcls": {"Segmentation": np.zeros((2, 2))}})
    with pytest.raises(CorruptSample, match="float64 of shape"):
        read_ids(tmp_path / "c.mat")


def test_an_absent_or_forbidden_file_is_no_corrupt_one(tmp_path, open_folder):
    for name in ("a.png", "a.mat"):
        with pytest.raises(FileNotFoundError):
            read_ids(tmp_path / name)
    path = open_folder / "a.png"
    write_image(path, 4, 4)
    path.chmod(0)
    with as_nobody(), pytest.raises(PermissionError, match=r"a\.png"):
        read_image(path)


# Folders and lists


def test_absent_files_are_found_in_order_with_one_listing_a_folder(tmp_path, monkeypatch):
    write_lines(tmp_path / "b" / "y.txt", "y")
    wanted = [tmp_path / name for name in ("b/y.txt", "b/x.txt", "a/z.txt", "b/u.txt")]
    calls: list[Path] = []
    real = os.listdir

    def counted(folder):
        calls.append(folder)
        return real(folder)

    monkeypatch.setattr("data.reading.os.listdir", counted)
    assert list(reading.absent(wanted)) == wanted[1:]
    assert sorted(calls) == [tmp_path / "a", tmp_path / "b"]


def test_a_root_says_what_it_lacks(tmp_path):
    write_lines(tmp_path / "a" / "file", "x")
    require_folders(tmp_path, ("a",), "a layout")
    with pytest.raises(FileNotFoundError, match=r"lacks b, a/file\. Expected a layout"):
        require_folders(tmp_path, ("a", "b", "a/file"), "a layout")
    for name in ("nowhere", "a/file"):
        with pytest.raises(FileNotFoundError, match=rf"{name} does not exist"):
            require_folders(tmp_path / name, ("a",), "a layout")


@pytest.mark.parametrize("closed", ["", "a"])
def test_a_folder_without_permission_says_what_to_do(open_folder, closed):
    root = open_folder / "root"
    (root / "a" / "b").mkdir(parents=True)
    write_lines(root / closed / "train.txt", "x")
    (root / closed).chmod(0)
    with as_nobody():
        with pytest.raises(PermissionError, match=r"no permission to read .*a.*chmod.*Expected"):
            require_folders(root, ("a/b",), "a layout")
        with pytest.raises(PermissionError, match="no permission to read"):  # not empty
            reading.file_names(root / closed)
        with pytest.raises(PermissionError, match=r"train\.txt"):
            read_lines(root / closed / "train.txt", "--data.train-list")
    (root / closed).chmod(0o755)


def test_lists_are_lines_of_unique_names_and_long_enumerations_are_cut(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"a\r\n\r\n  b c \r\n")
    assert read_lines(tmp_path / "l.txt", "") == ("a", "b c")
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"l\.txt is no text"):
        read_lines(tmp_path / "l.txt", "")
    reading.require_unique(("a", "b"), "the list")
    with pytest.raises(ValueError, match=r"the list names an image twice: a, b$"):
        reading.require_unique(("b", "a", "c", "a", "b"), "the list")
    assert reading.shortened(range(5)) == "0, 1, 2, 3, 4"
    assert reading.shortened(range(7)) == "0, 1, 2, 3, 4 and 2 more"


# Labels and classes

TABLE = paired.label_table({0: 0, 1: 1, 2: 2, 7: 0}, void=(11, 255))


def test_table_by_hand():
    ids = np.array([[0, 1, 2], [7, 11, 255]], dtype=np.uint8)
    labels = to_labels(ids, TABLE, Path("m.png"))
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0, 1, 2], [0, 255, 255]]
    with pytest.raises(CorruptSample, match=r"m\.png holds the label ids \[3, 254\]; expected"):
        to_labels(np.array([[3, 3, 254, 0]], dtype=np.uint8), TABLE, Path("m.png"))
    assert paired.describe(TABLE) == "0..2, 7 or 11, 255 (void)"
    assert paired.describe(paired.label_table({0: 0}, void=())) == "0"


def test_scored_classes():
    classes = ("dog", "cat", "horse")
    assert label_set_of(classes).scored == (0, 1, 2)
    assert label_set_of(classes, ("horse", "dog")).scored == (0, 2)
    with pytest.raises(ValueError, match=r"unknown scored class 'hrose': .*Did you mean 'horse'"):
        label_set_of(classes, ("cat", "hrose"))
    with pytest.raises(ValueError, match="unknown scored class 'qqq': choose one of"):
        label_set_of(classes, ("qqq",))
    with pytest.raises(ValueError, match="twice"):
        label_set_of(classes, ("cat", "cat"))


class Three(SegmentationDataset):
    """Two samples of 2 x 2 pixels, and one between them that cannot be read."""

    classes = ("a", "b", "c")
    names = ("0", "1", "2")

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise CorruptSample("1.png: truncated")
        mask = [[0, 0], [0, VOID]] if index == 0 else [[0, 2], [2, VOID]]
        return Sample(str(index), torch.zeros(3, 2, 2, dtype=torch.uint8), torch.tensor(mask))


def test_void_and_unreadable_samples_do_not_count():
    assert label_pixels(Three()).tolist() == [4, 0, 2]
