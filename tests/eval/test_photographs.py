"""Which files are read, how a photograph becomes RGB, and what is written beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CollageConfig
from data.dataset import overlay, voc_palette
from eval.predict import photographs
from eval.prediction_files import Probabilities, read_probabilities, write_probabilities
from tests.eval.tiny_checkpoint import write_photograph


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPEG", "below/c.png"):
        write_photograph(tmp_path / "folder" / name, 4, 5)
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    (tmp_path / "folder" / "._b.png").write_text("what a Mac leaves beside a file")
    write_photograph(tmp_path / "z.png", 4, 5)
    found = photographs([tmp_path / "z.png", tmp_path / "folder"])
    assert [path.name for path in found] == ["z.png", "a.JPEG", "b.png"]


def test_paths_without_an_image_and_two_images_of_one_stem_are_refused(tmp_path: Path) -> None:
    for paths, message in (
        ([tmp_path], r"no image to read \(.*\): pass images, or fold"),
        ([tmp_path / "nowhere"], r"no image or folder at .*nowhere"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            photographs(paths)
    for folder in ("one", "two"):
        write_photograph(tmp_path / folder / "cat.png", 4, 5)
    with pytest.raises(ValueError, match=r"one.cat\.png and .*two.cat\.png are both called 'cat'"):
        photographs([tmp_path / "one", tmp_path / "two"])


def test_an_overlay_mixes_and_outlines() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    ids = np.array([[0, 0, 1, 1]] * 4)
    mixed = overlay(image, ids, voc_palette(), opacity=0.5)
    assert mixed[0].tolist() == [[50, 50, 50], [10, 10, 10], [114, 50, 50], [114, 50, 50]]


def test_probabilities_return_from_their_file_and_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image.npz"
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*--write probabilities"):
        read_probabilities(path)
    labels = CollageConfig().label_set()
    q = np.random.default_rng(0).dirichlet(np.ones(len(labels.classes)), (4, 6))
    good = Probabilities(labels, q.transpose(2, 0, 1).astype(np.float16), None)
    write_probabilities(path, good)
    read = read_probabilities(path)
    assert np.array_equal(read.unary, good.unary)
    assert read.crf is None
    assert (read.labels.classes, read.labels.scored) == (labels.classes, labels.scored)
    assert np.array_equal(read.labels.palette, labels.palette)
    held: dict[str, Any] = dict(np.load(path))
    path.write_text("text")
    with pytest.raises(ValueError, match=r"image\.npz is damaged or no \.npz file"):
        read_probabilities(path)
    for stored, message in (
        ({"unary": good.unary}, r"image\.npz lacks classes, palette, scored"),
        ({**held, "unary": np.array([{}])}, r"image\.npz is damaged \(.*pickle"),
        ({**held, "crf": good.unary[:2]}, r"crf must be \(\d+, H, W\), one map for each class"),
        ({**held, "unary": -5 * good.unary}, "must sum to one over the classes"),
    ):
        np.savez(path, **stored)
        with pytest.raises(ValueError, match=message):
            read_probabilities(path)
