"""Which images are shown, where they are found, and what is said of a prediction that lacks."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import CollageConfig, FolderConfig
from data.collage import Collage
from data.dataset import voc_palette
from eval.report import gallery
from eval.report.choosing import Item, best_worst_and_between
from eval.report.comparison import Comparison, comparisons
from eval.report.images import find_split
from eval.report.layers import (
    Window,
    label_picture,
    most_different,
    outline_picture,
    photograph,
    wrong_picture,
)
from eval.report.reading import read_run
from runtime.run_folder import ARMS
from tests.eval.fake_run import FakeScenes, make_run


def read(path: Path) -> Comparison:
    return comparisons([read_run(path)])[0]


def pictures_of(shown: gallery.Gallery) -> Any:
    found = re.search(r'class="pictures">(.*?)</script>', shown.html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_best_the_worst_and_images_evenly_between_are_shown() -> None:
    def places(count: int, shown: int) -> list[int]:
        items = [Item(f"image {k}", {}, -0.01 * k, None) for k in range(count)]
        return [int(item.name.split()[1]) for item in best_worst_and_between(items, shown)]

    assert places(100, 9) == [0, 1, 2, 18, 50, 81, 97, 98, 99]
    assert places(4, 9) == [0, 1, 2, 3]
    for shown in range(12):
        found = places(11, shown)
        assert found == sorted(set(found))
        assert len(found) == min(shown, 11)
    with pytest.raises(ValueError, match="at least 0 images, got -1"):
        places(3, -1)


def test_cards_are_by_gain_of_joint_over_post_hoc_with_every_layer(fake_run: Any) -> None:
    shown = gallery.build(read(fake_run.run_dir), fake_run.split, 60, "c0")
    assert (shown.left, shown.right, shown.seed) == ("post-hoc", "joint", 0)
    joint, post_hoc = (
        {image["name"]: image["miou"] for image in run["metrics"]["report"]["images"]}
        for arm in ("joint", "post-hoc")
        for run in fake_run.results["runs"]
        if (run["arm"], run["seed"]) == (arm, 0)
    )
    pictures = pictures_of(shown)
    assert list(pictures) == sorted(joint, key=lambda name: post_hoc[name] - joint[name])
    for picture in pictures.values():
        assert list(picture["layers"]) == ["truth", *ARMS]
        assert "wrong" in picture["layers"]["joint"]
        assert "wrong" not in picture["layers"]["truth"]


def test_predictions_that_lack_are_said_and_the_other_layers_are_shown(
    fake_run: Any, run_copy: Path
) -> None:
    first, second, third = fake_run.split.names[:3]
    folder = run_copy / "predictions" / "unary-seed0"
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(folder / f"{first}.png")
    whole = (folder / f"{second}.png").read_bytes()
    (folder / f"{second}.png").write_bytes(whole[: len(whole) // 2])
    (folder / f"{third}.png").unlink()
    comparison = read(run_copy)
    pictures = pictures_of(gallery.build(comparison, fake_run.split, 60, "c0"))
    assert {lack.where for lack in comparison.lacks} == {"demo/unary-seed0"}
    assert {lack.what for lack in comparison.lacks} == {
        f"the prediction is not of the image's size: {first}",
        f"the prediction file is damaged: {second}",
        f"no prediction file: {third}",
    }
    for name in (first, second, third):
        assert "unary" not in pictures[name]["layers"]
        assert "joint" in pictures[name]["layers"]


def test_what_is_compared_where_arms_or_the_data_set_lack(fake_run: Any, run_copy: Path) -> None:
    assert "data set" in gallery.build(read(fake_run.run_dir), None, 60, "c0").reason
    for path in run_copy.glob("arms/joint-*/result.json"):
        path.unlink()
    shown = gallery.build(read(run_copy), fake_run.split, 3, "c0")
    assert (shown.left, shown.right) == ("post-hoc", "crf-only")
    assert (shown.shown, shown.images, len(pictures_of(shown))) == (3, 8, 3)
    for path in run_copy.glob("arms/*/result.json"):
        path.unlink()
    assert "two arms" in gallery.build(read(run_copy), fake_run.split, 60, "c0").reason


def test_names_cannot_end_the_script_they_stand_in(tmp_path: Path) -> None:
    split = FakeScenes(count=2)
    split.names = ("<!--<script>", 'a & "b"')
    run = make_run(tmp_path / "run", split, seeds=(0,))
    shown = gallery.build(read(run.run_dir), split, 60, "c0")
    assert set(pictures_of(shown)) == set(split.names)
    assert "<!--" not in shown.html


def test_the_data_set_is_found_without_checkpoints_or_said_to_lack(tmp_path: Path) -> None:
    config = CollageConfig(size=33, num_train=2, num_tune=2, num_report=2)
    run = make_run(tmp_path / "run", Collage(config, "report"), seeds=(0,)).run_dir

    def set_data(found: CollageConfig | FolderConfig) -> Comparison:
        values = json.loads((run / "config.json").read_text())
        text = json.dumps({**values, "data": asdict(found)}, default=str)
        (run / "config.json").write_text(text)
        return read(run)

    comparison = set_data(config)
    split = find_split(comparison, None)
    assert isinstance(split, Collage)
    assert split.names == Collage(config, "report").names
    assert comparison.lacks == []
    moved = set_data(FolderConfig(root=tmp_path / "moved"))
    assert find_split(moved, None) is None
    (lack,) = moved.lacks
    assert lack.what.startswith("no images, so no gallery: ")
    assert "--data.root DIR" in lack.remedy
    results = json.loads((run / "results.json").read_text())
    results["data"]["classes"] = ["a", "b"]
    (run / "results.json").write_text(json.dumps(results))
    others = set_data(config)
    assert find_split(others, None) is None
    assert len(others.lacks) == 1


def opened(uri: str) -> Any:
    head, _, body = uri.partition(",")
    assert re.fullmatch("data:image/(png|webp);base64", head)
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_layers_as_pictures() -> None:
    palette = voc_palette()
    labels = np.asarray(opened(label_picture(np.array([[0, 15, 255]]), palette)).convert("RGBA"))
    assert labels[0, 1].tolist() == [*palette[15], 255]
    assert labels[0, 0, 3] == labels[0, 2, 3] == 0  # black and void are clear

    def drawn(uri: str) -> list[bool]:
        return list(np.asarray(opened(uri).convert("RGBA"))[0, :, 3] > 0)

    assert drawn(outline_picture(np.array([[0, 0, 1, 1]] * 3))) == [False, True, False, False]
    wrong = wrong_picture(np.array([[1, 0, 0, 1]]), np.array([[1, 1, 255, 0]]))
    assert drawn(wrong) == [False, True, False, True]
    assert opened(photograph(np.full((7, 5, 3), 200, dtype=np.uint8))).size == (5, 7)


def test_the_window_covers_the_difference_without_void() -> None:
    truth = np.zeros((60, 100), dtype=np.int64)
    first, second = truth.copy(), truth.copy()
    second[40:46, 70:80] = 1
    truth[:10] = 255
    second[:10] = 1
    window = most_different(truth, first, second)
    assert window.side == 24
    assert window.top <= 40 < 46 <= window.top + 24
    assert window.left <= 70 < 80 <= window.left + 24
    assert abs(window.left + 12 - 75) <= 2  # in the middle of it, not in a corner
    first[59, 99] = 2
    inside = most_different(truth, second, np.where(first == 2, 1, second))
    assert (inside.top + 24, inside.left + 24) == (60, 100)
    assert most_different(np.zeros((5, 9), dtype=np.int64), None, None) == Window(0, 2, 5)
