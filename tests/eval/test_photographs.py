"""Which files are read, how a photograph becomes RGB, and what is written beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import CollageConfig
from data.dataset import CorruptSample, voc_palette
from data.kinds import label_set
from eval.predict import photographs, read_photograph
from eval.prediction_files import Probabilities, overlay, read_probabilities, write_probabilities
from tests.eval.tiny_checkpoint import write_photograph


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPEG", "below/c.png"):
        write_photograph(tmp_path / "folder" / name, 4, 5)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    write_photograph(tmp_path / "z.png", 4, 5)
    found = photographs([tmp_path / "z.png", tmp_path / "folder"])
    assert [path.name for path in found] == ["z.png", "a.JPEG", "b.png"]


def test_paths_without_an_image_and_two_images_of_one_stem_are_refused(tmp_path: Path) -> None:
    for paths, message in (
        ([tmp_path], r"no image to read \(.*\): pass images, or fold"),
        ([], r"no image to read \(no path was given\)"),
        ([tmp_path / "nowhere"], r"no image or folder at .*nowhere"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            photographs(paths)
    for folder in ("one", "two"):
        write_photograph(tmp_path / folder / "cat.png", 4, 5)
    with pytest.raises(ValueError, match=r"one.cat\.png and .*two.cat\.png are both called 'cat'"):
        photographs([tmp_path / "one", tmp_path / "two"])


def grey() -> tuple[Image.Image, np.ndarray, dict[str, Any]]:
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    return Image.fromarray(pixels), np.stack([pixels] * 3, axis=2), {}


def transparent() -> tuple[Image.Image, np.ndarray, dict[str, Any]]:
    pixels = np.full((4, 5, 4), 9, dtype=np.uint8)
    pixels[0, :, 3], pixels[1:, :, 3] = 0, 255
    expected = np.full((4, 5, 3), 9, dtype=np.uint8)
    expected[0] = 255  # white shows through
    return Image.fromarray(pixels), expected, {}


def indexed() -> tuple[Image.Image, np.ndarray, dict[str, Any]]:
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    picture = Image.fromarray(ids).convert("P")
    picture.putpalette(voc_palette().tobytes())
    return picture, voc_palette()[ids], {}


def turned() -> tuple[Image.Image, np.ndarray, dict[str, Any]]:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # the top of the scene is on the right of the file
    return picture, np.rot90(pixels, -1), {"exif": exif}


@pytest.mark.parametrize("make", [grey, transparent, indexed, turned])
def test_a_photograph_becomes_what_a_viewer_shows(make, tmp_path: Path) -> None:
    picture, expected, options = make()
    picture.save(tmp_path / "odd.png", **options)
    np.testing.assert_array_equal(read_photograph(tmp_path / "odd.png"), expected)


def test_damaged_and_sixteen_bit_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    with pytest.raises(CorruptSample, match=r"cut\.png cannot be decoded as an image"):
        read_photograph(tmp_path / "cut.png")
    Image.fromarray(np.zeros((4, 5), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(CorruptSample, match=r"deep\.png has mode I;16, more than 8 bits"):
        read_photograph(tmp_path / "deep.png")


def test_an_overlay_mixes_and_outlines() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    ids = np.array([[0, 0, 1, 1]] * 4)
    mixed = overlay(image, ids, voc_palette(), opacity=0.5)
    assert mixed[0].tolist() == [[50, 50, 50], [10, 10, 10], [114, 50, 50], [114, 50, 50]]
    assert (image == 100).all()


def probabilities(*, crf: bool) -> Probabilities:
    labels = label_set(CollageConfig())
    q = np.random.default_rng(0).dirichlet(np.ones(len(labels.classes)), (4, 6))
    unary = q.transpose(2, 0, 1).astype(np.float16)
    return Probabilities(labels, unary, unary[:, ::-1] if crf else None)


@pytest.mark.parametrize("crf", [False, True])
def test_probabilities_return_from_their_file(tmp_path: Path, crf: bool) -> None:
    written = probabilities(crf=crf)
    path = tmp_path / "new" / "image.npz"
    write_probabilities(path, written)
    read = read_probabilities(path)
    assert np.array_equal(read.unary, written.unary)
    assert (read.crf is not None) == crf
    if crf:
        assert np.array_equal(read.crf, written.crf)  # type: ignore[arg-type]
    assert read.labels.classes == written.labels.classes
    assert read.labels.scored == written.labels.scored
    assert np.array_equal(read.labels.palette, written.labels.palette)


def test_what_is_no_file_of_probabilities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.npz"
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*--write probabilities"):
        read_probabilities(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"image\.npz is damaged or no \.npz file"):
        read_probabilities(path)
    good = probabilities(crf=False)
    held = {
        "unary": good.unary,
        "classes": np.array(good.labels.classes),
        "scored": np.array(good.labels.scored),
        "palette": good.labels.palette,
    }
    for stored, message in (
        ({"unary": good.unary}, r"image\.npz lacks classes, palette, scored"),
        ({**held, "unary": np.array([{}])}, r"image\.npz is damaged \(.*pickle"),
        ({**held, "crf": good.unary[:2]}, r"crf must be \(\d+, H, W\), one map for each class"),
        ({**held, "classes": np.array(["one", "two"])}, r"unary must be \(2, H, W\)"),
        ({**held, "unary": -5 * good.unary}, "must sum to one over the classes"),
    ):
        np.savez(path, **stored)
        with pytest.raises(ValueError, match=message):
            read_probabilities(path)
