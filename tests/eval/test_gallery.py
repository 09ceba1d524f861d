"""Which images are shown, in which order, and what is said of a prediction that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.arms import ARMS
from eval.report import gallery
from eval.report.choosing import Item, best_worst_and_between
from eval.report.comparison import Comparison, comparisons
from eval.report.reading import read_run
from tests.eval.conftest import FakeScenes, make_run


def items(count: int) -> list[Item]:
    return [Item(f"image {k}", {}, -0.01 * k, None) for k in range(count)]


def places(count: int, shown: int) -> list[int]:
    return [int(item.name.split()[1]) for item in best_worst_and_between(items(count), shown)]


def read(path: Path) -> Comparison:
    return comparisons([read_run(path)])[0]


def pictures_of(shown: gallery.Gallery) -> Any:
    found = re.search(r'class="pictures">(.*?)</script>', shown.html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_best_worst_and_evenly_between() -> None:
    assert places(100, 9) == [0, 1, 2, 18, 50, 81, 97, 98, 99]
    assert places(4, 9) == [0, 1, 2, 3]
    assert places(3, 1) == [1]
    assert places(3, 0) == []


@pytest.mark.parametrize("shown", range(12))
def test_no_image_is_shown_twice_and_none_too_many(shown: int) -> None:
    found = places(11, shown)
    assert found == sorted(set(found))
    assert len(found) == min(shown, 11)


def test_fewer_than_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0 images, got -1"):
        best_worst_and_between(items(3), -1)


def test_cards_are_by_gain_of_joint_over_post_hoc(fake_run: Any) -> None:
    shown = gallery.build(read(fake_run.run_dir), fake_run.split, 60, "c0")
    assert (shown.left, shown.right, shown.seed) == ("post-hoc", "joint", 0)
    joint, post_hoc = (
        {image["name"]: image["miou"] for image in run["metrics"]["report"]["images"]}
        for arm in ("joint", "post-hoc")
        for run in fake_run.results["runs"]
        if (run["arm"], run["seed"]) == (arm, 0)
    )
    expected = sorted(joint, key=lambda name: post_hoc[name] - joint[name])
    assert re.findall(r'<article [^>]*data-name="([^"]+)"', shown.html) == expected


def test_every_layer_of_every_image_is_in_the_page(fake_run: Any) -> None:
    shown = gallery.build(read(fake_run.run_dir), fake_run.split, 60, "c0")
    pictures = pictures_of(shown)
    assert set(pictures) == set(fake_run.split.names)
    for picture in pictures.values():
        assert list(picture["layers"]) == ["truth", *ARMS]
        assert "wrong" in picture["layers"]["joint"]
        assert "wrong" not in picture["layers"]["truth"]


def test_number_of_images_is_kept(fake_run: Any) -> None:
    shown = gallery.build(read(fake_run.run_dir), fake_run.split, 3, "c0")
    assert (shown.shown, shown.images) == (3, len(fake_run.split))
    assert len(pictures_of(shown)) == 3


def test_a_missing_prediction_is_said_and_the_other_layers_are_shown(
    fake_run: Any, run_copy: Path
) -> None:
    name = fake_run.split.names[0]
    (run_copy / "predictions" / "joint-seed0" / f"{name}.png").unlink()
    comparison = read(run_copy)
    shown = gallery.build(comparison, fake_run.split, 60, "c0")
    said = [(lack.where, lack.what) for lack in comparison.lacks]
    assert said == [("demo/joint-seed0", f"no prediction file: {name}")]
    layers = pictures_of(shown)[name]["layers"]
    assert "joint" not in layers
    assert "post-hoc" in layers


def test_predictions_of_another_size_or_cut_off_are_said(fake_run: Any, run_copy: Path) -> None:
    first, second = fake_run.split.names[:2]
    folder = run_copy / "predictions" / "unary-seed0"
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(folder / f"{first}.png")
    whole = (folder / f"{second}.png").read_bytes()
    (folder / f"{second}.png").write_bytes(whole[: len(whole) // 2])
    comparison = read(run_copy)
    gallery.build(comparison, fake_run.split, 60, "c0")
    assert {lack.what for lack in comparison.lacks} == {
        f"the prediction is not of the image's size: {first}",
        f"the prediction file is damaged: {second}",
    }


def test_without_the_data_or_two_arms_there_is_no_gallery(fake_run: Any, run_copy: Path) -> None:
    assert "data set" in gallery.build(read(fake_run.run_dir), None, 60, "c0").reason
    for path in run_copy.glob("arms/*/result.json"):
        path.unlink()
    assert "two arms" in gallery.build(read(run_copy), fake_run.split, 60, "c0").reason


def test_without_joint_another_pair_is_compared(fake_run: Any, run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-*/result.json"):
        path.unlink()
    shown = gallery.build(read(run_copy), fake_run.split, 60, "c0")
    assert (shown.left, shown.right) == ("post-hoc", "crf-only")


def test_names_cannot_end_the_script_they_stand_in(tmp_path: Path) -> None:
    split = FakeScenes(count=2)
    split.names = ("<!--<script>", 'a & "b"')
    run = make_run(tmp_path / "run", split, seeds=(0,))
    shown = gallery.build(read(run.run_dir), split, 60, "c0")
    assert set(pictures_of(shown)) == set(split.names)
    assert "<!--" not in shown.html
