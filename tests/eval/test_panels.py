"""Which images are shown, where they are enlarged, and how labels are laid over them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.panels import Choice, Window, choose, data_uri, most_different, render


def ranked(gains: list[float]) -> dict[str, Any]:
    def run(arm: str, mious: list[float]) -> dict[str, Any]:
        images = [{"name": f"image {i}", "miou": miou} for i, miou in enumerate(mious)]
        return {"arm": arm, "seed": 0, "metrics": {"report": {"images": images}}}

    runs = [run("post-hoc", [0.5] * len(gains)), run("joint", [0.5 + gain for gain in gains])]
    return {"seeds": [0], "runs": runs}


def chosen(gains: list[float], each: int = 3) -> dict[str, list[int]]:
    groups = choose(ranked(gains), seed=0, each=each)
    return {group: [int(c.name.split()[1]) for c in choices] for group, choices in groups.items()}


def test_best_median_and_worst() -> None:
    gains = [0.0, 0.4, -0.4, 0.3, -0.3, 0.2, -0.2, 0.1, -0.1]
    assert chosen(gains, each=1) == {"best": [1], "median": [0], "worst": [2]}
    assert chosen(gains) == {"best": [1, 3, 5], "median": [7, 0, 8], "worst": [6, 4, 2]}


@pytest.mark.parametrize("count", range(13))
def test_no_image_is_shown_twice(count: int) -> None:
    groups = chosen([0.01 * index for index in range(count)])
    shown = [image for images in groups.values() for image in images]
    assert len(set(shown)) == len(shown) == min(count, 9)


def test_images_without_a_score_are_not_shown() -> None:
    results = ranked([0.1, 0.2, 0.3])
    results["runs"][1]["metrics"]["report"]["images"][1]["miou"] = None
    names = [c.name for choices in choose(results, seed=0).values() for c in choices]
    assert sorted(names) == ["image 0", "image 2"]


def test_window_covers_the_difference() -> None:
    truth = np.zeros((60, 100), dtype=np.int64)
    first, second = truth.copy(), truth.copy()
    second[40:46, 70:80] = 1
    window = most_different(truth, first, second)
    assert window.side == 24
    assert window.top <= 40
    assert window.top + 24 >= 46
    assert window.left <= 70
    assert window.left + 24 >= 80
    # The difference lies in the middle of it, not in a corner.
    assert abs(window.left + 12 - 75) <= 2


def test_window_ignores_void_and_stays_inside() -> None:
    truth = np.zeros((30, 30), dtype=np.int64)
    truth[:10] = 255
    first, second = np.zeros_like(truth), np.zeros_like(truth)
    second[:10] = 1
    assert most_different(truth, first, second) == Window(3, 3, 24)
    second[29, 29] = 1
    window = most_different(truth, first, second)
    assert window.top + window.side == window.left + window.side == 30


def test_window_without_predictions_is_the_centre() -> None:
    assert most_different(np.zeros((5, 9), dtype=np.int64), None, None) == Window(0, 2, 5)


def test_data_uri_holds_the_picture() -> None:
    picture = np.full((7, 5, 3), 200, dtype=np.uint8)
    head, _, body = data_uri(picture, quality=90).partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (5, 7)


def test_prediction_of_another_size_is_refused(fake_run: Any, tmp_path: Any) -> None:
    name = fake_run.split.names[0]
    folder = tmp_path / "predictions" / "joint-seed0"
    folder.mkdir(parents=True)
    Image.new("P", (3, 2)).save(folder / f"{name}.png")
    choice = Choice(name, {"post-hoc": 0.5, "joint": 0.6})
    with pytest.raises(ValueError, match=rf"{name}.png: expected a palette PNG .* got \(2, 3\)"):
        render(choice, tmp_path, fake_run.split, 0, {})
