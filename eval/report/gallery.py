"""Choose images of the report split, and prepare the layers that their sliders uncover."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.dataset import VOID, Ids, Picture, SegmentationDataset, outline
from data.kinds import KINDS
from eval.runs import AGAIN, Comparison, Lack, Run
from runtime.checkpoint import read_checkpoint
from runtime.run_folder import ARMS, split_of

PAIRS = (
    ("post-hoc", "joint"),
    ("post-hoc", "crf-only"),
    ("unary", "joint"),
    ("unary", "crf-only"),
    ("unary", "post-hoc"),
    ("start", "unary"),
)
"""Left and right layer at first: the first pair whose arms have both been run."""


@dataclass(frozen=True)
class Item:
    """An image to show.

    Attributes:
        name: of the image.
        miou: of every arm that has one, 0..1.
        gain: mIoU of the right arm minus that of the left one.
        crf_gain: what the right arm's CRF changed, where that is known.
    """

    name: str
    miou: Mapping[str, float]
    gain: float
    crf_gain: float | None


@dataclass(frozen=True)
class Card:
    """An image of the page, its pictures as data URIs.

    Attributes:
        item: the image and its scores.
        width: pixels.
        height: pixels.
        photo: the image itself.
        layers: the truth and what each arm predicts, to lie over the image.
        classes: ids in any of the layers.
    """

    item: Item
    width: int
    height: int
    photo: str
    layers: Mapping[str, str]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """The cards of a comparison.

    Attributes:
        cards: the images.
        reason: why there are none.
        seed: whose predictions are shown.
        left, right: the arms that the gain is of.
        images: how many images there are to choose from.
        layers: names of all layers.
        classes: name and colour of every class.
    """

    cards: tuple[Card, ...] = ()
    reason: str = ""
    seed: int | None = None
    left: str = ""
    right: str = ""
    images: int = 0
    layers: tuple[str, ...] = ()
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> dict[str, Any]:
        """Return what gallery.js needs of every card, by name."""
        return {
            card.item.name: {
                "miou": card.item.miou,
                "crf_gain": card.item.crf_gain,
                "classes": card.classes,
                "layers": card.layers,
            }
            for card in self.cards
        }


def build(comparison: Comparison, split: SegmentationDataset | None, count: int) -> Gallery:
    """Build the gallery of a comparison; what is missing for it goes to `comparison.lacks`.

    Args:
        comparison: the runs; those of the first seed that has a pair of arms are shown.
        split: the report split; None without the data set.
        count: images at most.
    """
    pair = compared(comparison)
    if pair is None:
        return Gallery(reason="The gallery needs two arms of one seed.")
    seed, left, right = pair
    if split is None:
        return Gallery(reason="The gallery needs the data set, which was not found.")
    arms: dict[str, Run] = {
        arm: run for arm in ARMS if (run := comparison.find(arm, seed)) is not None
    }
    items = ranked(arms, left, right)
    problems: dict[tuple[str, str], list[str]] = {}
    cards = []
    for item in best_worst_and_between(items, count):
        if item.name not in split.names:
            problem = (comparison.name, "the data set has no image")
            problems.setdefault(problem, []).append(item.name)
            continue
        sample = split[split.names.index(item.name)]
        truth = sample.mask.numpy()
        layers: dict[str, Ids] = {"truth": truth}
        for arm, run in arms.items():
            try:
                layers[arm] = read_prediction(run, item.name, truth.shape)
            except ValueError as problem:
                problems.setdefault((run.where, str(problem)), []).append(item.name)
        cards.append(
            Card(
                item, truth.shape[1], truth.shape[0],
                photo=photo_picture(sample.pixels),
                layers={name: layer_picture(ids, split.palette) for name, ids in layers.items()},
                classes=tuple(sorted({int(k) for ids in layers.values() for k in np.unique(ids)})),
            )
        )  # fmt: skip
    for (where, what), names in problems.items():
        more = "" if len(names) <= 5 else f" and {len(names) - 5} more"
        comparison.lacks.append(Lack(where, f"{what}: {', '.join(names[:5])}{more}", AGAIN))
    if not cards:
        return Gallery(reason="No image of the report split was scored by both arms.")
    colours = [f"rgb({r},{g},{b})" for r, g, b in split.palette[: len(split.classes)].tolist()]
    return Gallery(
        tuple(cards),
        seed=seed, left=left, right=right, images=len(items), layers=(*arms, "truth"),
        classes=tuple(zip(split.classes, colours, strict=True)),
    )  # fmt: skip


def compared(comparison: Comparison) -> tuple[int, str, str] | None:
    """Find the first seed that has both arms of a pair; return it with left and right arm."""
    for left, right in PAIRS:
        for seed in comparison.seeds:
            if comparison.find(left, seed) and comparison.find(right, seed):
                return seed, left, right
    return None


def ranked(arms: Mapping[str, Run], left: str, right: str) -> list[Item]:
    """List the images that both arms have a score of, largest gain first."""
    by_arm = {arm: _mious(run.result["metrics"]["report"]) for arm, run in arms.items()}
    before = _mious(arms[right].result.get("before_crf", {}).get("report", {}))
    items = [
        Item(
            name,
            {arm: mious[name] for arm, mious in by_arm.items() if name in mious},
            value - by_arm[left][name],
            value - before[name] if name in before else None,
        )
        for name, value in by_arm[right].items()
        if name in by_arm[left]
    ]
    return sorted(items, key=lambda item: (-item.gain, item.name))


def _mious(scores: Mapping[str, Any]) -> dict[str, float]:
    return {i["name"]: i["miou"] for i in scores.get("images", ()) if i["miou"] is not None}


def best_worst_and_between(items: Sequence[Item], count: int) -> list[Item]:
    """Choose at most `count` ranked items: a third from either end, the rest evenly between.

    Raises:
        ValueError: a negative number.
    """
    if count < 0:
        raise ValueError(f"the gallery has at least 0 images, got {count}.")
    if len(items) <= count:
        return list(items)
    ends = count // 3
    between = count - 2 * ends
    first, last = ends, len(items) - ends
    # The middles of `between` equal parts.
    places = [first + int((k + 0.5) * (last - first) / between) for k in range(between)]
    return [*items[:ends], *(items[place] for place in places), *items[last:]]


def find_split(comparison: Comparison, root: Path | None) -> SegmentationDataset | None:
    """Open the report split from what the run folders say of their data.

    Args:
        comparison: the runs; it gets a lack where there are no images.
        root: where the data set lies now, if not where it was.
    """
    reason = "nothing in the folder says which data set it was"
    for config in _data_configs(comparison):
        try:
            split = split_of(config, "report", root if "root" in config else None)
        except (ValueError, OSError) as error:
            reason = str(error).removesuffix(".")
            continue
        if split.classes == comparison.classes:
            return split
        reason = "the data set has other classes than those that were scored"
    remedy = "Pass --data.root DIR, the folder where the data set lies now, for a gallery."
    comparison.lacks.append(Lack(comparison.name, f"no images, so no gallery: {reason}", remedy))
    return None


def _data_configs(comparison: Comparison) -> Iterator[Mapping[str, Any]]:
    """Yield configs of the data set, the surest first.

    A checkpoint names the kind of its data. Where none can be read, the recipe's config does not:
    then every kind is tried, and the classes decide.
    """
    for record in comparison.records:
        for path in sorted((record.path / "arms").glob("*/checkpoint.pt")):
            try:
                yield read_checkpoint(path)["data"]
            except (ValueError, OSError):
                continue
            return
    for record in comparison.records:
        for kind in KINDS:
            yield {"kind": kind, **record.config.get("data", {})}


def read_prediction(run: Run, name: str, shape: tuple[int, ...]) -> Ids:
    """Read the ids that an arm predicted of an image.

    Raises:
        ValueError: there is no such file, or it is damaged or of another size than `shape`.
    """
    path = run.predictions / f"{name}.png"
    if not path.is_file():
        raise ValueError("no prediction file")
    try:
        with Image.open(path) as file:
            ids = np.asarray(file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError("the prediction file is damaged") from error
    if ids.shape != shape:
        raise ValueError("the prediction is not of the image's size")
    return ids


def layer_picture(ids: Ids, palette: Picture) -> str:
    """Draw labels to lie over their photograph, as a palette PNG with white outlines.

    Void and black are clear: black is the usual colour of a background, and would only darken.

    Args:
        ids: (H, W) label ids, 255 = void.
        palette: (256, 3) uint8 RGB.
    """
    present = np.unique(ids)
    index = np.searchsorted(present, ids).astype(np.uint8)
    index[outline(ids)] = len(present)
    clear = (present == VOID) | ~palette[present].any(axis=1)
    opacity = [*np.where(clear, 0, 140), 217]
    image = Image.fromarray(index)
    image.putpalette([*palette[present].ravel().tolist(), 255, 255, 255])
    return data_uri(image, "png", optimize=True, transparency=bytes(map(int, opacity)))


def photo_picture(pixels: Picture) -> str:
    """Encode an (H, W, 3) photograph."""
    return data_uri(Image.fromarray(pixels), "webp", quality=80)


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """Encode an image for the `src` of an HTML element."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
