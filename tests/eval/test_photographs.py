"""Which files are read, and how a photograph becomes RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sample import CorruptSample
from eval.photographs import photographs, read_photograph
from tests.eval.tiny_checkpoint import write_photograph


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPEG", "below/c.png"):
        write_photograph(tmp_path / "folder" / name, 4, 5)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    write_photograph(tmp_path / "z.png", 4, 5)
    found = photographs([tmp_path / "z.png", tmp_path / "folder"])
    assert [path.name for path in found] == ["z.png", "a.JPEG", "b.png"]


def test_no_image_and_no_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image to read \(.*\): pass images, or fold"):
        photographs([tmp_path])
    with pytest.raises(FileNotFoundError, match=r"no image to read \(no path was given\)"):
        photographs([])
    with pytest.raises(FileNotFoundError, match=r"no image or folder at .*nowhere"):
        photographs([tmp_path / "nowhere"])


def test_two_images_of_one_stem(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_photograph(tmp_path / folder / "cat.png", 4, 5)
    with pytest.raises(ValueError, match=r"one.cat\.png and .*two.cat\.png are both called 'cat'"):
        photographs([tmp_path / "one", tmp_path / "two"])


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_photograph(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))
    clear = np.full((4, 5, 4), 9, dtype=np.uint8)
    clear[0, :, 3], clear[1:, :, 3] = 0, 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    expected = np.full((4, 5, 3), 9, dtype=np.uint8)
    expected[0] = 255  # white shows through
    assert np.array_equal(read_photograph(tmp_path / "clear.png"), expected)


def test_turned_as_the_exif_data_say(tmp_path: Path) -> None:
    pixels = write_photograph(tmp_path / "plain.png", 4, 5)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # the top of the scene is on the right of the file
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_photograph(tmp_path / "turned.png"), np.rot90(pixels, -1))


def test_damaged_and_sixteen_bit_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    with pytest.raises(CorruptSample, match=r"cut\.png cannot be decoded as an image"):
        read_photograph(tmp_path / "cut.png")
    Image.fromarray(np.zeros((4, 5), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(CorruptSample, match=r"deep\.png has mode I;16, more than 8 bits"):
        read_photograph(tmp_path / "deep.png")
