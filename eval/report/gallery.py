"""The gallery: images of the report split with a slider between any two layers of each.

The pictures lie in a JSON element of the page, and gallery.js puts those of a card into it when it
comes into view.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.dataset import SegmentationDataset
from eval.prediction_files import Ids
from eval.report.choosing import Item, best_worst_and_between, compared, ranked
from eval.report.comparison import Comparison
from eval.report.controls import controls
from eval.report.layers import (
    label_picture,
    most_different,
    outline_picture,
    photograph,
    wrong_picture,
)
from eval.report.reading import AGAIN, ArmRun, Lack
from runtime.run_folder import ARMS


@dataclass(frozen=True)
class Gallery:
    """What the page shows.

    Attributes:
        html: the cards with their controls; empty where there are none.
        reason: why there are none.
        seed: whose predictions are shown.
        left, right: the arms that the gain is of.
        shown, images: how many of how many.
    """

    html: str
    reason: str = ""
    seed: int | None = None
    left: str = ""
    right: str = ""
    shown: int = 0
    images: int = 0


def build(
    comparison: Comparison, split: SegmentationDataset | None, count: int, prefix: str
) -> Gallery:
    """The gallery of a comparison; what is missing for it goes to `comparison.lacks`.

    Args:
        comparison: whose predictions are shown, of the first seed that has a pair of arms.
        split: the report split; None where it is not there.
        count: how many images at most.
        prefix: of the ids on the page, unique for each comparison.
    """
    found = compared(comparison)
    if found is None:
        return Gallery("", "The gallery needs two arms of one seed.")
    seed, left, right = found
    if split is None:
        return Gallery("", "The gallery needs the data set, which was not found.")
    arms: dict[str, ArmRun] = {
        arm: run for arm in ARMS if (run := comparison.find(arm, seed)) is not None
    }
    items = ranked(arms, left, right)
    chosen = best_worst_and_between(items, count)
    pictures: dict[str, Any] = {}
    cards = []
    reader = _Masks(arms)
    for item in chosen:
        if item.name not in split.names:
            reader.say(comparison.name, "the data set has no image", item.name)
            continue
        sample = split[split.names.index(item.name)]
        truth = sample.mask.numpy()
        masks = {arm: reader.read(arm, item.name, truth.shape) for arm in arms}
        layers: dict[str, Ids] = {
            "truth": truth,
            **{arm: mask for arm, mask in masks.items() if mask is not None},
        }
        pictures[item.name] = {
            "photo": photograph(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())),
            "layers": {
                name: {
                    "labels": label_picture(ids, split.palette),
                    "outline": outline_picture(ids),
                    **({} if name == "truth" else {"wrong": wrong_picture(ids, truth)}),
                }
                for name, ids in layers.items()
            },
        }
        cards.append(_card(item, layers, (left, right)))
    comparison.lacks += reader.lacks()
    if not cards:
        return Gallery("", "No image of the report split was scored by both arms.")
    names = [layer for layer in (*ARMS, "truth") if layer in arms or layer == "truth"]
    return Gallery(
        controls(names, (left, right), split, prefix)
        + f'<div class="cards">{"".join(cards)}</div>'
        + '<script type="application/json" class="pictures">'
        + json.dumps(pictures).replace("<", "\\u003c")
        + "</script>",
        seed=seed, left=left, right=right, shown=len(cards), images=len(items),
    )  # fmt: skip


class _Masks:
    """Reads predictions and remembers what is wrong with them."""

    def __init__(self, arms: Mapping[str, ArmRun]) -> None:
        self._arms = arms
        self._wrong: dict[tuple[str, str], list[str]] = {}

    def say(self, where: str, what: str, name: str) -> None:
        self._wrong.setdefault((where, what), []).append(name)

    def read(self, arm: str, name: str, shape: tuple[int, ...]) -> Ids | None:
        """(H, W) ids; None, and a lack, where the file is not as it must be."""
        run = self._arms[arm]
        path: Path = run.predictions / f"{name}.png"
        if not path.is_file():
            self.say(run.where, "no prediction file", name)
            return None
        try:
            with Image.open(path) as file:
                ids = np.asarray(file)
        except (UnidentifiedImageError, OSError, SyntaxError):
            self.say(run.where, "the prediction file is damaged", name)
            return None
        if ids.shape != shape:
            self.say(run.where, "the prediction is not of the image's size", name)
            return None
        return ids

    def lacks(self) -> list[Lack]:
        return [
            Lack(where, f"{what}: {_listed(names)}", AGAIN)
            for (where, what), names in self._wrong.items()
        ]


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _card(item: Item, layers: Mapping[str, Ids], pair: tuple[str, str]) -> str:
    height, width = layers["truth"].shape
    window = most_different(layers["truth"], layers.get(pair[0]), layers.get(pair[1]))
    classes = {int(c) for ids in layers.values() for c in np.unique(ids)}
    data = {
        "name": item.name,
        "classes": " ".join(map(str, sorted(classes))),
        "harm": "" if item.crf_gain is None else f"{item.crf_gain:.6f}",
        **{f"miou-{arm}": f"{value:.6f}" for arm, value in item.miou.items()},
    }
    attributes = "".join(f' data-{k}="{html.escape(v)}"' for k, v in data.items())
    place = (
        f"--width:{width};--height:{height};--top:{window.top};--left:{window.left};"
        f"--side:{window.side}"
    )
    numbers = "".join(
        f'<div class="arm-{arm}"><dt>{arm}</dt><dd>{100 * value:.1f}</dd></div>'
        for arm, value in item.miou.items()
    )
    name = html.escape(item.name)
    sides = "".join(
        f'<div class="side {side}"><div class="frame"><img class="labels" alt="">'
        '<img class="outline" alt=""></div></div>'
        for side in ("left", "right")
    )
    small = " small" if width < 300 else ""
    return (
        f'<article class="card{small}"{attributes} style="{place}">'
        f'<h4>{name}</h4><p class="gain"></p>'
        '<div class="stage"><div class="frame"><img class="photo" alt=""></div>'
        f'{sides}<div class="side both"><div class="frame"><i class="lost"></i>'
        '<i class="gained"></i><i class="wrong"></i></div></div>'
        '<span class="tag left"></span><span class="tag right"></span>'
        '<input type="range" min="0" max="100" step="1" value="50">'
        '<i class="cut"></i></div>'
        f'<dl class="numbers">{numbers}</dl></article>'
    )
