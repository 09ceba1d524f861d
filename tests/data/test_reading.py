"""Reading files, folders, lists and labels: what is damaged, absent or forbidden is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data import VOID, CorruptSample, Sample, SegmentationDataset, label_pixels, paired, reading
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


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "m.png", "m.mat"])
def test_a_truncated_image_or_mask_is_named(tmp_path, name, keep):
    path, image = tmp_path / name, name[0] == "a"
    if image:
        write_image(path, 40, 40)
    else:
        (write_mask if name == "m.png" else write_sbd)(path, IDS)
    truncate(path, keep)
    kind = "an image" if image else "a mask"
    with pytest.raises(CorruptSample, match=rf"{name} cannot be decoded as {kind}"):
        (read_image if image else read_ids)(path)


def test_a_bit_of_a_mask_that_flipped_is_seen(tmp_path):
    write_mask(tmp_path / "m.png", IDS)
    content = bytearray((tmp_path / "m.png").read_bytes())
    content[content.index(b"IDAT") + 30] ^= 0x10
    (tmp_path / "m.png").write_bytes(bytes(content))
    with pytest.raises(CorruptSample, match=r"m\.png"):
        read_ids(tmp_path / "m.png")


def test_what_is_no_image_or_mask_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    for read in (read_image, image_header):
        with pytest.raises(CorruptSample, match=r"a\.jpg cannot be decoded"):
            read(tmp_path / "a.jpg")
    write_image(tmp_path / "a.png", 20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    with pytest.raises(CorruptSample, match=r"a\.png.*decompression bomb"):
        read_image(tmp_path / "a.png")
    for key, message in (
        ("GTinst", r"c\.mat holds \['GTinst'\]; expected GTcls"),
        ("GTcls", "float64 of shape"),
    ):
        savemat(tmp_path / "c.mat", {key: {"Segmentation": np.zeros((2, 2))}})
        with pytest.raises(CorruptSample, match=message):
            read_ids(tmp_path / "c.mat")


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
    with pytest.raises(ValueError, match=r"the list names an image twice: a, b$"):
        reading.require_unique(("b", "a", "c", "a", "b"), "the list")
    assert reading.shortened(range(7)) == "0, 1, 2, 3, 4 and 2 more"


TABLE = paired.label_table({0: 0, 1: 1, 2: 2, 7: 0}, void=(11, 255))


def test_table_by_hand():
    ids = np.array([[0, 1, 2], [7, 11, 255]], dtype=np.uint8)
    labels = to_labels(ids, TABLE, Path("m.png"))
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0, 1, 2], [0, 255, 255]]
    with pytest.raises(CorruptSample, match=r"m\.png holds the label ids \[3, 254\]; expected"):
        to_labels(np.array([[3, 3, 254, 0]], dtype=np.uint8), TABLE, Path("m.png"))
    assert paired.describe(TABLE) == "0..2, 7 or 11, 255 (void)"


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
