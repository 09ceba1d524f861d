"""Panels image | truth | unary | post-hoc | joint of the images that joint training changed.

The images are those with the largest, median and smallest gain of joint training over the post-hoc
CRF in per-image mIoU, so that the page shows losses next to gains. Below each row the same five
pictures are enlarged where joint and post-hoc differ most.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.dataset import SegmentationDataset
from data.sample import VOID
from eval.overlay import Ids, Picture, overlay
from eval.summary import find_run

ARMS_SHOWN = ("unary", "post-hoc", "joint")


@dataclass(frozen=True)
class Choice:
    """An image to show, with the per-image mIoU of the arms that have one."""

    name: str
    miou: Mapping[str, float]

    @property
    def gain(self) -> float:
        """MIoU of joint minus that of post-hoc."""
        return self.miou["joint"] - self.miou["post-hoc"]


@dataclass(frozen=True)
class Window:
    """A square part of an image, pixels."""

    top: int
    left: int
    side: int

    def crop(self, picture: Picture) -> Picture:
        """The part of an (H, W, 3) picture."""
        return picture[self.top : self.top + self.side, self.left : self.left + self.side]


def seed_to_show(results: Mapping[str, Any]) -> int | None:
    """The first seed with both a joint and a post-hoc run."""
    for seed in results["seeds"]:
        if find_run(results, "joint", seed) and find_run(results, "post-hoc", seed):
            return int(seed)
    return None


def choose(results: Mapping[str, Any], seed: int, each: int = 3) -> dict[str, list[Choice]]:
    """The images to show, best first in every group.

    Args:
        results: the content of results.json.
        seed: with a joint and a post-hoc run.
        each: images a group; fewer when there are not enough for three groups.

    Returns:
        "best", "median" and "worst"; no image is in two groups.
    """
    per_image: dict[str, dict[str, float]] = {}
    for arm in ARMS_SHOWN:
        run = find_run(results, arm, seed)
        for image in run["metrics"]["report"]["images"] if run else ():
            if image["miou"] is not None:
                per_image.setdefault(image["name"], {})[arm] = image["miou"]
    comparable = [
        Choice(name, miou)
        for name, miou in per_image.items()
        if "joint" in miou and "post-hoc" in miou
    ]
    ranked = sorted(comparable, key=lambda choice: (-choice.gain, choice.name))
    count = min(each, -(-len(ranked) // 3))
    best, rest = ranked[:count], ranked[count:]
    worst = rest[-count:]
    between = rest[: len(rest) - len(worst)]
    first = (len(between) - min(count, len(between))) // 2
    return {"best": best, "median": between[first : first + count], "worst": worst}


def render(
    choice: Choice,
    run_dir: Path,
    split: SegmentationDataset,
    seed: int,
    missing: dict[str, list[str]],
) -> str:
    """One image as an HTML figure.

    Args:
        choice: the image.
        run_dir: holds predictions/ARM-seedK/NAME.png.
        split: the report split, for image, truth and colours.
        seed: whose predictions are shown.
        missing: receives, by arm, the names whose prediction file does not exist.

    Raises:
        ValueError: a prediction whose size is not the image's.
    """
    sample = split[split.names.index(choice.name)]
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    truth = sample.mask.numpy()
    predictions: dict[str, Ids] = {}
    for arm in ARMS_SHOWN:
        path = run_dir / "predictions" / f"{arm}-seed{seed}" / f"{choice.name}.png"
        if path.is_file():
            predictions[arm] = _read_ids(path, truth.shape)
        else:
            missing.setdefault(arm, []).append(choice.name)
    window = most_different(truth, predictions.get("post-hoc"), predictions.get("joint"))
    cells = [
        _cell("image", image, window),
        _cell("truth", overlay(image, truth, split.palette), window),
    ]
    for arm in ARMS_SHOWN:
        shown = overlay(image, predictions[arm], split.palette) if arm in predictions else None
        cells.append(_cell(arm, shown, window, choice.miou.get(arm)))
    gain = f"{100 * choice.gain:+.2f}".replace("-", "−")
    caption = f"<b>{html.escape(choice.name)}</b> joint − post-hoc {gain} points of mIoU"
    return (
        f'<figure class="panel"><figcaption>{caption}</figcaption>'
        f'<div class="scroll"><div class="strip">{"".join(cells)}</div></div></figure>'
    )


def most_different(truth: Ids, first: Ids | None, second: Ids | None) -> Window:
    """The square, a quarter of the image's short side, where two predictions differ in most pixels.

    Void pixels do not count. Without a difference, or without both predictions, it is the centre.
    """
    height, width = truth.shape
    side = min(height, width, max(24, min(height, width) // 4))
    if first is None or second is None:
        return Window((height - side) // 2, (width - side) // 2, side)
    differs = (first != second) & (truth != VOID)
    if not differs.any():
        return Window((height - side) // 2, (width - side) // 2, side)
    # Sums over all squares at once, from the sums over all rectangles that start at the corner.
    corner = np.pad(differs.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = corner[side:, side:] - corner[:-side, side:] - corner[side:, :-side]
    sums = sums + corner[:-side, :-side]
    # Of the equally full squares the middle one: it shows most around the difference.
    rows, columns = np.nonzero(sums == sums.max())
    middle = len(rows) // 2
    return Window(int(rows[middle]), int(columns[middle]), side)


def data_uri(picture: Picture, quality: int) -> str:
    """An (H, W, 3) picture as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _cell(name: str, picture: Picture | None, window: Window, miou: float | None = None) -> str:
    """One column of a panel: the whole picture, its enlarged part, and what it is."""
    label = name if miou is None else f"{name} <span>{100 * miou:.1f}</span>"
    if picture is None:
        return f'<div class="cell"><div class="absent">no prediction file</div><p>{label}</p></div>'
    height, width, _ = picture.shape
    box = (
        f"left:{100 * window.left / width:.2f}%;top:{100 * window.top / height:.2f}%;"
        f"width:{100 * window.side / width:.2f}%;height:{100 * window.side / height:.2f}%"
    )
    whole, part = data_uri(picture, quality=82), data_uri(window.crop(picture), quality=92)
    return (
        f'<div class="cell"><div class="whole"><img src="{whole}" width="{width}" '
        f'height="{height}" alt="{name}"><i style="{box}"></i></div>'
        f'<img class="part" src="{part}" width="{window.side}" height="{window.side}" '
        f'alt="{name}, enlarged"><p>{label}</p></div>'
    )


def _read_ids(path: Path, shape: tuple[int, ...]) -> Ids:
    with Image.open(path) as file:
        ids = np.asarray(file)
    if ids.shape != shape:
        raise ValueError(
            f"{path}: expected a palette PNG of the image's size {shape}, got {ids.shape} "
            f"in mode {file.mode}; run the comparison again to write its predictions"
        )
    return ids
