from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data import CorruptSample
from data.reading import image_size, read_ids, read_image
from tests.data.layouts import as_nobody, truncate, write_image, write_mask, write_sbd


def test_shape(tmp_path):
    write_image(tmp_path / "a.png", 3, 5)
    write_mask(tmp_path / "m.png", np.arange(6).reshape(2, 3))
    assert read_image(tmp_path / "a.png").shape == (3, 5, 3)
    assert image_size(tmp_path / "a.png") == (3, 5)
    assert read_ids(tmp_path / "m.png").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path, name, keep):
    path = tmp_path / name
    write_image(path, 40, 40)
    truncate(path, keep)
    with pytest.raises(CorruptSample, match=rf"{name} cannot be decoded as an image"):
        read_image(path)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_mask_is_named(tmp_path, keep):
    path = tmp_path / "m.png"
    write_mask(path, np.random.default_rng(0).integers(0, 21, size=(40, 40)))
    truncate(path, keep)
    with pytest.raises(CorruptSample, match=r"m\.png cannot be decoded as a mask"):
        read_ids(path)


def test_a_bit_that_flipped_is_named(tmp_path):
    path = tmp_path / "m.png"
    write_mask(path, np.random.default_rng(0).integers(0, 21, size=(40, 40)))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 30] ^= 0x10
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptSample, match=r"m\.png"):
        read_ids(path)


def test_an_image_too_large_to_be_one_is_named(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", 20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    with pytest.raises(CorruptSample, match=r"a\.png.*decompression bomb"):
        read_image(tmp_path / "a.png")


def test_text_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    for read in (read_image, image_size):
        with pytest.raises(CorruptSample, match=r"a\.jpg cannot be decoded"):
            read(tmp_path / "a.jpg")


def test_an_absent_file_is_no_corrupt_one(tmp_path):
    for name in ("a.png", "a.mat"):
        with pytest.raises(FileNotFoundError):
            read_ids(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "a.png")


def test_a_file_without_permission_is_no_corrupt_one(open_folder):
    path = open_folder / "a.png"
    write_image(path, 4, 4)
    path.chmod(0)
    with as_nobody(), pytest.raises(PermissionError, match=r"a\.png"):
        read_image(path)


def test_masks_of_sbd(tmp_path):
    write_sbd(tmp_path / "c.mat", np.array([[0, 20], [3, 4], [5, 6]]))
    assert read_ids(tmp_path / "c.mat").tolist() == [[0, 20], [3, 4], [5, 6]]


def test_a_mask_of_sbd_of_one_row(tmp_path):
    write_sbd(tmp_path / "c.mat", np.array([[1, 2, 3]]))
    assert read_ids(tmp_path / "c.mat").shape == (1, 3)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_a_truncated_mask_of_sbd_is_named(tmp_path, keep):
    path = tmp_path / "c.mat"
    write_sbd(path, np.random.default_rng(0).integers(0, 21, size=(40, 40)))
    truncate(path, keep)
    with pytest.raises(CorruptSample, match=r"c\.mat"):
        read_ids(path)


def test_another_matlab_file_is_refused(tmp_path):
    savemat(tmp_path / "c.mat", {"GTinst": {"Segmentation": np.zeros((2, 2))}})
    with pytest.raises(CorruptSample, match=r"c\.mat holds \['GTinst'\]; expected GTcls"):
        read_ids(tmp_path / "c.mat")
    savemat(tmp_path / "d.mat", {"GTcls": {"Segmentation": np.zeros((2, 2))}})
    with pytest.raises(CorruptSample, match="float64 of shape"):
        read_ids(tmp_path / "d.mat")
